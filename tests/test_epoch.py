"""Training against Keras' own `fit` of models built by hand, and what is random in it."""

import itertools
import math
from typing import Any, get_args

import keras
import numpy as np
import pytest

from stages.core import training as engine
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import tf
from stages.core.checkpoint import History
from stages.core.objective import build_objective
from stages.core.params import read_params
from stages.core.products import portable_gradients
from stages.core.schema import Activation, Loss, Model, Optimizer, Params
from stages.core.training import (
    Images,
    Training,
    add_noise,
    blocks,
    build_training,
    epoch_order,
    resident,
    scaled,
    shift,
    whole_batches,
)
from tests.conftest import ROOT, TUTORIAL

layers = keras.layers
HEIGHT, WIDTH = 6, 7
COUNT, BATCH, EPOCHS = 300, 64, 2  # an epoch leaves 44 images out, and validation fills its last batch up
STEPS = 4  # of an epoch
RATE = 0.003  # no optimizer's own
SETTINGS = read_params(Params, ROOT / "params.yaml").models["deep"].model_copy(
    update=TUTORIAL
    | {"hidden_units": [32], "latent_dim": 8, "learning_rate": RATE, "batch_size": BATCH, "epochs": EPOCHS}
)  # fmt: skip


@pytest.fixture(scope="module")
def images(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The middle of digits."""
    return mnist["train"][0][:COUNT, 10 : 10 + HEIGHT, 10 : 10 + WIDTH].reshape(COUNT, -1)


def variant(**changes: Any) -> Model:
    return SETTINGS.model_copy(update=changes)


def train(model: keras.Model, settings: Model, images: Images, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> History:
    """Train and validate on the same images."""
    return engine.train(build_training(model, settings, len(images), shape), images, images)


def losses(history: History) -> np.ndarray:
    """Losses of training and validation: float64 [epochs, 2]."""
    return np.array([(row.loss, row.val_loss) for row in history])


class Schedule(keras.callbacks.Callback):  # type: ignore[misc]
    """A warm-up of `warmup` steps in a straight line, then half a wave or another straight line down to zero."""

    def __init__(self, warmup: int, linear: bool = False) -> None:
        super().__init__()
        self.step, self.warmup, self.linear = 0, warmup, linear

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if self.step < self.warmup:
            share = self.step / self.warmup
        else:
            done = (self.step - self.warmup) / (STEPS * EPOCHS - self.warmup)
            share = 1 - done if self.linear else (1 + math.cos(math.pi * done)) / 2
        self.model.optimizer.learning_rate = RATE * share
        self.step += 1


def fit(
    model: keras.Model, optimizer: keras.Optimizer, loss: str, images: np.ndarray, callbacks: list[Any]
) -> np.ndarray:
    """As `train`, by Keras and without a compiler, with the same whole batches: losses float64 [epochs, 2]."""
    model.compile(optimizer, loss, run_eagerly=True)
    x = images.astype(np.float32) / 255
    found = []
    for epoch in range(1, EPOCHS + 1):
        seen = x[whole_batches(epoch_order(SETTINGS.seed, epoch, COUNT), BATCH).ravel()]
        options: dict[str, Any] = {"batch_size": BATCH, "verbose": 0}
        history = model.fit(seen, seen, shuffle=False, validation_data=(x, x), callbacks=callbacks, **options).history
        found.append((history["loss"][0], history["val_loss"][0]))
    return np.array(found)


def dense(*units: int) -> keras.Model:
    """An autoencoder of dense layers; the smallest has no activation."""
    hidden = [layers.Dense(n, "relu" if n > min(units) else None) for n in units]
    return keras.Sequential([keras.Input((HEIGHT * WIDTH,)), *hidden, layers.Dense(HEIGHT * WIDTH, "sigmoid")])


def agree(
    images: np.ndarray,
    settings: Model,
    theirs: keras.Model,
    optimizer: keras.Optimizer,
    *callbacks: Any,
    losses_to: float = 1e-5,
    weights_to: float = 0.01,
    vectors: bool = True,
) -> None:
    """Losses agree, and weights to a share of the distance they moved; biases and the like too if `vectors`."""
    ours = build_autoencoder(HEIGHT, WIDTH, settings)
    before = ours.get_weights()
    theirs.set_weights(before)
    found = losses(train(ours, settings, resident(images)))
    np.testing.assert_allclose(found, fit(theirs, optimizer, settings.loss, images, list(callbacks)), rtol=losses_to)
    assert (found[0] != found[1]).all()  # it did train
    for a, b, start in zip(ours.get_weights(), theirs.get_weights(), before, strict=True):
        if vectors or a.ndim > 1:
            assert np.linalg.norm(a - b) <= weights_to * np.linalg.norm(b - start)


LOSS_OF = {"adam": "mae", "adamax": "mse", "nadam": "huber"}  # others: binary_crossentropy


@pytest.mark.quick
def test_every_loss_is_that_of_an_optimizer() -> None:
    """The next test covers each loss."""
    assert {*LOSS_OF.values(), "binary_crossentropy"} == {*get_args(Loss)}


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_every_optimizer_and_every_loss_agree_with_fit(images: np.ndarray, name: str) -> None:
    """With weight decay. Lion steps by the sign of a moving average, so rounding can flip a step near 0."""
    tolerances: dict[str, Any] = {"losses_to": 1e-3, "weights_to": 0.1} if name == "lion" else {}
    theirs = keras.optimizers.get(name)
    theirs.learning_rate, theirs.weight_decay = RATE, 0.5
    if name == "muon":
        theirs.adam_weight_decay = 0.5
    loss = LOSS_OF.get(name, "binary_crossentropy")
    settings = variant(hidden_units=[], optimizer=name, loss=loss, weight_decay=0.5)
    agree(images, settings, dense(8), theirs, **tolerances)


def test_convolutions_batch_normalization_a_linear_schedule_and_beta_2_agree_with_fit(images: np.ndarray) -> None:
    """Halving rounds both sides up, so the decoder cuts its maps."""

    def normalized() -> list[keras.Layer]:
        return [layers.BatchNormalization(), layers.ReLU()]

    halving: dict[str, Any] = {"kernel_size": 3, "strides": 2, "padding": "same"}
    theirs = keras.Sequential([
        keras.Input((HEIGHT * WIDTH,)),
        layers.Reshape((HEIGHT, WIDTH, 1)),
        layers.Conv2D(2, **halving), *normalized(),
        layers.Conv2D(3, **halving), *normalized(),
        layers.Flatten(),
        layers.Dense(8),
        layers.Dense(2 * 2 * 3), *normalized(),
        layers.Reshape((2, 2, 3)),
        layers.Conv2DTranspose(2, **halving), layers.Cropping2D(((0, 1), (0, 0))), *normalized(),
        layers.Conv2DTranspose(1, **halving), layers.Cropping2D(((0, 0), (0, 1))),
        layers.Flatten(),
        layers.Activation("sigmoid"),
    ])  # fmt: skip
    changes = {"schedule": "linear", "warmup_epochs": 0.6, "beta_2": 0.9}
    settings = variant(layers="conv", hidden_units=[2, 3], normalization="batch", **changes)
    optimizer, schedule = keras.optimizers.Adam(RATE, beta_2=0.9), Schedule(round(STEPS * 0.6), linear=True)
    # normalization takes the biases before it out of the loss: rounding alone moves them, and the averages with them
    agree(images, settings, theirs, optimizer, schedule, losses_to=2e-5, weights_to=0.05, vectors=False)


def test_a_deep_model_with_a_penalty_decay_and_warm_up_agrees_with_fit(images: np.ndarray) -> None:
    def hidden(units: int) -> list[keras.Layer]:
        return [layers.Dense(units), layers.LayerNormalization(), layers.ReLU()]

    theirs = keras.Sequential([
        keras.Input((HEIGHT * WIDTH,)),
        *hidden(32), *hidden(20),
        layers.Dense(8), layers.ActivityRegularization(l1=0.01),
        *hidden(20), *hidden(32),
        layers.Dense(HEIGHT * WIDTH, "sigmoid"),
    ])  # fmt: skip
    changes = {"normalization": "layer", "optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 1}
    settings = variant(hidden_units=[32, 20], code_l1=0.01, weight_decay=0.1, **changes)
    agree(images, settings, theirs, keras.optimizers.AdamW(RATE, weight_decay=0.1), Schedule(STEPS), losses_to=2e-5)


def test_half_precision_agrees_nearly_with_fit(images: np.ndarray) -> None:
    """In plain gradient descent, where gradients that keep the scale of the loss would show."""
    settings = variant(optimizer="sgd", precision="mixed_float16")
    agree(images, settings, dense(32, 8, 32), keras.optimizers.SGD(RATE), losses_to=0.01, weights_to=0.1)


def test_every_activation_has_the_gradients_that_it_has_without_a_compiler() -> None:
    """Hidden and latent ones in pairs, all in one program."""
    activations = get_args(Activation)
    pairs = itertools.zip_longest(activations[::2], activations[1::2], fillvalue="linear")
    x = tf.constant(np.random.default_rng(0).random((BATCH, 12)), tf.float32)
    models, objectives = [], []
    for hidden, latent in pairs:
        changes = {"hidden_activation": hidden, "latent_activation": latent, "loss": "mse"}
        settings = variant(hidden_units=[5], latent_dim=3, **changes)
        models.append(build_autoencoder(3, 4, settings))
        objectives.append(build_objective(models[-1], settings, STEPS))

    @tf.function(jit_compile=True)
    def gradients() -> list[list[tf.Tensor]]:
        with portable_gradients():
            means = [tf.reduce_mean(objective.losses(x, x, 0, training=True)[0]) for objective in objectives]
        variables = [[variable.value for variable in model.trainable_variables] for model in models]
        return [tf.gradients(mean, values) for mean, values in zip(means, variables, strict=True)]

    for model, found in zip(models, gradients(), strict=True):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - x) ** 2)
        for ours, theirs in zip(found, tape.gradient(loss, model.trainable_variables), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


# --- what is random ----------------------------------------------------------------------------


@pytest.mark.quick
def test_each_image_has_noise_of_its_own_standard_deviation_and_is_clipped() -> None:
    @tf.function(jit_compile=True)
    def add(level: float, seed: int, step: tf.Tensor) -> tf.Tensor:
        return add_noise(tf.fill((400, 36), 0.5), level, seed, step)

    def noisy(level: float, seed: int, step: int) -> np.ndarray:
        return np.asarray(add(level, seed, tf.constant(step, tf.int64)))

    every = [noisy(0.1, seed, step) - 0.5 for seed, step in ((0, 0), (0, 1), (1, 0), (2**32 - 1, 10**9))]
    for noise in every:
        shares = [0.1, 0.3, 0.5, 0.7, 0.9]
        assert np.quantile(noise.std(axis=1), shares) == pytest.approx(np.multiply(0.1, shares), abs=0.01)
        assert abs(noise.mean()) < 0.003
        assert noise.std(axis=0) == pytest.approx(np.full(36, 0.1 / np.sqrt(3)), rel=0.2)  # in every pixel
    assert abs(np.corrcoef([noise.ravel() for noise in every]) - np.eye(4)).max() < 0.05  # other samples
    np.testing.assert_array_equal(noisy(0.1, 0, 1) - 0.5, every[1])
    np.testing.assert_allclose(noisy(2.0, 0, 0), (0.5 + 20 * every[0]).clip(0, 1), atol=1e-4)


@pytest.mark.quick
def test_every_step_of_the_training_has_a_number_of_its_own() -> None:
    """The target is the number of the step, and the model always gives grey."""

    class Numbers(Training):
        def load_batch(self, images: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            inputs = scaled(images)
            return tf.ones_like(inputs) * tf.cast(step, tf.float32), inputs

    settings = variant(hidden_units=[], loss="mse", learning_rate=1e-30, optimizer="sgd", batch_size=4)
    model = build_autoencoder(2, 3, settings)
    model.get_layer("decoder").set_weights([np.zeros((8, 6)), np.zeros(6)])
    built = build_training(model, settings, 14, (2, 3))
    pixels = resident(np.full((14, 6), 51, np.uint8))
    history = engine.train(Numbers(model, built.objective, built.optimizer, settings, (2, 3)), pixels, pixels)
    expected = [np.mean([(step - 0.5) ** 2 for step in steps]) for steps in ((0, 1, 2), (3, 4, 5))]
    assert [row.loss for row in history] == pytest.approx(expected, rel=1e-5)
    assert [row.val_loss for row in history] == pytest.approx([0.3**2] * 2, rel=1e-5)  # the images as they are


@pytest.mark.quick
def test_shifts_move_whole_images() -> None:
    """Of any shape, with black moving in, every move equally often, and others at every step and for every seed."""
    height, width, count = 5, 9, 300
    pixels = np.random.default_rng(0).integers(1, 256, (count, height * width), np.uint8)
    around = np.pad(pixels.reshape(count, height, width), ((0, 0), (2, 2), (2, 2)))
    windows = {(y, x): around[:, y : y + height, x : x + width].reshape(count, -1) for y in range(5) for x in range(5)}

    def moves(seed: int, step: int) -> list[tuple[int, int]]:
        moved = shift(pixels, (height, width), 2, seed, tf.constant(step, tf.int64)).numpy()
        found = [[move for move, window in windows.items() if (window[i] == moved[i]).all()] for i in range(count)]
        assert all(len(matches) == 1 for matches in found)
        return [matches[0] for matches in found]

    seen = [moves(seed, step) for seed, step in ((0, 0), (0, 1), (0, 2), (1, 0))]
    assert moves(0, 1) == seen[1]
    for a in range(4):
        for b in range(a):
            assert sum(x == y for x, y in zip(seen[a], seen[b], strict=True)) < count / 10  # 12 by chance
    counts = [sum(one.count(move) for one in seen) for move in windows]
    assert 24 < min(counts) <= max(counts) < 84  # 48 on average


# --- blocks and order --------------------------------------------------------------------------


def test_streaming_gives_the_same_weights_and_losses(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a variational model, whose samples in validation depend on the places of images in the file."""
    monkeypatch.setattr(engine, "BLOCK", 150 * HEIGHT * WIDTH)  # two batches at a time
    cut = blocks(images, whole_batches(epoch_order(0, 1, COUNT), BATCH))
    assert [within.shape for _, within in cut] == [(2, BATCH), (2, BATCH)]
    settings = variant(hidden_units=[], kl_weight=1.0)
    in_memory, streamed = (build_autoencoder(HEIGHT, WIDTH, settings) for _ in range(2))
    expected = train(in_memory, settings, resident(images))
    np.testing.assert_allclose(train(streamed, settings, images), expected, rtol=1e-6)
    for a, b in zip(in_memory.get_weights(), streamed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.quick
@pytest.mark.parametrize("block", [1, 12, 60, 10_000])
def test_blocks_hold_the_images_of_an_order_in_whole_batches(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BLOCK", block)
    pixels = np.arange(22, dtype=np.uint8).reshape(11, 2)
    batches = whole_batches(epoch_order(0, 1, 11), 3)
    found = list(blocks(pixels, batches))
    np.testing.assert_array_equal(np.concatenate([part.numpy()[within] for part, within in found]), pixels[batches])
    assert all(len(part) == within.size for part, within in found)  # no image that is not wanted
    assert len(found) == {1: 3, 12: 2, 60: 1, 10_000: 1}[block]


@pytest.mark.quick
@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
def test_an_epoch_leaves_out_what_fills_no_batch(batch_size: int) -> None:
    order = epoch_order(0, 1, 10)
    batches = whole_batches(order, batch_size)
    assert batches.shape == (10 // batch_size, batch_size)
    np.testing.assert_array_equal(batches.ravel(), order[: batches.size], strict=True)
    left_out = {index for epoch in range(1, 100) for index in epoch_order(0, epoch, 10)[batches.size :]}
    assert len(left_out) == (10 if 10 % batch_size else 0)  # each image in its turn


@pytest.mark.quick
def test_the_order_is_a_permutation_of_its_own_for_every_epoch_and_seed() -> None:
    orders = [epoch_order(seed, epoch, 1000) for seed in (0, 1) for epoch in (1, 2)]
    for order in orders:
        assert order.dtype == np.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({order.tobytes() for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], epoch_order(0, 1, 1000))
