"""What the train stage makes of its settings and of the prepared images."""

import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from stages.core.images import epoch_order, resident
from stages.core.replicas import ONE

from stages import train
from stages.core import training as loop
from stages.core.autoencoder import build_autoencoder
from stages.core.checkpoint import History
from stages.core.errors import ParamsError, StageError
from stages.core.files import images_path
from stages.core.optimizer import build_optimizer
from stages.core.params import Choice, choose_model, read_params
from stages.core.schema import Model, Params
from tests.conftest import ROOT, TUTORIAL

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
    placed = resident(images)
    training = loop.build_training(model, settings, len(placed), (HEIGHT, WIDTH))
    return loop.train("models.x", training, settings, placed, placed, folder / "checkpoint.npz")


def variant(**changes: Any) -> Model:
    return SETTINGS.model_copy(update=changes)


@pytest.mark.quick
def test_the_last_val_loss_is_keras_loss_on_the_validation_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 30), ("validation", 11)):
        images_path(split).parent.mkdir(parents=True, exist_ok=True)
        np.save(images_path(split), pixels(count, seed=count).reshape(count, HEIGHT, WIDTH))
    choice = choose_model(PARAMS, "deep")
    train.train_and_write(
        Choice(choice.name, choice.key, variant(loss="binary_crossentropy"), choice.files), (HEIGHT, WIDTH), ONE
    )

    history = pd.read_csv("data/history/deep.csv")
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
def test_a_cosine_ends_with_the_last_step_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 images in batches of 4 are 3 steps an epoch: after 2 epochs of warm-up, the wave has 9 steps."""
    made: list[keras.Optimizer] = []

    def build(*args: Any, **named: Any) -> keras.Optimizer:
        made.append(build_optimizer(*args, **named))
        return made[0]

    monkeypatch.setattr("stages.core.training.build_optimizer", build)
    run(tmp_path, variant(schedule="cosine", warmup_epochs=2, epochs=5, learning_rate=0.06), pixels(10))
    assert int(made[0].iterations) == 15

    def rate(step: int) -> float:
        made[0].iterations.assign(step)
        return float(made[0].learning_rate)

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
    theirs.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.6), "mse")
    x = images.astype(np.float32) / 255
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=False)
    expected = theirs.fit(
        x, x, batch_size=4, epochs=3, shuffle=False, validation_data=(x, x), callbacks=[swap], verbose=0
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
    image = keras.Input((HEIGHT * WIDTH,))
    white = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    white[0, 0] = 255
    counts = []
    for seed in (0, 1):
        black = keras.Model(image, keras.layers.Dense(HEIGHT * WIDTH, kernel_initializer="zeros")(image))
        settings = variant(shift=1, optimizer="sgd", learning_rate=1e-30, batch_size=1, epochs=30, seed=seed)
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
def test_training_ends_when_the_loss_is_no_number(tmp_path: Path) -> None:
    settings = variant(optimizer="sgd", learning_rate=100.0, hidden_activation="exponential", epochs=50)
    with pytest.raises(StageError, match=r"models\.x: the loss became .* of 50 at learning_rate 100, so no model was"):
        run(tmp_path, settings, pixels(10))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "replicas", "sentence"),
    [
        ({"batch_size": 31}, 1, "batch_size is 31, but has to be at most 30, the number of training images."),
        ({"latent_dim": 31}, 1, "latent_dim is 31, but has to be at most 30, the number of training images."),
        (
            {"layers": "conv", "hidden_units": [1] * 4},
            1,
            "hidden_units has 4 convolutional layers, but images of 3×5 can be halved 3 times.",
        ),
        (
            {"normalization": "batch"},
            2,
            "normalization is batch, but each of several replicas sees only its share of a batch; it has to be none "
            "or layer.",
        ),
        (
            {"precision": "mixed_float16"},
            2,
            "precision is mixed_float16, but several replicas need float32 or mixed_bfloat16.",
        ),
    ],
    ids=lambda value: "",
)
def test_settings_that_do_not_suit_the_images_or_the_replicas(
    changes: dict[str, Any], replicas: int, sentence: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        train.check_fit("models.x", variant(**changes), 30, (HEIGHT, WIDTH), replicas)
    assert str(caught.value) == f"params.yaml: models.x.{sentence}"


@pytest.mark.quick
def test_settings_at_their_limits_suit(tmp_path: Path) -> None:
    """And one replica may do what several cannot."""
    largest = {"batch_size": 30, "latent_dim": 30, "layers": "conv", "hidden_units": [1] * 3, "normalization": "batch"}
    train.check_fit("models.x", variant(**largest, precision="mixed_float16"), 30, (HEIGHT, WIDTH), 1)
    train.check_fit("models.x", variant(normalization="layer", precision="mixed_bfloat16"), 30, (HEIGHT, WIDTH), 2)
