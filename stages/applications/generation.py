"""Generating digits from random codes, and measuring them together with real ones.

Every way to sample codes is a mixture of Gaussians: one for each class, several fitted without
labels, or the prior alone. A classifier that was trained on real digits measures what is decoded.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stages.applications.labels import spread
from stages.applications.methods import Method
from stages.applications.mixtures import Mixture, class_mixture, draw_codes, prior_mixture
from stages.applications.reference_classifier import ReferenceClassifier
from stages.applications.schema import Generate
from stages.core.arrays import Bytes, Float64, Floats
from stages.core.errors import ParamsError, StageError
from stages.core.files import Split
from stages.core.linear import Moments, code_moments
from stages.core.measures import in_batches
from stages.core.style import show_rows
from stages.core.tables import markdown, number

SHOWN = 20  # generated digits in the figure
PER_CLASS, MIXTURE, PRIOR, REAL = "Gaussian per class", "Gaussian mixture", "prior", "training images"


class Generated(NamedTuple):
    """How good the digits are that one method generates in one way."""

    kind: str  # MODEL, BASELINE or REFERENCE
    name: str  # of the method, to display
    way: str  # to sample codes
    frechet: Float64  # [draws], distance between their features and those of the test images
    accuracy: Float64  # [draws], of a classifier on the test images after learning from them
    images: Bytes  # [SHOWN, pixels], the first ones


def check_mixture(settings: Generate, images: int) -> None:
    """Raise ParamsError if there are more Gaussians than codes of this number of training images to fit them to."""
    allowed = min(settings.codes, images)
    if settings.components > allowed:
        raise ParamsError(
            f"params.yaml: generate.components is {settings.components}, but has to be at most {allowed}, the number "
            "of codes that the Gaussians are fitted to."
        )


def fit_mixture(codes: Floats, settings: Generate, seed: int) -> Mixture:
    """Gaussians with full covariances, fitted to codes float [images, latent_dim] without labels.

    P. Ghosh, M. Sajjadi, A. Vergari, M. Black, B. Schölkopf, "From variational to deterministic autoencoders" (2020).
    """
    from sklearn.mixture import GaussianMixture  # takes seconds to load, and the defaults need none
    from threadpoolctl import threadpool_limits

    chosen = np.random.default_rng(seed).permutation(len(codes))[: settings.codes]
    mixture = GaussianMixture(settings.components, random_state=seed)
    try:
        with threadpool_limits(1):  # k-means, which starts it, adds up in an order that several threads change
            fitted = mixture.fit(codes[chosen].astype(np.float64))
    except ValueError as error:  # codes of huge numbers, in fewer dimensions than they have
        raise StageError(f"no mixture of Gaussians can be fitted to the codes: {error}") from None
    return Mixture(fitted.weights_, fitted.means_, fitted.covariances_)


def seeds_of_draws(draws: int, seed: int) -> range:
    """A seed for each draw, different for different seeds of params.yaml."""
    return range(seed * draws, (seed + 1) * draws)


def frechet_distance(first: Moments, second: Moments) -> float:
    """Squared Fréchet distance between two Gaussians, at least 0.

    |m - n|^2 + tr(A + B - 2 (AB)^(1/2)) of means m, n and covariances A, B: D. Dowson, B. Landau, "The
    Fréchet distance between multivariate normal distributions" (1982).
    """
    values, vectors = np.linalg.eigh(first.covariance)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second.covariance @ root).clip(0)).sum()  # the trace of (AB)^(1/2)
    total = np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared
    return max(0.0, float(np.square(first.mean - second.mean).sum() + total))


def generate(
    method: Method, train: Split, classifier: ReferenceClassifier, settings: Generate, seed: int
) -> Iterator[tuple[str, Iterator[Split]]]:
    """Each way to sample codes, and the digits with their classes that a method generates from them, draw after draw.

    Where a way knows no class, the classifier predicts it.
    """
    classes = np.unique(train.labels)
    codes = in_batches(method.halves.encode, train.images)

    def digits(mixture: Mixture, labelled: bool) -> Iterator[Split]:
        for draw in seeds_of_draws(settings.draws, seed):
            drawn, components = draw_codes(mixture, settings.digits, draw)
            images = np.rint(method.halves.decode(drawn).clip(0, 1) * 255).astype(np.uint8)
            yield Split(images, classes[components] if labelled else classifier.predict(images))

    yield PER_CLASS, digits(class_mixture(codes, train.labels), True)
    yield MIXTURE, digits(fit_mixture(codes, settings, seed), False)
    if method.halves.posterior:
        yield PRIOR, digits(prior_mixture(codes.shape[1]), False)


def real_digits(train: Split, settings: Generate, seed: int) -> Iterator[Split]:
    """As many training images, chosen at random, draw after draw."""
    for draw in seeds_of_draws(settings.draws, seed):
        chosen = np.sort(np.random.default_rng(draw).permutation(len(train.images))[: settings.digits])
        yield Split(train.images[chosen], train.labels[chosen])


def measure_generated(
    kind: str, name: str, ways: Iterable[tuple[str, Iterator[Split]]], classifier: ReferenceClassifier, test: Split
) -> Iterator[Generated]:
    """Measure the digits of each way to sample codes. test: real digits of the trained classes."""
    real = code_moments(classifier.features(test.images))
    for way, draws in ways:
        distances, accuracies, first = [], [], []
        for digits in draws:
            distances.append(frechet_distance(code_moments(classifier.features(digits.images)), real))
            accuracies.append(accuracy(classifier.learn(digits), test))
            first.append(digits.images[:SHOWN])
        yield Generated(kind, name, way, np.array(distances), np.array(accuracies), first[0])


def accuracy(predict: Callable[[Bytes], Bytes], test: Split) -> float:
    """Share of the digits that a classifier gets right. predict: images uint8 [images, pixels] -> uint8 [images]."""
    return float((predict(test.images) == test.labels).mean())


def generation_table(generated: list[Generated]) -> pd.DataFrame:
    """How good generated digits are, a row for every method and way.

    Columns: model, kind, method, and means and standard deviations over draws: frechet, frechet_std, accuracy,
    accuracy_std.
    """
    return pd.DataFrame(
        {
            "model": one.name,
            "kind": one.kind,
            "method": one.way,
            "frechet": one.frechet.mean(),
            "frechet_std": spread(one.frechet),
            "accuracy": one.accuracy.mean(),
            "accuracy_std": spread(one.accuracy),
        }
        for one in generated
    )


def report(table: pd.DataFrame, draws: int, share: float) -> str:
    """How good generated digits are, in Markdown. share: accuracy of the reference classifier on the test images."""
    rows = [
        [
            f"{row['model']}: {row['method']}",
            *(with_spread(row[key], row[f"{key}_std"]) for key in ("frechet", "accuracy")),
        ]
        for _, row in table.iterrows()
    ]
    return f"""\
# Generated digits

`frechet` is the distance to the test images in a classifier's features, lower is better. `accuracy`
is the share of the test images that another classifier gets right after learning from these digits
alone. The reference classifier gets {number(share)} right. Mean and standard deviation over {draws} draws.
[docs/generation.md](../docs/generation.md) explains both.

{markdown(["", "`frechet`", "`accuracy`"], rows)}
"""


def with_spread(mean: float, deviation: float) -> str:
    """A mean with its standard deviation, both with as many decimals as give the deviation two digits."""
    decimals = max(0, 1 - int(np.floor(np.log10(deviation)))) if deviation > 0 else 4
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def draw_generation(generated: list[Generated], shape: tuple[int, int]) -> Figure:
    """Real digits, and below them the generated ones, a row for each method and way. shape: height and width."""
    names = [f"{one.name}: {one.way}" for one in generated]
    measures = [f"{one.frechet.mean():.3g}, {one.accuracy.mean():.1%}" for one in generated]
    pictures = np.stack([one.images.reshape(-1, *shape) for one in generated]) / 255
    figure, ax = plt.subplots(figsize=(9.6, 0.34 * len(names) + 0.6), layout="constrained")
    show_rows(ax, pictures, names)
    right = ax.secondary_yaxis("right")
    right.set_yticks(ax.get_yticks(), measures)
    right.spines[:].set_visible(False)
    right.tick_params(length=0)
    figure.suptitle("Generated digits; right: Fréchet distance, and accuracy of what learned from them")
    return figure
