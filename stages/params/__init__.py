"""params.yaml: every hyperparameter, checked as a whole before any stage does anything."""

from stages.params.reading import Choice, choose_model, read_params
from stages.params.schema import Apply, Compare, Evaluate, Figures, Model, Params, Prepare, Tune
from stages.params.sentences import nearest

__all__ = [
    "Apply",
    "Choice",
    "Compare",
    "Evaluate",
    "Figures",
    "Model",
    "Params",
    "Prepare",
    "Tune",
    "choose_model",
    "nearest",
    "read_params",
]
