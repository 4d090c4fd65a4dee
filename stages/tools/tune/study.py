"""Studies in Optuna's storage: opening one, its sampler and pruner, and when it is complete."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from stages.core.errors import StageError
from stages.tools.tune.schema import Tune
from stages.tools.tune.space import Distribution, read_space

FOLDER = Path(".dvc/tmp/studies")
HEARTBEAT = 10  # seconds between two heartbeats of a running trial
GRACE = 60  # seconds without a heartbeat after which a trial counts as abandoned
BUSY = 60  # seconds to wait for another process that writes to the same SQLite file
TRIES = 5  # to open an empty database while other processes create the same tables
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

# Which way each objective improves.
DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {
    "mse": "minimize", "bce": "minimize", "ssim": "maximize", "probe": "maximize",
    "parameters": "minimize", "latent_dim": "minimize",
}  # fmt: skip

SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.BruteForceSampler,
}

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
retry = RetryHeartbeatStaleTrialCallback(max_retry=3)  # queues the same settings again, as a new trial


def default_storage(name: str) -> str:
    """The URL of an SQLite file on this machine that git and DVC ignore."""
    return f"sqlite:///{FOLDER / name}.db"


def printable(url: str) -> str:
    """A storage's URL without anything that may hold a password."""
    return str(sqlalchemy.make_url(url).set(query={}))


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what goes wrong with the storage inside the block into StageError: one sentence without a password."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        cause: BaseException = error.__cause__ or error
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split()).rstrip(".")
        remedy = "run the same command again once it works"
        if isinstance(error, ImportError):
            remedy = "install its driver, for PostgreSQL with `pip install 'psycopg[binary]'`"
        raise StageError(f"the storage {printable(url)} failed ({reason}); {remedy}.") from None


def open_storage(url: str) -> RDBStorage:
    """Open a database; an SQLite file is created if it is missing.

    When a process dies without notice, Optuna runs its trial again after the grace period.
    Raises StageError if the database cannot be used.
    """
    address = sqlalchemy.make_url(url)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if address.get_backend_name() == "sqlite":
        Path(address.database or "").parent.mkdir(parents=True, exist_ok=True)
        options = {"connect_args": {"timeout": BUSY}}
    heartbeat: dict[str, Any] = {"heartbeat_interval": HEARTBEAT, "grace_period": GRACE}
    with storage_errors(url):
        tries = TRIES
        while True:
            try:
                return RDBStorage(url, engine_kwargs=options, heartbeat_stale_trial_callback=retry, **heartbeat)
            except sqlalchemy.exc.DBAPIError as error:
                tries -= 1
                if not tries or not re.search("already exists|unique|duplicate", str(error), re.IGNORECASE):
                    raise
            except RuntimeError as error:  # tables of another version of Optuna
                raise StageError(f"the storage {printable(url)} cannot be used: {error}") from None


def create_study(url: str, name: str, tune: Tune, digests: Mapping[str, str]) -> optuna.Study:
    """The study of that name, created if it is missing.

    digests: of everything that decides its trials. Raises StageError if the study has others.
    """
    study = optuna.create_study(
        storage=open_storage(url),
        study_name=name,
        load_if_exists=True,
        sampler=build_sampler(tune, 0),
        pruner=build_pruner(tune),
        directions=[DIRECTIONS[objective] for objective in tune.objectives],
    )
    if "digests" not in study.user_attrs:
        study.set_metric_names(list(tune.objectives))
        study.set_user_attr("digests", dict(digests))
    begun = study.user_attrs["digests"]
    if different := [what for what in digests if begun.get(what) != digests[what]]:
        raise StageError(
            f"the study {name} in {printable(url)} has other {' and other '.join(different)}; continue it with those, "
            "or start over with --restart, which deletes its trials."
        )
    return study


def load_study(url: str, name: str) -> optuna.Study:
    """The study of that name. Raises StageError if there is none."""
    try:
        return optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        raise StageError(f"{printable(url)} has no study {name}; run `python -m stages tune {name}`.") from None


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are complete or pruned, by number."""
    return study.get_trials(deepcopy=False, states=ENDED)


def is_complete(study: optuna.Study, tune: Tune) -> bool:
    """Whether the study has used up its trials or its seconds."""
    trials = ended(study)
    return len(trials) >= tune.trials or 0 < tune.seconds <= sum(map(seconds, trials))


def seconds(trial: FrozenTrial) -> float:
    """How long a trial took."""
    return trial.duration.total_seconds() if trial.duration else 0.0


def suggest(trial: optuna.Trial, tune: Tune) -> dict[str, Any]:
    """A value for each part of the space; those that the trial already has stay.

    Each trial has a seed of its own, so that parallel processes do not suggest the same values.
    """
    trial.study.sampler = build_sampler(tune, trial.number)
    return {name: suggest_one(trial, name, part) for name, part in read_space(tune.space).items()}


def suggest_one(trial: optuna.Trial, name: str, part: Distribution) -> Any:
    if isinstance(part, CategoricalDistribution):
        return trial.suggest_categorical(name, part.choices)
    if isinstance(part, IntDistribution):
        return trial.suggest_int(name, part.low, part.high, step=part.step, log=part.log)
    return trial.suggest_float(name, part.low, part.high, step=part.step, log=part.log)


def build_sampler(tune: Tune, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for the trial of this number."""
    return SAMPLERS[tune.sampler](seed=int(np.random.SeedSequence([tune.seed, number]).generate_state(1)[0]))


def build_pruner(tune: Tune) -> optuna.pruners.BasePruner:
    """The pruner that a study names; epochs count from 1."""
    match tune.pruner:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return optuna.pruners.MedianPruner()
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=tune.epochs)
