"""What a study found: a table of its trials, the best of them, the importance of settings, and charts."""

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from stages.core import files
from stages.core.errors import StageError
from stages.core.style import STYLE, png
from stages.core.tables import csv
from stages.tools.studies import STUDIES
from stages.tools.tune.charts import draw_front, draw_importances
from stages.tools.tune.study import DIRECTIONS, ended, seconds

FEWEST = 10


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials, by number."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def trial_table(study: optuna.Study) -> pd.DataFrame:
    """A row for each trial that has ended, with its objectives, its epochs and seconds, and the settings it tried.

    The objective of a pruned trial is that after its last epoch.
    """
    rows = []
    for trial in ended(study):
        values = [*(trial.values or []), np.nan, np.nan]
        rows.append(
            {"trial": trial.number, "state": trial.state.name.lower()}
            | dict(zip(study.metric_names or [], values, strict=False))
            | {"epochs_run": trial.user_attrs["epochs_run"], "seconds": round(seconds(trial), 1)}
            | trial.params
            | {"reason": trial.user_attrs["reason"]}
        )
    table = pd.DataFrame(rows)
    whole = [name for name in ("parameters", "latent_dim") if name in table]
    return table.astype(dict.fromkeys(whole, "Int64"))


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial; with two objectives, the Pareto front.

    Raises StageError if no trial is complete.
    """
    best = sorted(study.best_trials, key=lambda trial: (trial.values, trial.number))
    if not best:
        raise StageError(f"the study {study.study_name} has no complete trial yet.")
    return best[:1] if len(study.directions) == 1 else best


def objectives(study: optuna.Study, trial: FrozenTrial) -> str:
    """A complete trial's objectives, for people."""
    return ", ".join(f"{name} {v:.4g}" for name, v in zip(study.metric_names or [], trial.values, strict=True))


def importances(study: optuna.Study) -> dict[str, float]:
    """The importance of each setting for the first objective, the largest first.

    The share of the variance over complete trials that the setting explains alone, by functional ANOVA (F. Hutter,
    H. Hoos, K. Leyton-Brown, "An efficient approach for assessing hyperparameter importance", 2014). Empty if fewer
    than FEWEST trials differ in the objective.
    """
    if len({trial.values[0] for trial in complete(study)}) < FEWEST:
        return {}
    return get_param_importances(
        study,
        evaluator=FanovaImportanceEvaluator(seed=0),
        target=lambda trial: float(trial.values[0]),
        normalize=False,  # what settings explain only together is in no share
    )


def write_report(study: optuna.Study, dpi: int) -> list[str]:
    """Write a study's table and chart to plots/studies, and return their paths. dpi: dots per inch.

    Raises StageError if no trial is complete.
    """
    best, table, names = best_trials(study), trial_table(study), study.metric_names or []
    contents = {STUDIES / f"{study.study_name}-trials.csv": csv(table)}
    with plt.rc_context(STYLE):
        if len(names) > 1:
            minimise = [DIRECTIONS[name] == "minimize" for name in names]
            chart = draw_front(table, names, [trial.number for trial in best], minimise)
            contents[STUDIES / f"{study.study_name}-front.png"] = png(chart, dpi)
        elif found := importances(study):
            contents[STUDIES / f"{study.study_name}-importances.png"] = png(draw_importances(found, names[0]), dpi)
    files.write_all(contents)
    return sorted(map(str, contents))
