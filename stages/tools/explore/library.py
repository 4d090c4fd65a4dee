"""The models to explore, loaded on demand."""

import gc
import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stages.applications.anomalies import combined_score, inverse_covariance, mahalanobis
from stages.core.arrays import Bytes, Float64
from stages.core.baselines import clipped_pca
from stages.core.errors import StageError
from stages.core.evaluation import Evaluation, Result, load_evaluation
from stages.core.files import Split, read_images, read_labels
from stages.core.linear import Moments, Pca
from stages.core.params import Choice, choose_model, nearest
from stages.core.schema import Params
from stages.tools.explore.atlas import Atlas, make_atlas
from stages.tools.trained import TrainedModel, build, how_to_train, uncompiled

KEPT = 8  # models in memory, PCA included


@dataclass(eq=False)
class Entry:
    """A model in memory."""

    model: TrainedModel
    result: Result  # on the test images
    fact: str  # a sentence on it
    inverse: Float64  # [latent_dim, latent_dim], of the covariance of the training codes
    scores: Float64  # [test images], ascending, the combined anomaly scores
    atlas: Atlas | None = None


class Library:
    """The models of params.yaml, the trained presets, and PCA of each latent size.

    Raises StageError if data/prepared is broken.
    """

    def __init__(self, params: Params) -> None:
        self.test = Split(read_images("test"), read_labels("test"))
        self.train = Split(read_images("train"), read_labels("train"))
        _, self.height, self.width = self.test.images.shape
        self.choices = available(params)
        sizes = {choice.settings.latent_dim: choice for choice in reversed(self.choices.values())}
        self.pca = {f"PCA ({n})": sizes[n] for n in sorted(sizes) if n < self.height * self.width}
        self._load = lru_cache(KEPT)(self._load_or_fail)
        self._loading, self._encoding = threading.Lock(), threading.Lock()  # one thread, others wait

    @property
    def names(self) -> list[str]:
        """All choices: the models in the order of params.yaml, then PCA."""
        return [*self.choices, *self.pca]

    def entry(self, name: str) -> Entry:
        """A model and its measures. Raises StageError if it doesn't exist, is missing, or is broken."""
        choice = self.choices.get(name) or self.pca.get(name)
        if choice is None:
            hint = nearest(name, self.names)
            raise StageError(f"there is no model {name[:80]!r}{hint}; there are {', '.join(self.names)}.")
        with self._loading:
            entry = self._load(name, stamp(choice))
        if isinstance(entry, str):
            raise StageError(entry)
        return entry

    def atlas(self, name: str) -> Atlas:
        """Statistics of a model's codes. Raises StageError as `entry` does."""
        entry = self.entry(name)
        with self._encoding:
            if entry.atlas is None:
                entry.atlas = make_atlas(entry.model.encode, self.train, entry.result.codes)
            return entry.atlas

    def _load_or_fail(self, name: str, _: tuple[int, ...]) -> Entry | str:
        """Read a model's files. Returns errors, so that a broken file isn't read again at every stroke."""
        gc.collect()  # frees the Keras models that were evicted, which refer to themselves
        choice = self.choices.get(name) or self.pca[name]
        try:
            evaluation = load_evaluation(choice.files.evaluation)
            self._check(choice, evaluation)
            if name in self.pca:
                baseline = evaluation.baselines[0]
                return self._measured(pca_model(name, evaluation), baseline, evaluation)
            return self._measured(build(choice, evaluation, uncompiled), evaluation.model, evaluation)
        except StageError as error:
            return str(error)

    def _measured(self, model: TrainedModel, result: Result, evaluation: Evaluation) -> Entry:
        inverse = inverse_covariance(Moments(result.code_mean, result.code_covariance))
        distances = mahalanobis(result.codes, result.code_mean, inverse)
        combined = combined_score(result.squared_error, self.test.images.sum(axis=(1, 2)) / 255, distances)
        return Entry(model, result, describe(model.name, result, evaluation), inverse, np.sort(combined))

    def _check(self, choice: Choice, evaluation: Evaluation) -> None:
        """Raise StageError if an evaluation is of other images than the prepared ones, or of another latent size."""
        size = choice.settings.latent_dim
        if evaluation.latent_dim != size:
            raise StageError(
                f"{choice.files.evaluation} is of latent_dim {evaluation.latent_dim}, but {choice.key}.latent_dim is "
                f"{size}; {how_to_train(choice)}."
            )
        shape = evaluation.digits.images.shape[1:]
        if shape != (self.height, self.width) or len(evaluation.model.squared_error) != len(self.test.images):
            raise StageError(
                f"{choice.files.evaluation} is of other test images than data/prepared has; {how_to_train(choice)}."
            )


def pca_model(name: str, evaluation: Evaluation) -> TrainedModel:
    """PCA with as many numbers as the evaluated model's code has, clipped as `evaluate` measures it.

    A code needs no search: before clipping, the projection has the smallest error.
    """
    pca = clipped_pca(Pca(evaluation.pca_mean, evaluation.pca_components))
    _, height, width = evaluation.digits.images.shape
    errors = np.sort(evaluation.baselines[0].squared_error)
    return TrainedModel(
        name, height, width, evaluation.latent_dim, pca.encode, pca.decode, errors, lambda images, _: pca.encode(images)
    )


def describe(name: str, result: Result, evaluation: Evaluation) -> str:
    """A sentence on what was measured of a model, or of PCA with as many numbers."""
    sentence = f"{name} loses {result.mse * evaluation.pixels:.2f} of squared error per test digit on average"
    if result is evaluation.model and not evaluation.overcomplete:
        sentence += (
            f", {result.mse / evaluation.baselines[0].mse:.2f} times what PCA with {result.latent_dim} numbers loses"
        )
    return f"{sentence}; a linear probe reads the class from {result.probe:.1%} of its codes."


def available(params: Params) -> dict[str, Choice]:
    """All of `models`, even if their files are missing, and those of `presets` that are trained and evaluated."""
    presets = [choose_model(params, name) for name in params.presets]
    trained = [choice for choice in presets if choice.files.model.exists() and choice.files.evaluation.exists()]
    return {choice.name: choice for choice in [*(choose_model(params, name) for name in params.models), *trained]}


def stamp(choice: Choice) -> tuple[int, ...]:
    """Changes when one of a model's files does."""
    stamps = []
    for path in (choice.files.model, choice.files.evaluation):
        try:
            stamps.append(path.stat().st_mtime_ns)
        except FileNotFoundError:
            stamps.append(0)
    return tuple(stamps)


def image_at(split: Split, position: int) -> Bytes:
    """An image uint8 [height, width]. Raises StageError if there is no such position."""
    count = len(split.images)
    if not 0 <= position < count:
        raise StageError(f"there is no test digit {position}; they have the numbers 0 to {count - 1}.")
    return np.asarray(split.images[position])
