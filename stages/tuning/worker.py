"""Running the trials of a study: one process of any number that share a storage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from pydantic import ValidationError

from stages.common import files
from stages.common.errors import ParamsError, StageError
from stages.model.autoencoder import build_autoencoder
from stages.model.backend import tf, use_threads
from stages.params import Model, Params, Tune
from stages.params.sentences import sentences
from stages.params.space import Space, base_of, read_space, settings_of
from stages.train import Training, assign, build_training, check_fit, train
from stages.training.checkpoint import Epoch, digest_run, loaded_code
from stages.training.images import Images, read_pixels, resident
from stages.training.optimizer import learning_rates, set_learning_rates
from stages.training.progress import Report
from stages.tuning.objectives import Measured, measure
from stages.tuning.results import ended, progress
from stages.tuning.sampling import build_sampler, suggest
from stages.tuning.storage import Liveness, beating, open_storage, open_study, put_back, reaching, whoami

LOOKS = Path("stages/drawing"), Path("stages/tools")  # code that changes no trial
UNSHAPED = {"learning_rate", "schedule", "warmup_epochs", "early_stopping"}  # settings that no compiled epoch holds
CHANCES = ("noise", "shift", "dropout", "kl_weight")  # settings that put the seed into the compiled epoch
KEPT = 4  # compiled epochs
MOST = 25  # trials of a process, since XLA keeps all that it has compiled in memory


class Data(NamedTuple):
    """What trials are trained and measured on."""

    train: Images
    validation: Images
    measured: Measured


class Compiled(NamedTuple):
    """A training that models of one shape share, with the optimizer's variables as they began."""

    training: Training
    optimizer_variables: list[Any]


def work(params: Params, name: str, url: str, restart: bool) -> bool:
    """Run trials of the study `name`, and put back the one at hand if interrupted.

    Returns whether the study is complete; if not, it is time for a fresh process.
    """
    tune = params.tune[name]
    base = base_of(params, tune)
    use_threads(base.threads)
    tf.get_logger().setLevel("ERROR")  # it warns of new traces, which new models need
    digests = digest_study(params, tune, base)
    data = read_data(params)
    with reaching(url):
        storage = open_storage(url)
        study = open_study(storage, url, name, tune, digests, restart)
        return run_trials(study, storage, tune, base, data)


def digest_study(params: Params, tune: Tune, base: Model) -> dict[str, str]:
    """A digest of each thing that decides a trial, by its name in words; the budget decides none."""
    settings = {"base": base.model_dump(), "evaluate": params.evaluate.model_dump(), "optuna": optuna.__version__}
    return digest_run(
        settings | tune.model_dump(exclude={"trials", "seconds"}),
        data=[of(split) for of in (files.images_path, files.labels_path) for split in ("train", "validation")],
        code=[p for p in loaded_code(__file__) if not any(p.is_relative_to(folder.absolute()) for folder in LOOKS)],
    )


def read_data(params: Params) -> Data:
    """The prepared training and validation images. Raises StageError if they are missing."""
    shape = files.read_images("train").shape[1:]
    train, validation = (files.read_split(split) for split in ("train", "validation"))
    measured = Measured(train, validation, (shape[0], shape[1]), params.evaluate)
    return Data(read_pixels("train", resident), read_pixels("validation", resident), measured)


def run_trials(study: optuna.Study, storage: BaseStorage, tune: Tune, base: Model, data: Data) -> bool:
    """Take trials and run them until the study is complete, or this process has run its share: then False."""
    space, compiled, began = read_space(tune), dict[str, Compiled](), time.monotonic()
    already = len(ended(study))
    for count, trial in enumerate(trials_to_run(study, storage, tune), 1):
        with putting_back(storage, trial), beating(storage, trial):
            run_trial(trial, study, tune, base, space, data, compiled)
        print(progress(study, tune, trial.number, already, time.monotonic() - began), flush=True)
        if count == MOST:
            return False
    return True


def trials_to_run(study: optuna.Study, storage: BaseStorage, tune: Tune) -> Iterator[optuna.Trial]:
    """Trials of this process: those that lost theirs, and new ones while there are too few."""
    liveness, me = Liveness(), whoami()
    while True:
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING and liveness.is_dead(trial):
                put_back(storage, trial)
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        spent = sum(trial.user_attrs.get("seconds", 0.0) for trial in trials)
        over = len(trials) >= tune.trials or (tune.seconds and spent >= tune.seconds)
        if waiting or not over:
            new = study.ask()
            if new.number >= tune.trials:  # another process was quicker
                study.tell(new, state=TrialState.FAIL)
                continue
            new.set_user_attr("worker", me)
            yield new
        elif any(trial.state == TrialState.RUNNING for trial in trials):
            time.sleep(1)  # until the others are ready, or dead
        else:
            return


@contextmanager
def putting_back(storage: BaseStorage, trial: optuna.Trial) -> Iterator[None]:
    """Have a trial run again if this block is left early."""
    try:
        yield
    except BaseException:  # Ctrl-C and SIGTERM, too
        with suppress(Exception):  # a storage that fails is what the first error tells
            put_back(storage, trial._get_latest_trial())
        raise


def run_trial(
    trial: optuna.Trial,
    study: optuna.Study,
    tune: Tune,
    base: Model,
    space: Space,
    data: Data,
    compiled: dict[str, Compiled],
) -> None:
    """Train and measure what a trial proposes, and tell the study.

    A combination without meaning, or one whose loss stops being finite, counts as pruned and says why.
    """
    start = time.monotonic()
    epochs = 0

    def report(row: Epoch) -> None:
        nonlocal epochs
        epochs = row.epoch
        if tune.pruner != "none":
            trial.report(measure(training.model, tune.objectives, data.measured)[0], epochs)
            if trial.should_prune():
                raise optuna.TrialPruned

    @contextmanager
    def reporting(epochs: int, done: int) -> Iterator[Report]:
        yield report

    study.sampler = build_sampler(tune, trial.number)
    values, reason = None, ""
    try:
        settings = settings_of(base, tune.epochs, suggest(trial, space))
        check_fit("trial", settings, len(data.train), data.measured.shape, replicas=1)
        training = training_of(settings, data, compiled)
        train(f"trial {trial.number}", training, settings, data.train, data.validation, None, reporting=reporting)
        values = measure(training.model, tune.objectives, data.measured)
    except optuna.TrialPruned:
        pass
    except ValidationError as error:
        reason = " ".join(sentences(error))
    except ParamsError as error:
        reason = str(error).replace("params.yaml: trial.", "")
    except StageError as error:
        reason = str(error).partition(", so no model")[0]
    for key, value in (("epochs_run", epochs), ("seconds", time.monotonic() - start), ("reason", reason)):
        trial.set_user_attr(key, value)
    with suppress(optuna.exceptions.UpdateFinishedTrialError):  # it was taken for dead, and ran elsewhere, too
        study.tell(trial, values, TrialState.PRUNED if values is None else TrialState.COMPLETE)


def training_of(settings: Model, data: Data, compiled: dict[str, Compiled]) -> Training:
    """A new model of these settings and what trains it, by an epoch that is compiled already if one serves."""
    model = build_autoencoder(*data.measured.shape, settings)
    key = str(shape_of(settings))
    if key not in compiled:
        for oldest in list(compiled)[: 1 - KEPT]:
            del compiled[oldest]
        training = build_training(model, settings, len(data.train), data.measured.shape)
        compiled[key] = Compiled(training, [variable.numpy() for variable in training.optimizer.variables])
        return training
    training, beginning = compiled[key]
    assign(training.model.variables, model.variables)
    assign(training.optimizer.variables, beginning)
    set_learning_rates(training.optimizer, learning_rates(settings, -(-len(data.train) // settings.batch_size)))
    return training


def shape_of(settings: Model) -> dict[str, Any]:
    """The settings that are part of a compiled epoch."""
    unshaped = UNSHAPED if any(getattr(settings, chance) for chance in CHANCES) else UNSHAPED | {"seed"}
    return settings.model_dump(exclude=unshaped)
