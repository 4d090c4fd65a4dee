"""Run trials of a study: one process of any number that share a storage.

    python -m stages.tools.tune.worker STUDY STORAGE

`python -m stages tune` starts this program. It ends when the study is complete, or after
TRIALS trials, since XLA frees nothing that it has compiled.
"""

import signal
import sys
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from pydantic import ValidationError

from stages.core import files
from stages.core.arrays import Float32
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import assign, keras, tf, use_all_cores
from stages.core.checkpoint import Epoch, digest_run, loaded_code
from stages.core.encoder_decoder import Data
from stages.core.errors import ParamsError, StageError, run
from stages.core.linear import Moments
from stages.core.optimizer import learning_rates
from stages.core.params import check_fit, read_params, sentences
from stages.core.schema import Evaluate, Model
from stages.core.training import DivergedError, Images, Training, build_training, read_pixels, train
from stages.tools.tune.objectives import measure
from stages.tools.tune.schema import Tune, TuneParams
from stages.tools.tune.space import settings_of
from stages.tools.tune.study import create_study, ended, is_complete, retry, storage_errors, suggest

Compiled = dict[str, tuple[Training, list[Any]]]  # with the optimizer's variables as they were at the start

TRIALS = 25  # of one process
KEPT = 4  # compiled epochs
NOT_COMPILED = {"learning_rate", "schedule", "warmup_epochs", "early_stopping"}  # settings that no epoch compiles in


class Inputs(NamedTuple):
    """What the trials of a study have in common."""

    name: str
    tune: Tune
    base: Model
    train: Images
    validation: Images
    measured: Data  # its test images are the validation images
    evaluate: Evaluate


def main() -> None:
    name, url = sys.argv[1:]
    run_trials(read_params(TuneParams), name, url)


def run_trials(params: TuneParams, name: str, url: str) -> None:
    """Run trials of the study `name` until it is complete, or TRIALS of them.

    Raises StageError if prepared images are missing, the storage fails, or code, data or settings have changed.
    """
    use_all_cores()
    inputs = read_inputs(params, name)
    tf.get_logger().setLevel("ERROR")  # it warns when it traces the epoch of another model
    with storage_errors(url):
        study = create_study(url, name, inputs.tune, digest_study(inputs))
        if is_complete(study, inputs.tune):
            return
        objective = partial(run_or_requeue, inputs=inputs, compiled={})
        try:
            study.optimize(objective, n_trials=TRIALS, callbacks=[partial(report_and_stop, inputs.tune)])
        except KeyError:
            if name in optuna.get_all_study_names(study._storage):
                raise
            raise StageError(f"another process deleted the study {name}.") from None


def read_inputs(params: TuneParams, name: str) -> Inputs:
    """The study `name` and the prepared images. Raises StageError if those are missing."""
    shape = files.read_images("train").shape[1:]
    of_training, of_validation = (files.read_split(split) for split in ("train", "validation"))
    no_moments = Moments(np.zeros(0), np.zeros(0))  # only PCA needs them
    measured = Data(of_training, of_validation, of_validation, (shape[0], shape[1]), no_moments)
    images = read_pixels("train"), read_pixels("validation")
    return Inputs(name, params.tune[name], params.base(name), *images, measured, params.evaluate)


def digest_study(inputs: Inputs) -> dict[str, str]:
    """A digest of everything that decides a trial, by a name for messages. `trials` and `seconds` decide none."""
    settings = {"base": inputs.base.model_dump(), "evaluate": inputs.evaluate.model_dump()}
    return digest_run(
        settings | inputs.tune.model_dump(exclude={"trials", "seconds"}) | {"optuna": optuna.__version__},
        data=[of(split) for of in (files.images_path, files.labels_path) for split in ("train", "validation")],
        code=loaded_code(__file__),
    )


def run_or_requeue(trial: optuna.Trial, inputs: Inputs, compiled: Compiled) -> list[float]:
    """Run a trial, and queue its settings again if anything interrupts it."""
    try:
        return run_trial(trial, inputs, compiled)
    except optuna.TrialPruned:
        raise
    except optuna.exceptions.UpdateFinishedTrialError:
        sys.exit(f"error: trial {trial.number} had no heartbeat for too long, and another process runs it again.")
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second signal must not lose the trial
        retry(trial.study, trial.study.trials[trial.number])
        raise


def run_trial(trial: optuna.Trial, inputs: Inputs, compiled: Compiled) -> list[float]:
    """Train the model that a trial suggests, and return its objectives.

    Raises TrialPruned if the pruner says so; or, with a reason in the trial's attributes, if its settings do not go
    together or do not fit the images, or if the loss or an objective stops being finite.
    """
    tune = inputs.tune
    trial.set_user_attr("epochs_run", 0)
    trial.set_user_attr("reason", "")

    def report(row: Epoch) -> None:
        trial.set_user_attr("epochs_run", row.epoch)
        if tune.pruner == "none" or row.epoch == settings.epochs:  # a trial that has all its epochs is complete
            return
        trial.report(measure(training.model, tune.objectives, inputs.measured, inputs.evaluate)[0], row.epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        settings = settings_of(inputs.base, tune.epochs, suggest(trial, tune))
        check_fit(f"tune.{inputs.name}", settings, len(inputs.train), *inputs.measured.shape)
        trial.set_user_attr("settings", settings.model_dump())
        training = training_of(settings, inputs, compiled)
        train(training, inputs.train, inputs.validation, reporting=lambda epochs, done: nullcontext(report))
    except ValidationError as error:
        raise pruned(trial, " ".join(sentences(error))) from None
    except ParamsError as error:
        raise pruned(trial, str(error)) from None
    except DivergedError as error:
        raise pruned(trial, f"the loss diverged in epoch {error.epoch}") from None
    values = measure(training.model, tune.objectives, inputs.measured, inputs.evaluate)
    if not np.isfinite(values).all():
        raise pruned(trial, f"the objectives are {values}")
    return values


def pruned(trial: optuna.Trial, reason: str) -> optuna.TrialPruned:
    """The exception that ends a trial, whose reason goes into the table."""
    trial.set_user_attr("reason", reason)
    return optuna.TrialPruned(reason)


def training_of(settings: Model, inputs: Inputs, compiled: Compiled) -> Training:
    """A new model and what trains it, by an epoch that an earlier trial compiled if there is one.

    compiled: the trainings of the last KEPT shapes, by the settings that are compiled in.
    """
    shape, images = inputs.measured.shape, len(inputs.train)
    model = build_autoencoder(*shape, settings)
    key = str(settings.model_dump(exclude=NOT_COMPILED))
    if key not in compiled:
        for oldest in list(compiled)[: 1 - KEPT]:
            del compiled[oldest]
        training = build_training(model, settings, images, shape)
        compiled[key] = training, [variable.numpy() for variable in training.optimizer.variables]
        return training
    training, optimizer_variables = compiled[key]
    training.settings = settings
    assign(training.model.variables, model.variables)
    assign(training.optimizer.variables, optimizer_variables)
    set_learning_rates(training.optimizer, learning_rates(settings, images // settings.batch_size))
    return training


def set_learning_rates(optimizer: keras.Optimizer, rates: Float32) -> None:
    """Give an optimizer of `build_optimizer` the learning rates of another training of as many steps."""
    getattr(optimizer, "inner_optimizer", optimizer)._learning_rate.rates.assign(rates)


def report_and_stop(tune: Tune, study: optuna.Study, trial: FrozenTrial) -> None:
    """Optuna's callback after each trial: print how it ended, and stop the study when it is complete."""
    values = [f"{name} {value:.4g}" for name, value in zip(tune.objectives, trial.values or [], strict=False)]
    result = trial.user_attrs["reason"] or ", ".join(values)
    print(
        f"{len(ended(study))} of {tune.trials}: trial {trial.number} {trial.state.name.lower()}, {result}", flush=True
    )
    if is_complete(study, tune):
        study.stop()


if __name__ == "__main__":
    run(main)
