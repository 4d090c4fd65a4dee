"""Evaluations small enough to work out by hand, and a command called in this process."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from stages.analysis.evaluation import Digits, Evaluation, Result
from stages.analysis.pictures import DIMENSIONS, EXTREMES, SAMPLES, STEPS, UNUSUAL
from stages.common.errors import run

HEIGHT, WIDTH = 2, 3


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def call_main(
    main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> Ended:
    """Call a stage or tool as its command line would, but in this process."""
    monkeypatch.setattr("sys.argv", ["x", *map(str, arguments)])
    monkeypatch.setattr("signal.signal", lambda number, handler: None)  # the handler would outlive the test
    capsys.readouterr()
    status = 0
    try:
        run(main)
    except SystemExit as end:
        status = int(end.code or 0)
    return Ended(status, *capsys.readouterr())


def result(errors: list[float], latent_dim: int = 2, seed: int = 0, classes: int = 2, **values: Any) -> Result:
    """A result with these squared errors of the test images; its pictures are noise, its numbers all differ."""
    random = np.random.default_rng(seed)

    def pictures(*shape: int) -> Any:
        return random.random((*shape, HEIGHT, WIDTH)).astype(np.float32)

    squared = np.array(errors, np.float64)
    defaults: dict[str, Any] = {
        "latent_dim": latent_dim,
        "parameters": 1234 + seed,
        "mse": float(squared.mean() / (HEIGHT * WIDTH)),
        "mse_train": 0.011 + seed,
        "mse_validation": 0.022 + seed,
        "psnr": 12.34567 + seed,
        "ssim": 0.333 + seed,
        "bce": 0.444 + seed,
        "probe": 0.555 + seed,
        "generation": 0.666 + seed,
        "active_dimensions": 7 + seed,
        "squared_error": squared,
        "distance": random.random(len(errors)),
        "codes": random.normal(size=(len(errors), latent_dim)).astype(np.float32),
        "reconstructions": pictures(classes),
        "extremes": random.integers(0, len(errors), (3, EXTREMES)),
        "extreme_images": pictures(3, EXTREMES),
        "extreme_reconstructions": pictures(3, EXTREMES),
        "interpolations": pictures(classes // 2, STEPS),
        "traversals": pictures(min(latent_dim, DIMENSIONS), STEPS),
        "samples": pictures(classes, SAMPLES),
        "weights": pictures(min(latent_dim, DIMENSIONS)) - np.float32(0.5),
        "unusual": random.integers(0, len(errors), (2, UNUSUAL)),
        "unusual_images": pictures(2, UNUSUAL),
    }
    return Result(**defaults | values)


def digits(labels: list[int], seed: int = 99) -> Digits:
    """Test digits with these labels."""
    classes, shown = np.unique(np.array(labels, np.uint8), return_index=True)
    images = np.random.default_rng(seed).random((len(classes), HEIGHT, WIDTH)).astype(np.float32)
    return Digits(np.array(labels, np.uint8), classes, shown, images)


def evaluation(model: Result, pca: Result, labels: list[int], **values: Any) -> Evaluation:
    defaults: dict[str, Any] = {
        "mse_mean_image": 0.0678,
        "probe_pixels": 0.8765,
        "loss": np.array([0.5, 0.4]),
        "val_loss": np.array([0.6, 0.3]),
        "pca_mean": np.full(HEIGHT * WIDTH, 0.25),
        "pca_components": np.eye(HEIGHT * WIDTH)[: pca.latent_dim],
    }
    return Evaluation(digits=digits(labels), model=model, pca=pca, **defaults | values)
