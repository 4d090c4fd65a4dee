"""The models to explore: loaded when they are asked for, and only so many at a time."""

import gc
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.core.arrays import Bytes
from stages.core.errors import StageError
from stages.core.evaluation import Evaluation, Result, load_evaluation
from stages.core.files import Split, read_images, read_labels
from stages.core.linear import Moments, fit_pca, image_moments
from stages.core.params import Choice, choose_model, nearest
from stages.core.schema import Params
from stages.explorer.atlas import Atlas, encode_to_file, make_atlas
from stages.explorer.measured import read_metrics
from stages.tools.trained import TrainedModel, build, how_to_train, uncompiled

KEPT = 8  # models in memory at once, PCA included

Stamp = tuple[tuple[int, int], ...]


@dataclass(eq=False)
class Entry:
    """A model in memory."""

    stamp: Stamp  # of the files it came from
    model: TrainedModel
    result: Result  # what was measured of it
    atlas: Atlas | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)  # one thread makes the atlas, the others wait


@dataclass(frozen=True)
class Failure:
    """Why there is no model."""

    stamp: Stamp  # of the files that failed
    problem: str


class Library:
    """Every trained model of params.yaml, and PCA of each latent size.

    folder: temporary, for the codes of the training images. say: told what takes long.
    Raises StageError if the prepared images are missing or broken.
    """

    def __init__(self, params: Params, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self.say = folder, say
        self.test = Split(read_images("test"), read_labels("test"))
        self.train = Split(read_images("train"), read_labels("train"))
        _, self.height, self.width = self.test.images.shape
        self.choices = available(params)
        sizes = {choice.settings.latent_dim: choice for choice in reversed(self.choices.values())}
        self.pca = {f"PCA ({n})": sizes[n] for n in sorted(sizes) if n < self.height * self.width}
        self._entries: OrderedDict[str, Entry | Failure] = OrderedDict()
        self._lock = threading.RLock()  # models load one at a time, so that memory has no peaks
        self._numbers = itertools.count()
        self._moments: Future[Moments] | None = None

    @property
    def names(self) -> list[str]:
        """All that can be chosen: models in the order of params.yaml, then PCA."""
        return [*self.choices, *self.pca]

    def start_pca(self) -> None:
        """Begin with the one long computation that PCA needs, in another thread; more calls do nothing."""
        with self._lock:
            if self._moments is None:
                images = self.train.images.reshape(len(self.train.images), -1)
                pool = ThreadPoolExecutor(1, "pca")
                self._moments = pool.submit(image_moments, images, 1000)
                pool.shutdown(wait=False)

    def model(self, name: str) -> TrainedModel:
        """A model as functions of arrays. Raises StageError if there is none, or it is missing or broken."""
        return self._entry(name).model

    def by_error(self) -> list[str]:
        """The models of params.yaml, that with the smallest error on the test images first, unmeasured ones last."""
        errors = {}
        for name, choice in self.choices.items():
            try:
                errors[name] = read_metrics(choice.files).mse
            except StageError:
                errors[name] = math.inf
        return sorted(errors, key=errors.__getitem__)

    def result(self, name: str) -> Result:
        """What was measured of the model on the test images. Raises StageError as `model` does."""
        return self._entry(name).result

    def atlas(self, name: str) -> Atlas:
        """What is known of the model's codes. Raises StageError as `model` does."""
        entry = self._entry(name)
        with entry.lock:
            if entry.atlas is None:
                self.say(f"encoding the training images with {name}")
                path = self.folder / f"codes-{next(self._numbers)}.npy"
                images = self.train.images.reshape(len(self.train.images), -1)
                train_codes = encode_to_file(entry.model.encode, images, path)
                path.unlink()  # the mapping keeps its content until the model is let go
                entry.atlas = make_atlas(train_codes, self.train.labels, entry.result.codes)
            return entry.atlas

    def _entry(self, name: str) -> Entry:
        choice = self.choices.get(name) or self.pca.get(name)
        if choice is None:
            hint = nearest(name, self.names)
            raise StageError(f"there is no model {name[:80]!r}{hint}; there are {', '.join(self.names)}.")
        now = stamp(choice)
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or entry.stamp != now:  # trained anew while this runs
                self._entries.pop(name, None)
                if len(self._entries) >= KEPT:
                    self._entries.popitem(last=False)
                    gc.collect()  # a Keras model holds itself in circles, so nothing else lets it go in time
                entry = self._entries[name] = self._load(name, choice, now)
            self._entries.move_to_end(name)
        if isinstance(entry, Failure):
            raise StageError(entry.problem)
        return entry

    def _load(self, name: str, choice: Choice, now: Stamp) -> Entry | Failure:
        """A model from its files. A failure is kept, too, so that a broken file is not read at every stroke."""
        try:
            evaluation = load_evaluation(choice.files.evaluation)
            self._check(choice, evaluation)
            if name in self.pca:
                model, result = self._pca_model(name, evaluation), evaluation.pca
            else:
                self.say(f"loading {name}")
                model, result = build(choice, evaluation, uncompiled), evaluation.model
            return Entry(now, model, result)
        except StageError as error:
            return Failure(now, str(error))

    def _check(self, choice: Choice, evaluation: Evaluation) -> None:
        """Raise StageError if an evaluation is of other images than those prepared, or of another latent size."""
        size = choice.settings.latent_dim
        if evaluation.latent_dim != size:
            raise StageError(
                f"{choice.files.evaluation} is of latent_dim {evaluation.latent_dim}, but {choice.key}.latent_dim is "
                f"{size} in params.yaml; {how_to_train(choice)}."
            )
        shape = evaluation.digits.images.shape[1:]
        if shape != (self.height, self.width) or len(evaluation.model.squared_error) != len(self.test.images):
            raise StageError(
                f"{choice.files.evaluation} is of other test images than those prepared; {how_to_train(choice)}."
            )

    def _pca_model(self, name: str, evaluation: Evaluation) -> TrainedModel:
        self.start_pca()
        assert self._moments is not None  # noqa: S101 (start_pca has just set it)
        size = evaluation.pca.latent_dim
        pca = fit_pca(self._moments.result(), size)
        errors = np.sort(evaluation.pca.squared_error)
        return TrainedModel(name, self.height, self.width, size, pca.encode, pca.decode, errors)


def available(params: Params) -> dict[str, Choice]:
    """All of `models`, whose files may be missing, and those of `presets` that have been trained and evaluated."""
    presets = [choose_model(params, name) for name in params.presets]
    trained = [choice for choice in presets if choice.files.model.exists() and choice.files.evaluation.exists()]
    return {choice.name: choice for choice in [*(choose_model(params, name) for name in params.models), *trained]}


def stamp(choice: Choice) -> Stamp:
    """Changes when one of a model's files does."""
    found = []
    for path in (choice.files.model, choice.files.evaluation):
        try:
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size))
        except OSError:
            found.append((0, -1))
    return tuple(found)


def image_of(library: Library, digit: int) -> Bytes:
    """A test image uint8 [height, width]. Raises StageError if there are not so many."""
    count = len(library.test.images)
    if not 0 <= digit < count:
        raise StageError(f"there is no test digit {digit}; they have the numbers 0 to {count - 1}.")
    return np.asarray(library.test.images[digit])
