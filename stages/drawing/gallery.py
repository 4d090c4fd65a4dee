"""One model on one picture: for a page that shows many models, one after another."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from stages.core.evaluation import Digits, Result
from stages.core.style import show_rows


def draw_model(result: Result, digits: Digits, classes: int) -> Figure:
    """The first test digit of each trained class, its reconstruction below it, and digits that the model generated.

    A generated digit stands below the class from whose Gaussian it was drawn; a variational model's are from the
    prior and have no class. classes: how many are shown at most.
    """
    trained = np.flatnonzero(np.isin(digits.labels[digits.shown], digits.trained))[:classes]
    rows = {
        "test digits": digits.images[trained],
        "reconstructions": result.reconstructions[trained],
        "samples": result.samples[np.searchsorted(digits.trained, digits.labels[digits.shown[trained]]), 0],
    }
    figure, ax = plt.subplots(figsize=(0.5 * len(rows["samples"]) + 1.2, 1.6), layout="constrained")
    show_rows(ax, np.stack(list(rows.values())), list(rows))
    return figure
