"""Optuna's samplers and pruners, and how they draw from a space of params.yaml."""

import random
import warnings
from typing import Any, Literal

import numpy as np
import optuna

from stages.params import Tune
from stages.params.space import Choices, Space, combinations_of, read_space

# Which way each objective improves.
DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {
    "mse": "minimize", "bce": "minimize", "ssim": "maximize", "probe": "maximize",
    "parameters": "minimize", "latent_dim": "minimize",
}  # fmt: skip

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", module="optuna")  # of trials that are run again, and report again


class Grid(optuna.samplers.BaseSampler):
    """Every combination of choices once, in an order drawn from the seed; the trial's number says which.

    Optuna's own grid keeps its place in the storage, and ends a study by a call that needs Optuna's own loop.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self.combinations = combinations_of(space)
        random.Random(seed).shuffle(self.combinations)  # noqa: S311 (no secret)

    def infer_relative_search_space(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        value = self.combinations[trial.number % len(self.combinations)][param_name]
        return _plain(value)


def draw(trial: optuna.Trial, tune: Tune) -> dict[str, Any]:
    """A value for each part of the study's space, those that the trial has already, or new ones.

    Each trial and each part has a seed of its own, so that what is drawn depends on the trials
    before it, and not on where a process was killed that had begun to draw.
    """
    values: dict[str, Any] = {}
    trial.study.sampler = build_sampler(tune, trial.number, 0)
    assert trial.relative_params is not None  # drawn together, now  # noqa: S101
    for index, (name, part) in enumerate(read_space(tune).items(), 1):
        trial.study.sampler = build_sampler(tune, trial.number, index)
        values |= suggest(trial, {name: part})
    return values


def build_sampler(tune: Tune, number: int, part: int) -> optuna.samplers.BaseSampler:
    """The sampler for a part of the space in the trial of this number."""
    seed = int(np.random.SeedSequence([tune.seed, number, part]).generate_state(1)[0])
    match tune.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "grid":
            return Grid(read_space(tune), tune.seed)


def build_pruner(tune: Tune) -> optuna.pruners.BasePruner:
    """The pruner that a study names; epochs count from 1."""
    match tune.pruner:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return optuna.pruners.MedianPruner()
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=tune.epochs)


def suggest(trial: optuna.trial.BaseTrial, space: Space) -> dict[str, Any]:
    """A value for each part of the space, those that the trial has already, or new ones."""
    values: dict[str, Any] = {}
    for name, part in space.items():
        if isinstance(part, Choices):
            by_text = {_plain(value): value for value in part.values}
            values[name] = by_text[trial.suggest_categorical(name, list(by_text))]
        elif part.whole:
            low, high, step = int(part.low), int(part.high), int(part.step or 1)
            values[name] = trial.suggest_int(name, low, high, step=step, log=part.log)
        else:
            values[name] = trial.suggest_float(name, part.low, part.high, step=part.step, log=part.log)
    return values


def _plain(value: Any) -> Any:
    """A choice as Optuna keeps it: a list as text."""
    return str(value) if isinstance(value, list) else value
