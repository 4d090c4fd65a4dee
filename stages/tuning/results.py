"""What a study found: its trials as a table, the best of them, and which settings mattered."""

from typing import NamedTuple

import numpy as np
import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from stages.core.errors import StageError
from stages.params.schema import Tune

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
FORESTS = 10  # random forests, each of another seed, behind the spread of an importance
FEWEST = 10  # complete trials from which importances are computed


class Importance(NamedTuple):
    """The share of the objective's variance that a setting explains, over forests of several seeds."""

    mean: float
    std: float


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are complete or pruned, in the order of their numbers."""
    return study.get_trials(deepcopy=False, states=ENDED)


def trial_table(study: optuna.Study, tune: Tune) -> pd.DataFrame:
    """A row per trial: number, state, the objectives, epochs run, seconds, the settings that vary, why it was pruned.

    A trial that was cut short has the objective after its last epoch.
    """
    rows = []
    for trial in ended(study):
        last = list(trial.intermediate_values.values())[-1:]
        values = trial.values if trial.state == TrialState.COMPLETE else last
        rows.append(
            {"trial": trial.number, "state": trial.state.name.lower()}
            | dict(zip(tune.objectives, [*values, *[np.nan] * len(tune.objectives)], strict=False))
            | {"epochs_run": trial.user_attrs["epochs_run"], "seconds": round(trial.user_attrs["seconds"], 1)}
            | trial.params
            | {"reason": trial.user_attrs["reason"]}
        )
    table = pd.DataFrame(rows)
    counts = [name for name in ("parameters", "latent_dim") if name in table]
    return table.astype(dict.fromkeys(counts, "Int64"))


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial, the first of several; with two objectives those that no other betters in both.

    Raises StageError if no trial is complete.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise StageError(f"the study {study.study_name} has no complete trial yet.")
    if len(study.directions) == 1:
        sign = 1 if minimises(study)[0] else -1
        return [min(complete, key=lambda trial: (sign * trial.values[0], trial.number))]
    return sorted(study.best_trials, key=lambda trial: trial.values)


def achieved(trial: FrozenTrial, tune: Tune) -> str:
    """A complete trial's objectives, in words."""
    return ", ".join(f"{name} {value:.4g}" for name, value in zip(tune.objectives, trial.values, strict=True))


def importances(study: optuna.Study) -> dict[str, Importance]:
    """How much each setting decided the first objective over the complete trials, the most important first.

    By the variance that a random forest attributes to each setting alone (F. Hutter, H. Hoos,
    K. Leyton-Brown, "An efficient approach for assessing hyperparameter importance", 2014).
    Empty with fewer than FEWEST complete trials, or if all are the same.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEWEST or len({trial.values[0] for trial in complete}) == 1:
        return {}
    found = pd.DataFrame(
        get_param_importances(
            study,
            evaluator=FanovaImportanceEvaluator(seed=seed),
            target=lambda trial: float(trial.values[0]),
            normalize=False,  # what settings explain together is nobody's share
        )
        for seed in range(FORESTS)
    )
    rows = {str(name): Importance(float(found[name].mean()), float(found[name].std())) for name in found}
    return dict(sorted(rows.items(), key=lambda row: row[1].mean, reverse=True))


def progress(study: optuna.Study, tune: Tune, number: int, already: int, seconds: float) -> str:
    """A line on the trial that has just ended: how it did, the best so far, and how long the rest will take.

    already: trials that had ended when this process began, `seconds` ago.
    """
    trials = ended(study)
    trial = next(trial for trial in trials if trial.number == number)
    epochs = trial.user_attrs["epochs_run"]
    if trial.state == TrialState.COMPLETE:
        told = achieved(trial, tune)
    elif trial.user_attrs["reason"]:
        told = f"pruned, since {trial.user_attrs['reason'].rstrip('.')}"
    else:
        last = trial.intermediate_values[epochs]
        told = f"pruned at {tune.objectives[0]} {last:.4g} after {epochs} epoch{'s' * (epochs != 1)}"
    line = f"trial {number}: {told}; {len(trials)} of {tune.trials} done"
    if len(study.directions) == 1 and any(t.state == TrialState.COMPLETE for t in trials):
        (best,) = best_trials(study)
        line += f"; best {best.values[0]:.4g}, trial {best.number}"
    left = seconds / max(1, len(trials) - already) * (tune.trials - len(trials))
    return f"{line}; {left / 60:.0f} min left" if left >= 90 else f"{line}; {left:.0f} s left"


def minimises(study: optuna.Study) -> list[bool]:
    """Whether each objective gets better as it gets smaller."""
    return [direction == StudyDirection.MINIMIZE for direction in study.directions]
