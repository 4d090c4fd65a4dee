"""params.yaml: every hyperparameter, checked as a whole before any stage does anything."""

from stages.params.reading import Choice, choose_model, read_params
from stages.params.schema import (
    Apply,
    Classifier,
    Compare,
    Evaluate,
    Figures,
    Generate,
    Model,
    Params,
    Prepare,
    Recipe,
    Tune,
)
from stages.params.sentences import nearest

__all__ = [
    "Apply",
    "Choice",
    "Classifier",
    "Compare",
    "Evaluate",
    "Figures",
    "Generate",
    "Model",
    "Params",
    "Prepare",
    "Recipe",
    "Tune",
    "choose_model",
    "nearest",
    "read_params",
]
