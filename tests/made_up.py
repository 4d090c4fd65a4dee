"""Evaluations small enough to work out by hand, and a command called in this process."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from stages.applications.denoising import Classical, Denoised
from stages.core.errors import run
from stages.core.evaluation import BASELINE, MODEL, REFERENCE, Digits, Evaluation, Pictures, Result
from stages.core.shown import DIMENSIONS, SAMPLES, STEPS

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
        "kind": MODEL,
        "name": "made up",
        "latent_dim": latent_dim,
        "parameters": 1234 + seed,
        "mse": float(squared.mean() / (HEIGHT * WIDTH)),
        "mse_train": 0.011 + seed,
        "mse_validation": 0.022 + seed,
        "psnr": 12.34567 + seed,
        "ssim": 0.333 + seed,
        "bce": 0.444 + seed,
        "probe": 0.555 + seed,
        "active_dimensions": 7 + seed,
        "kl": np.zeros(0),
        "nll": np.zeros(0),
        "squared_error": squared,
        "codes": random.normal(size=(len(errors), latent_dim)).astype(np.float32),
        "code_mean": np.zeros(latent_dim),
        "code_covariance": np.eye(latent_dim),
        "reconstructions": random.integers(0, 256, (len(errors), HEIGHT, WIDTH), np.uint8),
        "pictures": Pictures(
            interpolations=pictures(classes // 2, STEPS),
            traversals=pictures(min(latent_dim, DIMENSIONS), STEPS),
            samples=pictures(classes, SAMPLES),
        ),
    }
    return Result(**defaults | values)


def digits(labels: list[int], seed: int = 99, trained: list[int] | None = None) -> Digits:
    """Test digits with these labels; `trained` are the classes in training, all by default."""
    classes, shown = np.unique(np.array(labels, np.uint8), return_index=True)
    images = np.random.default_rng(seed).random((len(classes), HEIGHT, WIDTH)).astype(np.float32)
    known = classes if trained is None else np.array(trained, np.uint8)
    return Digits(np.array(labels, np.uint8), known, shown, images)


def denoised(*levels: list[float], seed: int = 0, kind: str = REFERENCE, name: str = "made up") -> Denoised:
    """Denoised images with these squared errors at each noise; their similarities are 1 less a tenth of them."""
    errors = np.array(levels, np.float64)
    pictures = np.random.default_rng(seed).random((len(levels), len(levels[0]), HEIGHT, WIDTH)).astype(np.float32)
    return Denoised(kind, name, errors, 1 - errors / 10, pictures)


def classical(*levels: list[float]) -> Classical:
    levels = levels or ([1, 2, 3], [4, 5, 6])
    return Classical(
        noise=np.array([0.2, 0.5, 0.7][: len(levels)]),
        seed=0,
        images=np.random.default_rng(5).random((len(levels[0]), HEIGHT, WIDTH)).astype(np.float32),
        settings=np.array([["a", "b", "g"], ["c", "d", "h"]])[:, : len(levels)],
        methods=[denoised(*levels, seed=n, name=name) for n, name in enumerate(("noisy image", "one", "two"))],
    )


def evaluation(model: Result, pca: Result, labels: list[int], **values: Any) -> Evaluation:
    """An evaluation of a model and of PCA, unless the model is overcomplete."""
    defaults: dict[str, Any] = {
        "mse_mean_image": 0.0678,
        "probe_pixels": 0.8765,
        "loss": np.array([0.5, 0.4]),
        "val_loss": np.array([0.6, 0.3]),
        "kl": np.zeros(2),
        "val_kl": np.zeros(2),
        "pca_mean": np.full(HEIGHT * WIDTH, 0.25),
        "pca_components": np.eye(HEIGHT * WIDTH)[: pca.latent_dim],
        "digits": digits(labels),
        "baselines": [replace(pca, kind=BASELINE, name=f"PCA ({pca.latent_dim})")]
        if model.latent_dim < HEIGHT * WIDTH
        else [],
    }
    return Evaluation(model=model, **defaults | values)
