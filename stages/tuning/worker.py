"""Running the trials of a study: one process of any number that share a storage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from pydantic import ValidationError

from stages.core import files
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import tf, use_all_cores
from stages.core.checkpoint import Epoch, digest_run, loaded_code
from stages.core.errors import ParamsError, StageError, TerminatedError
from stages.core.optimizer import learning_rates, set_learning_rates
from stages.core.params import check_fit, sentences
from stages.core.progress import Report
from stages.core.schema import Model
from stages.core.training import Images, Training, assign, build_training, read_pixels, train
from stages.params import space as space_module
from stages.params.schema import Tune, TuneParams
from stages.params.space import base_of, settings_of
from stages.tuning.objectives import Measured, measure
from stages.tuning.results import ended, progress
from stages.tuning.sampling import draw
from stages.tuning.storage import Liveness, beating, open_storage, open_study, put_back, reaching, whoami

# Code that changes no trial: it shows them.
SHOWING = ("drawing", "tools", "tuning/report.py", "tuning/results.py", "analysis/tables.py")
LOOKS = [Path("stages", path).absolute() for path in SHOWING]
UNSHAPED = {"learning_rate", "schedule", "warmup_epochs", "early_stopping"}  # settings that no compiled epoch holds
CHANCES = ("noise", "shift", "dropout", "kl_weight")  # settings that put the seed into the compiled epoch
KEPT = 4  # compiled epochs
ATTEMPTS = 3  # processes that may die of a trial
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


def work(params: TuneParams, name: str, url: str, restart: bool) -> bool:
    """Run trials of the study `name`, and put back the one at hand if interrupted.

    Returns whether the study is complete; if not, it is time for a fresh process.
    """
    tune = params.tune[name]
    base = base_of(params, tune)
    use_all_cores()
    tf.get_logger().setLevel("ERROR")  # it warns of new traces, which new models need
    digests = digest_study(params, tune, base)
    data = read_data(params)
    with reaching(url):
        storage = open_storage(url)
        study = open_study(storage, url, name, tune, digests, restart)
        return run_trials(study, storage, tune, base, data)


def digest_study(params: TuneParams, tune: Tune, base: Model) -> dict[str, str]:
    """A digest of each thing that decides a trial, by its name in words; the budget decides none."""
    settings = {"base": base.model_dump(), "evaluate": params.evaluate.model_dump(), "optuna": optuna.__version__}
    return digest_run(
        settings | tune.model_dump(exclude={"trials", "seconds"}),
        data=[of(split) for of in (files.images_path, files.labels_path) for split in ("train", "validation")],
        code=[
            *(path for path in loaded_code(__file__) if not any(path.is_relative_to(looks) for looks in LOOKS)),
            Path(space_module.__file__),  # the only code in stages/params that makes values
        ],
    )


def read_data(params: TuneParams) -> Data:
    """The prepared training and validation images. Raises StageError if they are missing."""
    shape = files.read_images("train").shape[1:]
    train, validation = (files.read_split(split) for split in ("train", "validation"))
    measured = Measured(train, validation, (shape[0], shape[1]), params.evaluate)
    return Data(read_pixels("train"), read_pixels("validation"), measured)


def run_trials(study: optuna.Study, storage: BaseStorage, tune: Tune, base: Model, data: Data) -> bool:
    """Take trials and run them until the study is complete, or this process has run its share: then False."""
    compiled, began = dict[str, Compiled](), time.monotonic()
    already = len(ended(study))
    for count, trial in enumerate(trials_to_run(study, storage, tune), 1):
        with putting_back(storage, trial), beating(storage, trial):
            mine = run_trial(trial, study, tune, base, data, compiled)
        if mine:
            print(progress(study, tune, trial.number, already, time.monotonic() - began), flush=True)
        if count == MOST:
            return False
    return True


def trials_to_run(study: optuna.Study, storage: BaseStorage, tune: Tune) -> Iterator[optuna.Trial]:
    """Trials of this process: those that lost theirs, and new ones while there are too few.

    Trials count by their numbers, so the budget may change at any time.
    """
    liveness, me = Liveness(), whoami()
    while True:
        trials = study.get_trials(deepcopy=False)
        wanted = trials[: tune.trials]
        running = [trial for trial in wanted if trial.state == TrialState.RUNNING]
        if dead := [trial for trial in running if liveness.is_dead(trial)]:
            for trial in dead:
                put_back(storage, trial)
            continue
        waiting = any(trial.state == TrialState.WAITING for trial in wanted)
        spent = sum(trial.user_attrs.get("seconds", 0.0) for trial in trials)
        over = len(trials) >= tune.trials or (tune.seconds and spent >= tune.seconds)
        if any("worker" not in trial.user_attrs for trial in running):
            time.sleep(0.2)  # whose it is decides what the next one is drawn from
        elif waiting or not over:
            new = study.ask()
            if new.number >= tune.trials:  # another process was quicker
                storage.set_trial_state_values(new._trial_id, TrialState.WAITING)
                continue
            new.set_user_attr("worker", me)
            new.set_user_attr("attempts", new.user_attrs.get("attempts", 0) + 1)
            yield new
        elif running:
            time.sleep(1)  # until the others are ready, or dead
        else:
            return


@contextmanager
def putting_back(storage: BaseStorage, trial: optuna.Trial) -> Iterator[None]:
    """Have a trial run again if this block is left early."""
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # a storage that fails is what the first error tells
            if isinstance(error, KeyboardInterrupt | TerminatedError):
                trial.set_user_attr("attempts", 0)
            put_back(storage, trial._get_latest_trial())
        raise


def run_trial(
    trial: optuna.Trial, study: optuna.Study, tune: Tune, base: Model, data: Data, compiled: dict[str, Compiled]
) -> bool:
    """Train and measure what a trial proposes, and tell the study.

    A combination without meaning, a loss or an objective that stops being finite, and a trial
    that processes die of count as pruned and say why. Returns whether the trial was still this process's.
    """
    start = time.monotonic()
    epochs = 0
    so_far = study.get_trials(deepcopy=False)[trial.number].intermediate_values  # of a process that was killed

    def report(row: Epoch) -> None:
        nonlocal epochs
        epochs = row.epoch
        if tune.pruner == "none" or epochs == settings.epochs:  # a trial that is through is worth its value
            return
        trial.report(measure(training.model, tune.objectives, data.measured)[0], epochs)
        if epochs < max(so_far, default=0):  # it was not pruned then
            return
        if trial.should_prune():
            raise optuna.TrialPruned

    @contextmanager
    def reporting(epochs: int, done: int) -> Iterator[Report]:
        yield report

    values, reason = None, ""
    try:
        settings = settings_of(base, tune.epochs, draw(trial, tune))
        check_attempts(trial)
        check_fit("trial", settings, len(data.train), *data.measured.shape)
        trial.set_user_attr("settings", settings.model_dump())
        training = training_of(settings, data, compiled)
        train(training, data.train, data.validation, reporting=reporting)
        values = measure(training.model, tune.objectives, data.measured)
        if not np.isfinite(values).all():
            values, reason = None, f"the objectives became {values}"
    except optuna.TrialPruned:
        pass
    except ValidationError as error:
        reason = " ".join(sentences(error))
    except ParamsError as error:
        reason = str(error).replace("params.yaml: trial.", "")
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    except StageError as error:
        reason = str(error).partition(", so no model")[0]
    return end(trial, study, values, {"epochs_run": epochs, "seconds": time.monotonic() - start, "reason": reason})


def check_attempts(trial: optuna.Trial) -> None:
    """Raise StageError if too many processes have died of a trial."""
    if trial.user_attrs["attempts"] > ATTEMPTS:
        raise StageError(f"{ATTEMPTS} processes died of it")


def end(trial: optuna.Trial, study: optuna.Study, values: list[float] | None, told: dict[str, Any]) -> bool:
    """Tell the study how a trial ended, pruned without values. Returns False if another process has it by now."""
    try:
        for key, value in told.items():
            trial.set_user_attr(key, value)
        study.tell(trial, values, TrialState.PRUNED if values is None else TrialState.COMPLETE)
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    except ValueError:  # so says Optuna of a trial that is no longer running
        if study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING:
            raise
        return False
    return True


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
    training.settings = settings
    assign(training.model.variables, model.variables)
    assign(training.optimizer.variables, beginning)
    set_learning_rates(training.optimizer, learning_rates(settings, len(data.train) // settings.batch_size))
    return training


def shape_of(settings: Model) -> dict[str, Any]:
    """The settings that are part of a compiled epoch."""
    unshaped = UNSHAPED if any(getattr(settings, chance) for chance in CHANCES) else UNSHAPED | {"seed"}
    return settings.model_dump(exclude=unshaped)
