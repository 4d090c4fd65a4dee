"""Generating digits from codes that are drawn, and judging them beside real ones.

Every way to draw codes is a mixture of Gaussians: one for each class, several fitted without
labels, or the prior alone. A classifier that was trained on real digits judges what is decoded.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.applications.schema import Generate
from stages.core.arrays import Bytes, Float32, Float64, Floats, Transform
from stages.core.codes import Mixture, class_mixture, draw_codes, prior_mixture
from stages.core.errors import ParamsError, StageError
from stages.core.evaluation import Evaluation, by_name
from stages.core.files import FLOOR, Split
from stages.core.linear import Moments, code_moments
from stages.core.records import how_to_match, load_record

SHOWN = 20  # generated digits that are drawn
PER_CLASS, MIXTURE, PRIOR, REAL = "Gaussian per class", "Gaussian mixture", "prior", "training images"


@dataclass(frozen=True, eq=False)
class Generation:
    """How good the digits are that each method generates, several times as many; without a classifier of no method."""

    methods: NDArray[np.str_]  # [methods]
    frechet: Float64  # [methods, draws], distance between their features and those of the test images
    accuracy: Float64  # [methods, draws], of a classifier on the test images after learning from them
    pictures: Float32  # [methods, SHOWN, height, width], the first ones


@dataclass(frozen=True, eq=False)
class Generations:
    """What a model and PCA of its latent size generate."""

    judge: str  # as `digest_judge` gives it; empty if there is no classifier
    components: int  # Gaussians in the mixture
    codes: int  # that it was fitted to
    model: Generation
    pca: Generation


@dataclass(frozen=True, eq=False)
class Floor:
    """What real training images give in place of generated ones."""

    judge: str  # as `digest_judge` gives it; empty if there is no classifier
    accuracy: float  # of the classifier that learned from all training images, on the test images
    real: Generation

    @property
    def measured(self) -> bool:
        """Whether there is a classifier."""
        return bool(self.judge)


class Judge(NamedTuple):
    """A classifier that was trained on real digits, and what it takes to train others."""

    predict: Callable[[Bytes], Bytes]  # images uint8 [images, pixels] -> the class of each
    features: Callable[[Bytes], Floats]  # the same -> its features [images, features]
    learn: Callable[[Split], Callable[[Bytes], Bytes]]  # digits -> `predict` of one that learned from them alone


def digest_judge(classifier: bytes, classes: Bytes, settings: Generate) -> str:
    """SHA-256 of what measures of real and of generated digits depend on, so that unlike ones are not mixed.

    classifier: the content of its file. classes: uint8 [classes], those that it tells apart.
    """
    of_digits = f"{settings.digits} {settings.draws} {settings.seed}"
    return hashlib.sha256(classifier + classes.tobytes() + of_digits.encode()).hexdigest()


def no_generation(height: int, width: int) -> Generation:
    """What there is without a classifier."""
    return Generation(
        np.zeros(0, np.str_), np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0, height, width), np.float32)
    )


def load_generations(paths: dict[str, Path], evaluations: dict[str, Evaluation]) -> tuple[Floor, dict[str, Generation]]:
    """What real digits give, and what the models and PCA generate, by the name to show. Both by model name.

    Raises StageError if a file is missing or broken, of another classifier or other draws of digits than the floor,
    or has another mixture than the first.
    """
    floor = load_record(Floor, FLOOR)
    found = {name: load_record(Generations, path) for name, path in paths.items()}
    for name, path in paths.items():
        if found[name].judge != floor.judge:
            raise StageError(
                f"{path} was judged otherwise than {FLOOR}: by another classifier or none, or of other digits; "
                f"{how_to_match(path)}."
            )
    mixtures = {name: (one.components, one.codes) for name, one in found.items()}
    first = next(iter(mixtures), "")
    for name, (components, codes) in mixtures.items():
        if mixtures[name] != mixtures[first]:
            raise StageError(
                f"{paths[name]} has a mixture of {components} Gaussians fitted to {codes} codes, {paths[first]} one "
                f"of {mixtures[first][0]} fitted to {mixtures[first][1]}; run `dvc repro`, or `python -m stages.apply "
                "NAME` for presets."
            )
    models, pcas = ({name: getattr(of, kind) for name, of in found.items()} for kind in ("model", "pca"))
    return floor, by_name(evaluations, models, pcas)


# --- drawing codes -------------------------------------------------------------------------


def check_mixture(settings: Generate, images: int) -> None:
    """Raise ParamsError if there are more Gaussians than codes of this number of training images to fit them to."""
    allowed = min(settings.codes, images)
    if settings.components > allowed:
        raise ParamsError(
            f"params.yaml: generate.components is {settings.components}, but has to be at most {allowed}, the number "
            "of codes that the Gaussians are fitted to."
        )


def fit_mixture(codes: Floats, settings: Generate) -> Mixture:
    """Gaussians with full covariances, fitted to codes float [images, latent_dim] without labels.

    P. Ghosh, M. Sajjadi, A. Vergari, M. Black, B. Schölkopf, "From variational to deterministic autoencoders" (2020).
    """
    from sklearn.mixture import GaussianMixture  # takes seconds to load, and the defaults need none
    from threadpoolctl import threadpool_limits

    chosen = np.random.default_rng(settings.seed).permutation(len(codes))[: settings.codes]
    mixture = GaussianMixture(settings.components, random_state=settings.seed)
    try:
        with threadpool_limits(1):  # k-means, which starts it, adds up in an order that several threads change
            fitted = mixture.fit(codes[chosen].astype(np.float64))
    except ValueError as error:  # codes of huge numbers, in fewer dimensions than they have
        raise StageError(f"no mixture of Gaussians can be fitted to the codes: {error}") from None
    return Mixture(fitted.weights_, fitted.means_, fitted.covariances_)


def seeds_of_draws(settings: Generate) -> range:
    """A seed for each draw, which no other seed of params.yaml gives to any of as many draws."""
    return range(settings.seed * settings.draws, (settings.seed + 1) * settings.draws)


# --- judging digits ------------------------------------------------------------------------


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
    decode: Transform, train_codes: Floats, labels: Bytes, judge: Judge, settings: Generate, variational: bool
) -> Iterator[tuple[str, Iterator[Split]]]:
    """Each method's name, and the digits with their classes that it generates, time after time.

    decode: codes float [images, latent_dim] -> images float [images, pixels]. train_codes: float [images,
    latent_dim]. labels: uint8 [images]. Where a method knows no class, the classifier predicts it.
    """
    classes = np.unique(labels)

    def digits(mixture: Mixture, labelled: bool) -> Iterator[Split]:
        for seed in seeds_of_draws(settings):
            codes, components = draw_codes(mixture, settings.digits, seed)
            images = np.rint(decode(codes).clip(0, 1) * 255).astype(np.uint8)
            yield Split(images, classes[components] if labelled else judge.predict(images))

    yield PER_CLASS, digits(class_mixture(train_codes, labels), True)
    yield MIXTURE, digits(fit_mixture(train_codes, settings), False)
    if variational:
        yield PRIOR, digits(prior_mixture(train_codes.shape[1]), False)


def real_digits(train: Split, settings: Generate) -> Iterator[Split]:
    """As many training images, chosen at random, time after time."""
    for seed in seeds_of_draws(settings):
        chosen = np.random.default_rng(seed).permutation(len(train.images))[: settings.digits]
        yield Split(train.images[np.sort(chosen)], train.labels[np.sort(chosen)])


class Judged(NamedTuple):
    """One method's part of a Generation."""

    method: str
    frechet: list[float]  # of each draw
    accuracy: list[float]  # likewise
    pictures: Float32  # [SHOWN, height, width]


def judge_methods(
    methods: Iterable[tuple[str, Iterator[Split]]], judge: Judge, test: Split, shape: tuple[int, int]
) -> Iterator[Judged]:
    """Judge what each method generates. test: real digits of the trained classes. shape: height and width."""
    real = code_moments(judge.features(test.images))
    for name, draws in methods:
        distances, accuracies, pictures = [], [], []
        for digits in draws:
            distances.append(frechet_distance(code_moments(judge.features(digits.images)), real))
            accuracies.append(share_right(judge.learn(digits), test))
            pictures.append(np.divide(digits.images[:SHOWN].reshape(-1, *shape), np.float32(255), dtype=np.float32))
        yield Judged(name, distances, accuracies, pictures[0])


def collect(judged: Iterable[Judged]) -> Generation:
    """What was judged of at least one method, as a record."""
    methods, distances, accuracies, pictures = zip(*judged, strict=True)
    return Generation(np.array(methods), np.array(distances), np.array(accuracies), np.stack(pictures))


def share_right(predict: Callable[[Bytes], Bytes], test: Split) -> float:
    """Share of the digits that a classifier gets right. predict: images uint8 [images, pixels] -> uint8 [images]."""
    return float((predict(test.images) == test.labels).mean())
