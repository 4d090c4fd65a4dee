"""Optuna's samplers and pruners, and how they draw from a space of params.yaml."""

import math
import warnings
from typing import Any, Literal

import numpy as np
import optuna

from stages.params.schema import Tune
from stages.params.space import Choices, Range, Space, grid_of, read_space

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
        self.values = grid_of(space)
        self.lengths = [len(values) for values in self.values.values()]
        self.order = np.random.default_rng(seed).permutation(math.prod(self.lengths))

    def infer_relative_search_space(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        places = np.unravel_index(self.order[trial.number % len(self.order)], self.lengths)
        chosen = dict(zip(self.values, places, strict=True))
        return _plain(self.values[param_name][chosen[param_name]])


def draw(trial: optuna.Trial, tune: Tune) -> dict[str, Any]:
    """A value for each part of the study's space, those that the trial has already, or new ones.

    Each trial and each part has a seed of its own, so that what is drawn depends on the trials
    before it, and not on where a process was killed that had begun to draw.
    """
    values: dict[str, Any] = {}
    trial.study.sampler = build_sampler(tune, trial.number, 0)
    _ = trial.relative_params  # those that are drawn together are drawn when they are first asked for
    for index, (name, part) in enumerate(read_space(tune).items(), 1):
        trial.study.sampler = build_sampler(tune, trial.number, index)
        values[name] = suggest(trial, name, part)
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


def suggest(trial: optuna.Trial, name: str, part: Choices | Range) -> Any:
    """The value that a trial has already for a part of the space, or a new one."""
    if isinstance(part, Choices):
        by_text = {_plain(value): value for value in part.values}
        return by_text[trial.suggest_categorical(name, list(by_text))]
    if part.whole:
        return trial.suggest_int(name, int(part.low), int(part.high), step=int(part.step or 1), log=part.log)
    return trial.suggest_float(name, part.low, part.high, step=part.step, log=part.log)


def _plain(value: Any) -> Any:
    """A choice as Optuna keeps it: a list as text."""
    return str(value) if isinstance(value, list) else value
