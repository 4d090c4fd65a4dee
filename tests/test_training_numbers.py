"""The numbers of training on models of a few pixels: by hand, and whatever the batches are."""

import math
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest

from stages.core import files
from stages.core import training as engine
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import tf
from stages.core.optimizer import build_optimizer, learning_rates
from stages.core.params import read_params
from stages.core.schema import Model, Optimizer, Params
from stages.core.training import Training, add_noise, build_training, read_pixels, resident, shift
from stages.tools.tune.worker import set_learning_rates
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


@pytest.mark.parametrize("batch_size", [3, 10])
@pytest.mark.parametrize("changes", [{"code_l1": 0.25}, {"kl_weight": 2.0}], ids=str)
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


# --- the optimizer -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_settings_become_the_optimizers_arguments(name: str) -> None:
    """0 keeps Keras' default, except for weight decay, which it switches off: by 0.0 in AdamW, by None elsewhere."""
    keras_own = keras.optimizers.get(name)
    for decay, beta_2 in ((0.0, 0.0), (0.25, 0.75)):
        optimizer = build_optimizer(variant(optimizer=name, weight_decay=decay, beta_2=beta_2, learning_rate=0.03), 5)
        assert type(optimizer) is type(keras_own)
        assert float(optimizer.learning_rate) == pytest.approx(0.03)
        off = 0.0 if name == "adamw" else None
        assert optimizer.weight_decay == (decay or off)
        assert getattr(optimizer, "adam_weight_decay", decay or None) == (decay or None)
        if hasattr(keras_own, "beta_2"):
            assert optimizer.beta_2 == (beta_2 or keras_own.beta_2)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_half_precision_alone_scales_its_loss(precision: str) -> None:
    """Its learning rates are those of the optimizer inside."""
    settings = variant(optimizer="nadam", precision=precision)
    optimizer = build_optimizer(settings, 5)
    set_learning_rates(optimizer, learning_rates(variant(learning_rate=0.03), 5))
    if precision == "mixed_float16":
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        optimizer = optimizer.inner_optimizer
    assert isinstance(optimizer, keras.optimizers.Nadam)
    assert float(optimizer.learning_rate) == pytest.approx(0.03)


HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, {0: 0.08, 49: 0.08}),
        # half an epoch rounds to two steps, so it falls for 48
        ({"schedule": "linear", "warmup_epochs": 0.5}, {0: 0, 1: 0.04, 2: 0.08, 3: 0.47 / 6, 26: 0.04, 49: 0.01 / 6}),
        ({"schedule": "linear"}, {0: 0.08, 25: 0.04}),
        ({"schedule": "cosine"}, {0: 0.08, 25: 0.04}),
        (
            {"schedule": "cosine", "warmup_epochs": 2.0},
            {0: 0, 1: 0.008, 7: 0.056, 10: 0.08, 20: 0.04 * (1 + HALF), 30: 0.04, 40: 0.04 * (1 - HALF)},
        ),
        # a warm-up leaves a step to train
        ({"schedule": "linear", "epochs": 1, "warmup_epochs": 0.95}, {0: 0, 3: 0.06, 4: 0.08}),
    ],
    ids=str,
)
def test_learning_rates_at_steps_of_training(changes: dict[str, Any], expected: dict[int, float]) -> None:
    """10 epochs of 5 steps."""
    rates = learning_rates(variant(**{"epochs": 10, "learning_rate": 0.08} | changes), 5)
    assert {step: rates[step] for step in expected} == pytest.approx(expected, abs=1e-7)
    assert (rates[1:] > 0).all()


def test_a_schedule_ends_with_the_last_whole_batch() -> None:
    """10 images in batches of 4 are 2 steps."""
    optimizer = build(variant(batch_size=4, epochs=3, schedule="linear", learning_rate=0.6)).optimizer
    optimizer.iterations.assign(5)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_a_momentum_of_zero_averages_no_weights(momentum: float) -> None:
    optimizer = build_optimizer(variant(ema_momentum=momentum), 5)
    assert optimizer.use_ema == (momentum > 0)
    assert not momentum or optimizer.ema_momentum == momentum


# --- images ------------------------------------------------------------------------------------


def test_shift_noise_and_seed_of_the_settings_decide_what_a_step_is_given() -> None:
    """A shift moves the target too, noise changes the input alone."""
    images, step = tf.constant(PIXELS), tf.constant(3, tf.int64)

    @tf.function(jit_compile=True)
    def noisy(targets: tf.Tensor) -> tf.Tensor:
        return add_noise(targets, 0.25, 7, step)

    moved = shift(images, (HEIGHT, WIDTH), 2, 7, step).numpy() / np.float32(255)
    for changes, of_shift, of_noise in (({"shift": 2}, True, False), ({"noise": 0.25}, False, True)):
        training = build(variant(seed=7, **changes))
        targets, inputs = tf.function(training.load_batch, jit_compile=True)(images, step)
        np.testing.assert_allclose(targets, moved if of_shift else PIXELS / np.float32(255), rtol=1e-6)
        np.testing.assert_allclose(inputs, noisy(targets) if of_noise else targets, rtol=1e-5, atol=1e-7)


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
