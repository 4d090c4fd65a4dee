"""The numbers of training on models of a few pixels: against Keras, operation by operation, and by hand."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from stages.core.augmentation import build_augment, build_corrupt, random_shift, unchanged
from stages.core.epoch import compile_training, sum_over_batches
from stages.core.images import epoch_order, file_order, read_pixels, resident

from stages.core import files
from stages.core import images as training_images
from stages.core.backend import tf
from stages.core.objective import plain_objective
from stages.core.optimizer import build_optimizer, learning_rates, set_learning_rates
from stages.core.params import read_params
from stages.core.schema import BETA_2, Model, Params
from tests.conftest import ROOT, TUTORIAL

pytestmark = pytest.mark.quick

layers = keras.layers
SETTINGS = read_params(Params, ROOT / "params.yaml").models["deep"].model_copy(update=TUTORIAL)
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 6), np.uint8)


def variant(**changes: Any) -> Model:
    return SETTINGS.model_copy(update=changes)


# --- an epoch ----------------------------------------------------------------------------------


def model() -> keras.Model:
    """Small, but with penalties on what layers give, and with a layer that is another one while it is trained."""
    keras.utils.set_random_seed(3)
    return keras.Sequential([
        keras.Input((6,)),
        layers.Dense(4, activity_regularizer=keras.regularizers.L2(0.1)),
        layers.BatchNormalization(),
        layers.ActivityRegularization(l1=0.2),
        layers.Dense(6, "sigmoid"),
    ])  # fmt: skip


def test_an_epoch_is_keras_own_without_a_compiler() -> None:
    """Batches of 4, 4 and 2 images."""
    ours, theirs = model(), model()
    train_epoch, mean_loss = compile_training(
        ours, plain_objective(ours, "mae"), keras.optimizers.Adam(0.01), 4, unchanged, unchanged
    )
    theirs.compile(keras.optimizers.Adam(0.01), keras.losses.MeanAbsoluteError(), run_eagerly=True)
    scaled = PIXELS.astype(np.float32) / 255
    for epoch in (1, 2):
        order = epoch_order(0, epoch, 10)
        history = theirs.fit(scaled[order], scaled[order], batch_size=4, shuffle=False, verbose=0).history
        assert train_epoch(resident(PIXELS), order) == pytest.approx((history["loss"][0], 0), rel=1e-5)
        expected = theirs.evaluate(scaled, scaled, batch_size=4, verbose=0)
        assert mean_loss(resident(PIXELS)) == pytest.approx((expected, 0), rel=1e-5)
        assert mean_loss(PIXELS) == pytest.approx((expected, 0), rel=1e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_loss_that_is_scaled_for_half_precision_gives_the_same_update() -> None:
    weights, losses = [], []
    for scale in (1.0, 1024.0):
        trained = model()
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=scale)
        train_epoch, _ = compile_training(trained, plain_objective(trained, "mse"), optimizer, 5, unchanged, unchanged)
        losses.append(train_epoch(PIXELS, epoch_order(0, 1, 10)).loss)
        weights.append(np.concatenate([array.ravel() for array in trained.get_weights()]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 9])
def test_every_item_is_in_one_batch(batch_size: int) -> None:
    """Whole batches in their order, then what is left; what a step gives are two numbers."""
    items = np.arange(10.0, dtype=np.float32).reshape(5, 2)
    seen = []

    def step(batch: tf.Tensor) -> tf.Tensor:
        seen.append(np.asarray(batch).tolist())
        return tf.stack([tf.reduce_sum(batch), float(len(batch))])

    assert sum_over_batches(step, tf.constant(items), batch_size).numpy().tolist() == [45, 5]
    assert seen == [items[start : start + batch_size].tolist() for start in range(0, 5, batch_size)]


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
    """As the tuner gives them to a model that is trained again."""
    one, other = (variant(optimizer="sgd", learning_rate=rate, epochs=1, precision=precision) for rate in (0.5, 0.125))
    weights = []
    for first, second in ((other, None), (one, other)):
        trained, optimizer = model(), build_optimizer(first, 2)
        compiled = compile_training(trained, plain_objective(trained, "mse"), optimizer, 5, unchanged, unchanged)
        if second:
            beginning = [variable.numpy() for variable in trained.variables + optimizer.variables]
            compiled.train_epoch(PIXELS, epoch_order(0, 1, 10))
            for variable, value in zip(trained.variables + optimizer.variables, beginning, strict=True):
                variable.assign(value)
            set_learning_rates(optimizer, learning_rates(second, 2))
        compiled.train_epoch(PIXELS, epoch_order(0, 1, 10))
        weights.append(trained.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (
        np.concatenate([array.ravel() for array in weights[0]])
        != np.concatenate([array.ravel() for array in model().get_weights()])
    ).any()


def test_settings_become_the_optimizers_arguments() -> None:
    """0 leaves each as Keras has it."""
    for name in BETA_2:
        for beta_2 in (0.0, 0.75):
            optimizer = build_optimizer(variant(optimizer=name, beta_2=beta_2), 5)
            assert optimizer.beta_2 == (beta_2 or keras.optimizers.get(name).beta_2)
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


# --- augmentation and images -------------------------------------------------------------------


def test_shift_and_seed_of_the_settings_decide_the_shifts() -> None:
    images, step = tf.constant(np.random.default_rng(0).integers(0, 256, (20, 45), np.uint8)), tf.constant(3, tf.int64)
    augment = build_augment(variant(shift=2, seed=7), 5, 9)
    np.testing.assert_array_equal(augment(images, step), random_shift(5, 9, 2, 7)(images, step))
    assert build_augment(variant(shift=0), 5, 9) is unchanged


def test_level_and_seed_of_the_settings_decide_the_noise() -> None:
    """Steps count down from -1 in its keys, so that none is that of a shift, whose steps count up from 0."""

    @tf.function(jit_compile=True)
    def both(step: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        noise = 0.25 * tf.random.stateless_normal((20, 6), key, alg="threefry")
        return build_corrupt(variant(noise=0.25, seed=7))(tf.fill((20, 6), 0.5), step), 0.5 + noise

    for step in (0, 5):
        found, expected = both(tf.constant(step, tf.int64), tf.constant([7, -1 - step], tf.int64))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert build_corrupt(variant(noise=0.0)) is unchanged


@pytest.mark.parametrize("above", [0, 1])
def test_images_are_mapped_from_disk_only_if_they_are_too_large(
    above: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = files.images_path("validation")
    path.parent.mkdir(parents=True)
    np.save(path, PIXELS.reshape(10, 2, 3))
    monkeypatch.setattr(training_images, "LARGEST_RESIDENT", PIXELS.nbytes - above)
    placed = []

    def place(images: np.ndarray) -> str:
        placed.append(images)
        return "on the device"

    found = read_pixels("validation", place)
    if above:
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, PIXELS)
        assert placed == []
    else:
        assert found == "on the device"
        assert not isinstance(placed[0], np.memmap)
        np.testing.assert_array_equal(placed[0], PIXELS, strict=True)


def test_orders_are_of_whole_numbers_that_tensorflow_gathers_by() -> None:
    np.testing.assert_array_equal(file_order(PIXELS), np.arange(10, dtype=np.int32), strict=True)
    expected = np.random.default_rng([4, 2]).permutation(10).astype(np.int32)
    np.testing.assert_array_equal(epoch_order(4, 2, 10), expected, strict=True)
