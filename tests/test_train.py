"""What the train stage makes of its settings and of the prepared images."""

import math
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from stages import train
from stages.core import training as loop
from stages.core.autoencoder import build_autoencoder
from stages.core.checkpoint import History
from stages.core.errors import ParamsError
from stages.core.files import images_path
from stages.core.params import check_fit, read_params
from stages.core.schema import Model, Params
from stages.core.training import DivergedError, Training, build_training, epoch_order, resident
from tests.conftest import ROOT, TUTORIAL, change_params
from tests.made_up import Ended, call_main

PARAMS = read_params(Params, ROOT / "params.yaml")
HEIGHT, WIDTH = 3, 5
SETTINGS = PARAMS.models["deep"].model_copy(
    update=TUTORIAL | {"hidden_units": [6], "latent_dim": 2, "loss": "mse", "optimizer": "sgd", "learning_rate": 0.5}
    | {"batch_size": 4, "epochs": 3}
)  # fmt: skip


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, HEIGHT * WIDTH), np.uint8)


def run(folder: Path, settings: Model, images: np.ndarray, model: keras.Model | None = None) -> History:
    """Train on images of 3×5, from the weights of seed 0 whatever the seed of the settings."""
    model = model or build_autoencoder(HEIGHT, WIDTH, settings.model_copy(update={"seed": 0}))
    return train_on(folder, build_training(model, settings, len(images), (HEIGHT, WIDTH)), images)


def train_on(folder: Path, training: Training, images: np.ndarray) -> History:
    return loop.train(training, resident(images), resident(images), folder / "checkpoint.npz")


def variant(**changes: Any) -> Model:
    return SETTINGS.model_copy(update=changes)


Stage = Callable[..., Ended]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stage:
    """The train stage in a folder with a few prepared images, called with changes of SETTINGS."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "use_all_cores", lambda: None)  # TensorFlow may have run in this process already
    for split, count in (("train", 30), ("validation", 11)):
        images_path(split).parent.mkdir(parents=True, exist_ok=True)
        np.save(images_path(split), pixels(count, seed=count).reshape(count, HEIGHT, WIDTH))

    def call(**changes: Any) -> Ended:
        shutil.copy(ROOT / "params.yaml", tmp_path)
        settings = SETTINGS.model_copy(update=changes).model_dump()
        change_params(tmp_path, lambda params: params["models"].update(deep=settings))
        return call_main(train.main, monkeypatch, capsys, "deep")

    return call


@pytest.mark.quick
def test_the_last_val_loss_is_keras_loss_on_the_validation_images(stage: Stage) -> None:
    assert stage(loss="binary_crossentropy").status == 0
    history = pd.read_csv("data/history/deep.csv")
    assert list(history) == ["epoch", "loss", "val_loss"]
    assert history["epoch"].tolist() == [1, 2, 3]
    model = keras.saving.load_model("data/models/deep.keras")
    model.compile(loss=keras.losses.BinaryCrossentropy())
    loss = {}
    for split in ("train", "validation"):
        x = np.load(f"data/prepared/{split}_images.npy").reshape(-1, HEIGHT * WIDTH) / 255
        loss[split] = model.evaluate(x, x, verbose=0)
    assert history["val_loss"].iloc[-1] == pytest.approx(loss["validation"], rel=1e-5)
    assert history["val_loss"].iloc[-1] != pytest.approx(loss["train"], rel=1e-3)


@pytest.mark.quick
def test_a_variational_model_has_its_divergences_in_the_history(stage: Stage) -> None:
    assert stage(kl_weight=1.0).status == 0
    history = pd.read_csv("data/history/deep.csv")
    assert list(history) == ["epoch", "loss", "val_loss", "kl", "val_kl"]
    assert (history[["kl", "val_kl"]] > 0).all(axis=None)


@pytest.mark.quick
def test_early_stopping_is_reported(stage: Stage) -> None:
    ended = stage(early_stopping=1, learning_rate=60.0, loss="mae", epochs=40)
    history = pd.read_csv("data/history/deep.csv")
    assert len(history) < 40
    (line,) = [line for line in ended.out.splitlines() if "best val_loss" in line]
    assert f"epoch {len(history)}:" in line
    assert f"{history['val_loss'].min():.5f}" in line
    assert line.endswith(f"epoch {history['val_loss'].to_numpy().argmin() + 1}")


@pytest.mark.quick
def test_a_cosine_ends_with_the_last_step_of_training(tmp_path: Path) -> None:
    """14 images in batches of 4 are 3 steps an epoch: after 2 epochs of warm-up, the wave has 9 steps."""
    settings = variant(schedule="cosine", warmup_epochs=2, epochs=5, learning_rate=0.06)
    training = build_training(build_autoencoder(HEIGHT, WIDTH, settings), settings, 14, (HEIGHT, WIDTH))
    train_on(tmp_path, training, pixels(14))
    assert int(training.optimizer.iterations) == 15

    def rate(step: int) -> float:
        training.optimizer.iterations.assign(step)
        return float(training.optimizer.learning_rate)

    expected = {0: 0, 1: 0.01, 5: 0.05, 6: 0.06, 9: 0.045, 12: 0.015}
    assert {step: rate(step) for step in expected} == pytest.approx(expected, abs=1e-8)
    assert 0 < rate(14) == pytest.approx(0.03 * (1 - math.cos(math.pi / 9)))


@pytest.mark.parametrize("early_stopping", [0, 2])
def test_averaged_weights_are_those_of_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early_stopping: int
) -> None:
    """They are validated and become the model; training itself goes on with the others."""
    monkeypatch.setattr("stages.core.training.epoch_order", lambda seed, epoch, count: np.arange(count, dtype=np.int32))
    settings, images = variant(ema_momentum=0.6, early_stopping=early_stopping), pixels(10)
    ours, theirs = (build_autoencoder(HEIGHT, WIDTH, settings) for _ in range(2))
    history = run(tmp_path, settings, images, ours)
    theirs.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.6), "mse", run_eagerly=True)
    x = images.astype(np.float32) / 255
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=False)
    expected = theirs.fit(
        x[:8], x[:8], batch_size=4, epochs=3, shuffle=False, validation_data=(x, x), callbacks=[swap], verbose=0
    ).history
    losses = np.transpose([expected["loss"], expected["val_loss"]])
    np.testing.assert_allclose(np.array(history)[:, 1:3], losses, rtol=1e-5)
    assert history[-1].val_loss == min(row.val_loss for row in history)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_order_of_images_depends_on_the_seed(tmp_path: Path) -> None:
    """The weights are the same at first and nothing else takes chances, so that only the order can differ."""
    first, again, other = (
        run(tmp_path / str(index), variant(seed=seed), pixels(10)) for index, seed in enumerate((0, 0, 1))
    )
    assert again == first
    assert all(a[1] != pytest.approx(b[1], rel=1e-4) for a, b in zip(first, other, strict=True))


@pytest.mark.quick
def test_shifts_know_height_from_width_and_differ_from_step_to_step(tmp_path: Path) -> None:
    """The only image has one white row, at the top, and the model is always black: the loss counts white pixels."""
    white = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    white[0, 0] = 255
    counts = []
    for seed in (0, 1):
        settings = variant(shift=1, optimizer="sgd", learning_rate=1e-30, batch_size=1, epochs=30, seed=seed)
        black = build_autoencoder(HEIGHT, WIDTH, settings)
        black.get_layer("decoder").get_layer("reconstruction").bias.assign(np.full(HEIGHT * WIDTH, -1e4))
        history = run(tmp_path / str(seed), settings, white.reshape(1, -1), black)
        counts.append([row.loss * HEIGHT * WIDTH for row in history])
        assert all(row.val_loss * HEIGHT * WIDTH == pytest.approx(WIDTH) for row in history)  # unmoved
    # the row as it is, a pixel of it moved out, or all of it
    assert {round(count, 3) for count in counts[0]} == {5, 4, 0}
    assert counts[0] != counts[1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, the only item; it stands still unless a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.quick
def test_a_log_has_a_line_at_once_and_one_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    """Between the first and the last, a line every ten seconds; epochs of one, but for the first, which compiles."""

    def second(*args: int) -> Any:
        clock[0] += 1 if args[1] > 1 else 60
        return epoch_order(*args)

    monkeypatch.setattr("stages.core.training.epoch_order", second)
    history = run(tmp_path, variant(epochs=25), pixels(4))
    out, err = capsys.readouterr()
    left = {1: "", 11: ", 14 s left", 21: ", 4 s left", 25: ", 0 s left"}
    assert out.splitlines() == [
        f"epoch {row.epoch} of 25: loss {row.loss:.5f}, val_loss {row.val_loss:.5f}{left[row.epoch]}"
        for row in history
        if row.epoch in left
    ]
    assert err == ""


@pytest.mark.quick
def test_a_log_of_quick_epochs_has_the_first_and_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    run(tmp_path, variant(epochs=7), pixels(4))
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1 of 7", "epoch 7 of 7"]


@pytest.mark.quick
def test_training_ends_when_the_loss_is_no_number(stage: Stage) -> None:
    """And leaves no model and no history."""
    ended = stage(optimizer="sgd", learning_rate=100.0, hidden_activation="exponential", epochs=50)
    assert ended.status == 1
    (error,) = ended.err.splitlines()
    assert re.search(r"the loss became (nan|inf).* in epoch \d+ of 50 at learning_rate 100", error)
    assert not Path("data/models/deep.keras").exists()
    assert not Path("data/history/deep.csv").exists()


@pytest.mark.quick
def test_the_error_of_a_training_that_diverged_knows_its_epoch(tmp_path: Path) -> None:
    settings = variant(optimizer="sgd", learning_rate=100.0, hidden_activation="exponential", epochs=50)
    with pytest.raises(DivergedError) as caught:
        run(tmp_path, settings, pixels(10))
    assert f"epoch {caught.value.epoch} of 50" in str(caught.value)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "found", "allowed"),
    [
        ({"batch_size": 31}, "batch_size is 31", "at most 30"),
        ({"latent_dim": 31}, "latent_dim is 31", "at most 30"),
        ({"layers": "conv", "hidden_units": [1] * 4}, "hidden_units has 4", "halved 3 times"),
    ],
    ids=lambda value: "",
)
def test_settings_that_do_not_suit_the_images(changes: dict[str, Any], found: str, allowed: str) -> None:
    with pytest.raises(ParamsError) as caught:
        check_fit("models.x", variant(**changes), 30, HEIGHT, WIDTH)
    assert f"models.x.{found}" in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.quick
def test_settings_at_their_limits_suit() -> None:
    largest = {"batch_size": 30, "latent_dim": 30, "layers": "conv", "hidden_units": [1] * 3}
    check_fit("models.x", variant(**largest), 30, HEIGHT, WIDTH)
