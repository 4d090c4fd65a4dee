"""One model on one picture: for a page that shows many models, one after another."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from stages.analysis.evaluation import Digits, Result
from stages.drawing.style import GREY, mosaic, show


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
    height, columns = digits.images.shape[1] + 1, len(rows["samples"])
    figure, ax = plt.subplots(figsize=(0.5 * columns + 1.2, 1.6), layout="constrained")
    show(ax, mosaic(np.stack(list(rows.values()))), **GREY)
    ax.set_yticks([height * (row + 0.5) - 1 for row in range(len(rows))], list(rows))
    ax.tick_params(length=0)
    return figure
