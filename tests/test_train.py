"""What the train stage makes of its settings and of the prepared images."""

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
from stages.core.checkpoint import Epoch
from stages.core.errors import ParamsError
from stages.core.files import images_path
from stages.core.params import check_fit, read_params
from stages.core.progress import reporting
from stages.core.schema import Model, Params
from stages.core.training import build_training, resident
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
def test_early_stopping_is_reported(stage: Stage) -> None:
    ended = stage(early_stopping=1, learning_rate=60.0, loss="mae", epochs=40)
    history = pd.read_csv("data/history/deep.csv")
    assert len(history) < 40
    (line,) = [line for line in ended.out.splitlines() if "best val_loss" in line]
    assert f"epoch {len(history)}:" in line
    assert f"{history['val_loss'].min():.5f}" in line
    assert line.endswith(f"epoch {history['val_loss'].to_numpy().argmin() + 1}")


@pytest.mark.parametrize("early_stopping", [0, 2])
def test_averaged_weights_are_those_of_fit(monkeypatch: pytest.MonkeyPatch, early_stopping: int) -> None:
    """They are validated and become the model; training itself goes on with the others."""
    monkeypatch.setattr("stages.core.training.epoch_order", lambda seed, epoch, count: np.arange(count, dtype=np.int32))
    settings, images = variant(ema_momentum=0.6, early_stopping=early_stopping), pixels(10)
    ours, theirs = (build_autoencoder(HEIGHT, WIDTH, settings) for _ in range(2))
    training = build_training(ours, settings, len(images), (HEIGHT, WIDTH))
    history = loop.train(training, resident(images), resident(images))
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


@pytest.mark.quick
def test_a_log_has_a_line_at_once_every_ten_seconds_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Epochs take a second, except the first, which compiles. If instant, only the first and last get a line."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for seconds, left in (
        (1, {1: "", 11: ", 14 s left", 21: ", 4 s left", 25: ", 0 s left"}),
        (0, {1: "", 25: ", 0 s left"}),
    ):
        with reporting(25, 0) as report:
            for epoch in range(1, 26):
                now[0] += 60 if epoch == 1 else seconds
                report(Epoch(epoch, epoch / 3, epoch / 7, 0.0, 0.0))
        out, err = capsys.readouterr()
        assert out.splitlines() == [
            f"epoch {epoch} of 25: loss {epoch / 3:.5f}, val_loss {epoch / 7:.5f}{text}" for epoch, text in left.items()
        ]
        assert err == ""


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
def test_settings_have_to_suit_the_images() -> None:
    """Up to their limits they do."""
    largest: dict[str, Any] = {"batch_size": 30, "latent_dim": 30, "layers": "conv", "hidden_units": [1] * 3}
    check_fit("models.x", variant(**largest), 30, HEIGHT, WIDTH)
    with pytest.raises(ParamsError) as caught:
        check_fit("models.x", variant(batch_size=31, latent_dim=31, layers="conv", hidden_units=[1] * 4), 30, 3, 5)
    rest = "but has to be at most 30, the number of training images."
    assert str(caught.value).splitlines() == [
        f"params.yaml: models.x.batch_size is 31, {rest}",
        f"params.yaml: models.x.latent_dim is 31, {rest}",
        "params.yaml: models.x.hidden_units has 4 convolutional layers, but images of 3×5 can be halved 3 times.",
    ]
