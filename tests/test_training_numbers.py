"""The numbers of training on models of a few pixels: by hand, and whatever the batches are."""

from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest

from stages.core import files
from stages.core import training as engine
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import assign, tf
from stages.core.optimizer import build_optimizer, learning_rates, set_learning_rates
from stages.core.params import read_params
from stages.core.schema import Model, Optimizer, Params
from stages.core.training import Training, add_noise, build_training, epoch_order, read_pixels, resident, shift
from tests.conftest import ROOT, TUTORIAL

pytestmark = pytest.mark.quick

COUNT, HEIGHT, WIDTH = 10, 2, 3
SETTINGS = read_params(Params, ROOT / "params.yaml").models["deep"].model_copy(
    update=TUTORIAL | {"hidden_units": [5], "latent_dim": 4, "batch_size": 5, "epochs": 1}
)  # fmt: skip
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT * WIDTH), np.uint8)
ORDER = np.arange(COUNT, dtype=np.int32).reshape(2, 5)


def variant(**changes: Any) -> Model:
    return SETTINGS.model_copy(update=changes)


def build(settings: Model = SETTINGS) -> Training:
    return build_training(build_autoencoder(HEIGHT, WIDTH, settings), settings, COUNT, (HEIGHT, WIDTH))


# --- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
@pytest.mark.parametrize("changes", [{}, {"code_l1": 0.25}, {"kl_weight": 2.0}], ids=str)
def test_validation_is_the_mean_over_all_images_whatever_the_batches(
    batch_size: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device and streamed, in NumPy. A decoder without weights gives grey, whatever code it gets."""
    training = build(variant(loss="mse", batch_size=batch_size, **changes))
    encoder, decoder = (training.model.get_layer(half) for half in ("encoder", "decoder"))
    decoder.set_weights([np.zeros_like(weights) for weights in decoder.get_weights()])
    x = PIXELS / np.float32(255)
    expected, kl = np.square(x - 0.5).mean(), 0.0
    if "code_l1" in changes:
        expected += 0.25 * np.abs(encoder(x)).sum(axis=1).mean()
    if "kl_weight" in changes:
        mean, log_variance = map(np.asarray, encoder(x))
        kl = (np.square(mean) + np.exp(log_variance) - 1 - log_variance).sum(axis=1).mean() / 2
        expected += 2 * kl / x.shape[1]
    assert training.validate(resident(PIXELS)) == pytest.approx((expected, kl), rel=1e-5)
    monkeypatch.setattr(engine, "BLOCK", 4 * x.shape[1])
    assert training.validate(PIXELS) == pytest.approx((expected, kl), rel=1e-5)


def test_a_sparse_code_costs_its_absolute_values() -> None:
    """The mean over the images, in training as in validation."""
    found = []
    for code_l1 in (0.0, 0.25):
        training = build(variant(code_l1=code_l1, optimizer="sgd", learning_rate=1e-30))
        sums = training.train_steps(PIXELS, ORDER)
        found.append((training.mean_losses([sums], COUNT)[0], training.validate(resident(PIXELS))[0]))
    codes = training.model.get_layer("encoder")(PIXELS / np.float32(255))
    penalty = 0.25 * np.abs(codes).sum() / COUNT
    np.testing.assert_allclose(np.subtract(found[1], found[0]), penalty, rtol=1e-4)


def test_a_loss_that_is_scaled_for_half_precision_makes_the_same_update() -> None:
    weights, losses = [], []
    for scale in (1.0, 1024.0):
        built = build()
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=scale)
        training = Training(built.model, built.objective, optimizer, SETTINGS, (HEIGHT, WIDTH))
        losses.append(training.train_steps(PIXELS, ORDER).numpy())
        weights.append(np.concatenate([array.ravel() for array in built.model.get_weights()]))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-6)


# --- the optimizer -----------------------------------------------------------------------------


@pytest.mark.parametrize("weight_decay", [0.0, 0.25])
def test_adamw_has_a_decay_of_zero_where_others_have_none(weight_decay: float) -> None:
    """Adam's None switches it off; AdamW takes numbers only, and has another one if it gets none."""
    settings = {"weight_decay": weight_decay, "learning_rate": 0.03, "schedule": "constant", "precision": "float32"}
    for name, expected in (("adamw", weight_decay), ("adam", weight_decay or None), ("sgd", weight_decay or None)):
        optimizer = build_optimizer(variant(optimizer=name, **settings), 5)
        assert optimizer.__class__.__name__.lower() == name
        assert optimizer.weight_decay == expected
        assert float(optimizer.learning_rate) == pytest.approx(0.03)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_compiled_epoch_takes_the_learning_rates_of_another_training(precision: str) -> None:
    """As the tuner assigns them to a model that is trained again."""
    one, other = (variant(optimizer="sgd", learning_rate=rate, precision=precision) for rate in (0.5, 0.125))
    expected, again = build(other), build(one)
    untrained = again.model.get_weights()
    expected.train_steps(PIXELS, ORDER)
    state = again.model.variables + again.optimizer.variables
    beginning = [keras.Variable(variable, dtype=variable.dtype) for variable in state]
    again.train_steps(PIXELS, ORDER)
    assign(state, beginning)
    set_learning_rates(again.optimizer, learning_rates(other, 2))
    again.train_steps(PIXELS, ORDER)
    for a, b in zip(expected.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(untrained, again.model.get_weights(), strict=True))


def test_settings_become_the_optimizers_arguments() -> None:
    """0 leaves each as Keras has it."""
    for name in get_args(Optimizer):
        keras_own = keras.optimizers.get(name)
        for beta_2 in (0.0, 0.75):
            optimizer = build_optimizer(variant(optimizer=name, beta_2=beta_2), 5)
            if hasattr(keras_own, "beta_2"):
                assert optimizer.beta_2 == (beta_2 or keras_own.beta_2)
    for weight_decay in (0.0, 0.25):
        muon = build_optimizer(variant(optimizer="muon", weight_decay=weight_decay), 5)
        assert muon.weight_decay == muon.adam_weight_decay == (weight_decay or None)
    for momentum in (0.0, 0.6):
        optimizer = build_optimizer(variant(ema_momentum=momentum), 5)
        assert optimizer.use_ema == (momentum > 0)
        assert not momentum or optimizer.ema_momentum == momentum


@pytest.mark.parametrize("steps", [1, 2])
def test_a_warm_up_leaves_a_step_to_train(steps: int) -> None:
    settings = variant(schedule="linear", epochs=1, warmup_epochs=0.9, learning_rate=0.5)
    optimizer = build_optimizer(settings, steps)
    optimizer.iterations.assign(steps - 1)
    assert float(optimizer.learning_rate) == pytest.approx(0.5)
    assert len(learning_rates(settings, steps)) == steps


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_half_precision_alone_scales_its_loss(precision: str) -> None:
    optimizer = build_optimizer(variant(optimizer="nadam", learning_rate=0.03, precision=precision), 5)
    if precision == "mixed_float16":
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        optimizer = optimizer.inner_optimizer
    assert isinstance(optimizer, keras.optimizers.Nadam)


# --- images ------------------------------------------------------------------------------------


def test_shift_noise_and_seed_of_the_settings_decide_what_a_step_is_given() -> None:
    """A shift moves the target too, noise changes the input alone."""
    images, step = tf.constant(PIXELS), tf.constant(3, tf.int64)

    @tf.function(jit_compile=True)
    def noisy(targets: tf.Tensor) -> tf.Tensor:
        return add_noise(targets, 0.25, 7, step)

    moved = shift(images, (HEIGHT, WIDTH), 2, 7, step).numpy() / np.float32(255)
    for changes, of_shift, of_noise in (
        ({}, False, False),
        ({"shift": 2}, True, False),
        ({"noise": 0.25}, False, True),
        ({"shift": 2, "noise": 0.25}, True, True),
    ):
        training = build(variant(seed=7, **changes))
        targets, inputs = tf.function(training.load_batch, jit_compile=True)(images, step)
        np.testing.assert_allclose(targets, moved if of_shift else PIXELS / np.float32(255), rtol=1e-6)
        np.testing.assert_allclose(inputs, noisy(targets) if of_noise else targets, rtol=1e-5, atol=1e-7)


def test_keys_of_noise_count_down_where_those_of_shifts_count_up() -> None:
    """So none of both is the same, though both have the seed."""

    @tf.function(jit_compile=True)
    def both(step: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        noise = 0.25 * tf.random.stateless_normal((20, 6), key, alg="threefry")
        return add_noise(tf.fill((20, 6), 0.5), 0.25, 7, step), tf.minimum(tf.maximum(0.5 + noise, 0), 1)

    for step in (0, 5):
        found, expected = both(tf.constant(step, tf.int64), tf.constant([7, -1 - step], tf.int64))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("above", [0, 1])
def test_images_are_mapped_from_disk_only_if_they_are_too_large(
    above: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = files.images_path("validation")
    path.parent.mkdir(parents=True)
    np.save(path, PIXELS.reshape(COUNT, HEIGHT, WIDTH))
    monkeypatch.setattr(engine, "LARGEST_RESIDENT", PIXELS.nbytes - above)
    found = read_pixels("validation")
    assert isinstance(found, np.memmap if above else tf.Tensor)
    np.testing.assert_array_equal(np.asarray(found), PIXELS, strict=True)


def test_an_order_is_of_whole_numbers_that_tensorflow_gathers_by() -> None:
    expected = np.random.default_rng([4, 2]).permutation(10).astype(np.int32)
    np.testing.assert_array_equal(epoch_order(4, 2, 10), expected, strict=True)
