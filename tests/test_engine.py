"""The compiled epoch against Keras' own `fit`, fed the same batches."""

from typing import Any, get_args

import keras
import numpy as np
import pytest

from stages import engine
from stages.autoencoder import build_autoencoder, keras_bytes
from stages.backend import tf
from stages.engine import (
    compile_epoch,
    compile_mean_loss,
    compile_model,
    epoch_order,
    random_shift,
    resident,
    unchanged,
)
from stages.params import Activation, Loss, Model, Optimizer, read_params
from stages.train import build_optimizer
from tests.conftest import ROOT

SETTINGS = read_params(ROOT / "params.yaml").models["deep"]
COUNT, BATCH, EPOCHS = 300, 64, 2  # the last batch has 44 images


@pytest.fixture(scope="module")
def images(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return mnist["train"][0][:COUNT].reshape(COUNT, -1)


def build(hidden_units: tuple[int, ...] = (32,), activation: str = "relu", precision: str = "float32") -> keras.Model:
    changes = {"hidden_units": list(hidden_units), "hidden_activation": activation, "precision": precision}
    return build_autoencoder(28, 28, SETTINGS.model_copy(update={"latent_dim": 8} | changes))


def optimizer(name: str) -> keras.Optimizer:
    return keras.optimizers.get({"class_name": name, "config": {"learning_rate": 0.001}})


def train(model: keras.Model, loss: str, name: str, images: engine.Images) -> list[float]:
    train_epoch = compile_epoch(model, loss, optimizer(name), BATCH)
    return [train_epoch(images, epoch_order(0, epoch, COUNT)) for epoch in range(EPOCHS)]


def fit(model: keras.Model, loss: str, name: str, images: np.ndarray) -> list[float]:
    model.compile(optimizer(name), loss)
    scaled = images.astype(np.float32) / 255
    losses = []
    for epoch in range(EPOCHS):
        x = scaled[epoch_order(0, epoch, COUNT)]
        losses += model.fit(x, x, batch_size=BATCH, shuffle=False, verbose=0).history["loss"]
    return losses


def check(images: np.ndarray, loss: str = "binary_crossentropy", name: str = "adam", activation: str = "relu") -> None:
    ours, theirs = build(activation=activation), build(activation=activation)
    losses, expected = train(ours, loss, name, resident(images)), fit(theirs, loss, name, images)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert losses[1] != losses[0]  # it did train
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("name", [n for n in get_args(Optimizer) if n != "lion"])
def test_every_optimizer_agrees_with_fit(images: np.ndarray, name: str) -> None:
    check(images, name=name)


def test_lion_agrees_with_fit(images: np.ndarray) -> None:
    """Lion steps by the sign of a moving average, so rounding can flip a step where that is near 0."""
    losses = train(build(), "mse", "lion", resident(images))
    assert losses == pytest.approx(fit(build(), "mse", "lion", images), rel=1e-3)


@pytest.mark.parametrize("loss", get_args(Loss))
def test_every_loss_agrees_with_fit(images: np.ndarray, loss: str) -> None:
    check(images, loss=loss)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_activation_trains(images: np.ndarray, activation: str) -> None:
    assert np.isfinite(train(build(activation=activation), "mse", "sgd", resident(images))).all()


def variant(**changes: Any) -> Model:
    return SETTINGS.model_copy(update={"hidden_units": [32, 20], "latent_dim": 8, "batch_size": BATCH} | changes)


def train_variant(settings: Model, images: np.ndarray) -> tuple[list[float], keras.Model]:
    model, optimizer = build_autoencoder(28, 28, settings), build_optimizer(settings, -(-COUNT // BATCH))
    augment = random_shift(28, 28, settings.shift, settings.seed) if settings.shift else unchanged
    train_epoch = compile_epoch(model, settings.loss, optimizer, BATCH, augment)
    losses = [train_epoch(resident(images), epoch_order(0, epoch, COUNT)) for epoch in range(EPOCHS)]
    return [*losses, compile_mean_loss(model, settings.loss, BATCH)(resident(images))], model


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": "conv", "hidden_units": [2, 3], "normalization": "batch"},
        {
            "normalization": "layer",
            "code_l1": 0.01,
            "optimizer": "adamw",
            "weight_decay": 0.1,
            "schedule": "cosine",
            "epochs": EPOCHS,
            "warmup_epochs": 1,
        },
        {"hidden_units": [], "latent_dim": 800, "weight_decay": 0.1, "schedule": "cosine", "epochs": EPOCHS},
    ],
    ids=str,
)
def test_every_kind_of_model_agrees_with_fit(images: np.ndarray, changes: dict[str, Any]) -> None:
    """Penalties, schedules and moving averages included; the last loss is that of validation."""
    settings = variant(**changes)
    losses, ours = train_variant(settings, images)
    theirs = build_autoencoder(28, 28, settings)
    theirs.compile(build_optimizer(settings, -(-COUNT // BATCH)), settings.loss)
    scaled = images.astype(np.float32) / 255
    expected = []
    for epoch in range(EPOCHS):
        x = scaled[epoch_order(0, epoch, COUNT)]
        expected += theirs.fit(x, x, batch_size=BATCH, shuffle=False, verbose=0).history["loss"]
    expected.append(theirs.evaluate(scaled, scaled, batch_size=BATCH, verbose=0))
    assert losses == pytest.approx(expected, rel=2e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 if settings.normalization == "batch" else 1e-4)


def test_chance_is_a_function_of_the_seed(images: np.ndarray) -> None:
    """Noise, dropout and shifts change the training, and give the same bytes again."""
    every: dict[str, Any] = {"noise": 0.3, "dropout": 0.2, "shift": 2}
    losses, model = train_variant(variant(**every), images)
    again, same = train_variant(variant(**every), images)
    assert again == losses
    assert keras_bytes(same) == keras_bytes(model)
    plain, _ = train_variant(variant(), images)
    assert len({losses[0], losses[1], plain[0]}) == 3


def test_shifts_move_whole_images(images: np.ndarray) -> None:
    """Every image is moved as a whole, all moves occur about equally often, and none repeats at the next step."""
    digits = images.reshape(-1, 28, 28)
    shift = tf.function(random_shift(28, 28, 2, seed=0), jit_compile=True)
    seen = [shift(images, tf.constant(step, tf.int64)).numpy().reshape(-1, 28, 28) for step in range(3)]
    assert (seen[0] != seen[1]).any()
    np.testing.assert_array_equal(seen[0], shift(images, tf.constant(0, tf.int64)).numpy().reshape(-1, 28, 28))
    moves: dict[tuple[int, int], int] = {}
    around = np.pad(digits, ((0, 0), (2, 2), (2, 2)))
    for moved in seen:
        for index, picture in enumerate(moved):
            windows = {(y, x): around[index, y : y + 28, x : x + 28] for y in range(5) for x in range(5)}
            matches = [move for move, window in windows.items() if (window == picture).all()]
            assert matches
            moves[matches[0]] = moves.get(matches[0], 0) + 1
    assert len(moves) == 25
    assert min(moves.values()) > 900 / 25 / 3


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_to_nearly_the_same_loss(images: np.ndarray, precision: str) -> None:
    settings = SETTINGS.model_copy(update={"precision": precision})
    losses = []
    for model, chosen in ((build(), SETTINGS), (build(precision=precision), settings)):
        train_epoch = compile_epoch(model, "mse", build_optimizer(chosen, 5), BATCH)
        losses.append([train_epoch(resident(images), epoch_order(0, epoch, COUNT)) for epoch in range(4)])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]
    assert losses[1][3] < losses[1][0]


def test_streaming_gives_the_same_weights(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory, streamed = build(), build()
    losses = train(in_memory, "mse", "adam", resident(images))
    monkeypatch.setattr(engine, "BLOCK", 150 * 784)  # two batches at a time
    assert len(list(engine.blocks(images, epoch_order(0, 0, COUNT), BATCH))) == 3
    assert train(streamed, "mse", "adam", images) == pytest.approx(losses, rel=1e-6)
    for a, b in zip(in_memory.get_weights(), streamed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    mean_loss = compile_mean_loss(streamed, "mse", BATCH)
    assert mean_loss(images) == pytest.approx(mean_loss(resident(images)), rel=1e-6)


def test_mean_loss_agrees_with_evaluate(images: np.ndarray) -> None:
    model = build()
    model.compile("sgd", "binary_crossentropy")
    scaled = images.astype(np.float32) / 255
    expected = model.evaluate(scaled, scaled, batch_size=BATCH, verbose=0)
    for batch_size in (1, BATCH, COUNT, 10 * COUNT):
        mean_loss = compile_mean_loss(model, "binary_crossentropy", batch_size)
        assert mean_loss(resident(images)) == pytest.approx(expected, rel=1e-5)


def test_the_order_is_a_permutation_of_its_own_for_every_epoch_and_seed() -> None:
    orders = [epoch_order(seed, epoch, 1000) for seed in (0, 1) for epoch in (1, 2)]
    for order in orders:
        assert order.dtype == np.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({order.tobytes() for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], epoch_order(0, 1, 1000))


@pytest.mark.parametrize("batch_size", [64, 300, 1000])
def test_a_compiled_model_is_the_model_whatever_the_batches(images: np.ndarray, batch_size: int) -> None:
    model = build()
    scaled = images.astype(np.float32) / 255
    np.testing.assert_allclose(compile_model(model, batch_size)(scaled), model(scaled), atol=1e-6)
