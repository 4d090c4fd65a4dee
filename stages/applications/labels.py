"""Few labels: which images have one, and how well their classes and neighbours are found with them.

Every method gets the same training images, the candidates. A few of them have a label. Every method then
classifies the same test images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stages.applications.charts import INK, name_lines
from stages.applications.schema import FewLabels
from stages.core.arrays import Bytes, Float64, Int64
from stages.core.comparison import PERCENTILES, bootstrap_means
from stages.core.evaluation import BASELINE, MODEL, UNTRAINED
from stages.core.files import Split, read_split
from stages.core.style import colours
from stages.core.tables import markdown

TABLE, FIGURE, REPORT = Path("plots/labels.csv"), Path("plots/labels.png"), Path("metrics/few_labels.md")
NEAREST = 10  # candidates that are retrieved for a query
CLASSIFIERS = {  # fields of Classified, names
    "logistic": "logistic regression",
    "neighbours": "k-nearest neighbours",
    "spreading": "label spreading",
}


class Task(NamedTuple):
    """Which images have a label, and which are to be classified and searched for."""

    candidates: Split  # training images
    queries: Split  # test images of the trained classes
    draws: list[Int64]  # [candidates] each, positions of candidates; the first ones get labels
    numbers: Int64  # [numbers], of labels, ascending


@dataclass(frozen=True, eq=False)
class Classified:
    """What one kind of features does with few labels."""

    logistic: Float64  # [numbers, draws], accuracy of logistic regression on the queries
    neighbours: Float64  # [numbers, draws], accuracy of k-nearest neighbours
    spreading: Float64  # [numbers, draws], accuracy of label spreading, which uses the unlabelled candidates too
    precision: Float64  # [queries], share of the NEAREST candidates that are of the query's class


class Features(NamedTuple):
    """One kind of features, and what few labels do with it."""

    kind: str  # MODEL, BASELINE, UNTRAINED or REFERENCE
    name: str  # to display
    model: str  # of UNTRAINED: display name of the model whose encoder it is; else empty
    classified: Classified


def read_task(settings: FewLabels) -> Task:
    """Choose candidates, queries and labelled images at random, by the seed.

    A number of labels above that of the candidates means all of them. Raises StageError as `read_split` does.
    """
    train, test = read_split("train"), read_split("test")
    random = np.random.default_rng(settings.seed)
    chosen = np.sort(random.permutation(len(train.labels))[: settings.training_images])
    known = np.flatnonzero(np.isin(test.labels, train.labels))
    asked = np.sort(random.permutation(known)[: settings.queries])
    candidates = Split(train.images[chosen], train.labels[chosen])
    return Task(
        candidates=candidates,
        queries=Split(test.images[asked], test.labels[asked]),
        draws=[draw_in_turns(candidates.labels, random) for _ in range(settings.draws)],
        numbers=np.unique(np.minimum(settings.labels, len(chosen))),
    )


def draw_in_turns(labels: Bytes, random: np.random.Generator) -> Int64:
    """Positions of labels uint8 [images] at random, but with the classes taking turns: int64 [images].

    So the first few of them have as many of each class as of any other, give or take one, as long as there are some.
    """
    order = random.permutation(len(labels))
    turns = pd.Series(labels[order]).groupby(labels[order]).cumcount()
    return order[np.argsort(turns.to_numpy(), kind="stable")]


def labels_table(features: list[Features], numbers: Int64, resamples: int, seed: int) -> pd.DataFrame:
    """What every kind of features does with each number of labels, in a row of its own.

    method, kind, labels, the mean accuracy over draws of each of the CLASSIFIERS with its standard deviation
    (_std), and the precision of retrieval, which needs no labels, with the ends of its 95 % interval (_low, _high).
    """
    shares = np.stack([one.classified.precision for one in features], axis=1)
    ends = np.percentile(bootstrap_means(shares, resamples, seed), PERCENTILES, axis=0).T
    return pd.DataFrame(
        {
            "method": name,
            "kind": kind,
            "labels": number,
            **accuracies(classified, row),
            "precision": classified.precision.mean(),
            "precision_low": low,
            "precision_high": high,
        }
        for (kind, name, _, classified), (low, high) in zip(features, ends, strict=True)
        for row, number in enumerate(numbers)
    )


def accuracies(classified: Classified, row: int) -> dict[str, float]:
    """The mean accuracy of each classifier with one number of labels, and its standard deviation (_std)."""
    columns: dict[str, float] = {}
    for name in CLASSIFIERS:
        values = getattr(classified, name)[row]
        columns |= {name: values.mean(), f"{name}_std": spread(values)}
    return columns


def spread(values: Float64) -> float:
    """Standard deviation of at least two values; exactly 0 of equal ones."""
    return float((values - values[0]).std(ddof=1))


def report(table: pd.DataFrame, task: Task) -> str:
    """How far a few labels go, in Markdown. table: as `labels_table` returns it."""
    numbers = [f"{number:,}" for number in task.numbers]
    rows = []
    for method, group in table.groupby("method", sort=False):
        cells = [
            f"{mean:.3f} ± {deviation:.3f}"
            for name in CLASSIFIERS
            for mean, deviation in zip(group[name], group[f"{name}_std"], strict=True)
        ]
        retrieval = group[["precision", "precision_low", "precision_high"]].iloc[0]
        rows.append([method, *cells, "{:.3f} ({:.3f} to {:.3f})".format(*retrieval)])
    header = [f"{classifier}, {number}" for classifier in CLASSIFIERS for number in numbers]
    return f"""\
# Few labels

Accuracy on {len(task.queries.labels):,} test images of logistic regression, k-nearest neighbours and label spreading,
with the given number of labelled training images: mean ± standard deviation over {len(task.draws)} choices of these.
Label spreading uses all {len(task.candidates.labels):,} training images, most of them without a label. `precision`
is the share of the {NEAREST} nearest of these that are of the same class, with 95 % intervals.
[docs/few-labels.md](../docs/few-labels.md) explains the methods.

{markdown(["", *header, "precision"], rows)}
"""


def draw_labels(features: list[Features], table: pd.DataFrame) -> Figure:
    """Accuracy against the number of labels for each classifier, and the precision of retrieval.

    table: as `labels_table` returns it. An untrained encoder has its model's colour, with dashes.
    """
    encoders = [one for one in features if one.kind in (MODEL, BASELINE)]
    palette = colours([one.name for one in encoders], [one.name for one in encoders if one.kind == BASELINE])
    inks = [palette.get(one.model or one.name, INK) for one in features]
    dashes = ["--" if one.kind == UNTRAINED else "-" if one in encoders else ":" for one in features]
    names = [one.name for one in features]
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 7.2), layout="constrained")
    *charts, bars = axes.flat
    for ax, (classifier, title) in zip(charts, CLASSIFIERS.items(), strict=True):
        for name, ink, dash in zip(names, inks, dashes, strict=True):
            rows = table[table["method"] == name]
            style = {"color": ink, "linestyle": dash, "marker": "o", "markersize": 3, "capsize": 2}
            ax.errorbar(rows["labels"], rows[classifier], rows[f"{classifier}_std"], label=name, **style)
        numbers = np.sort(table["labels"].unique())
        ax.set_xscale("log")
        ax.set_xticks(numbers, [f"{number:,}" for number in numbers])
        ax.minorticks_off()
        ax.set(xlabel="labelled images", ylabel="accuracy", ylim=(0, 1))
        ax.set_title(title, loc="left")
    name_lines(charts[0], fontsize=7, loc="lower right")
    found = table.drop_duplicates("method")
    ends = [found["precision"] - found["precision_low"], found["precision_high"] - found["precision"]]
    drawn = bars.barh(names, found["precision"], xerr=ends, color=inks, capsize=2, error_kw={"linewidth": 0.8})
    for bar, dash in zip(drawn, dashes, strict=True):
        bar.set_alpha(1 if dash == "-" else 0.5)
    bars.invert_yaxis()
    bars.set(xlabel="precision at 10, with 95 % intervals", xlim=(0, 1))
    bars.set_title("search for images of the same class", loc="left")
    figure.suptitle("Classes of test digits from few labels; bars on the curves: one standard deviation over draws")
    return figure
