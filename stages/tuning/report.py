"""The files that tell what a study found."""

import matplotlib.pyplot as plt
import optuna

from stages.core import files
from stages.core.style import STYLE, png
from stages.core.tables import STUDIES, csv
from stages.drawing import tuning as drawing
from stages.params.schema import Tune
from stages.params.space import Range, read_space
from stages.tuning.results import best_trials, importances, minimises, trial_table


def write_report(study: optuna.Study, tune: Tune, dpi: int) -> list[str]:
    """Write a study's table and pictures to plots/studies, and return their paths. dpi: dots per inch.

    Raises StageError if no trial is complete.
    """
    best, table, space = best_trials(study), trial_table(study, tune), read_space(tune)
    objective, minimise = tune.objectives[0], minimises(study)
    settings = [name for name in space if name in table]
    log = [name for name, part in space.items() if isinstance(part, Range) and part.log]
    with plt.rc_context(STYLE):
        if len(tune.objectives) == 1:
            pictures = {
                "history": drawing.draw_history(table, objective, minimise[0]),
                "importances": drawing.draw_importances(importances(study), objective),
            }
        else:
            front = [trial.number for trial in best]
            pictures = {"front": drawing.draw_front(table, tune.objectives, front, minimise)}
        pictures["slices"] = drawing.draw_slices(table, settings, log, objective, minimise[0])
        contents = {STUDIES / f"{study.study_name}-{kind}.png": png(figure, dpi) for kind, figure in pictures.items()}
    contents[STUDIES / f"{study.study_name}-trials.csv"] = csv(table)
    files.write_all(contents)
    return sorted(map(str, contents))
