"""Digests of a tiny training and of its evaluation: python -m tests.portable

Run on real and on emulated processors, they show whether the bytes depend on the processor.
"""

import hashlib
import sys
from collections.abc import Iterable

import numpy as np

from stages.core.autoencoder import build_autoencoder
from stages.core.backend import use_all_cores
from stages.core.idx import read_idx
from stages.core.inference import compile_model
from stages.core.linear import code_moments, fit_pca, image_moments
from stages.core.measures import bce, squared_error, ssim
from stages.core.params import read_params
from stages.core.schema import Params
from stages.core.training import build_training, resident, train
from tests.conftest import RAW, ROOT

KINDS: dict[str, dict[str, object]] = {
    "dense": {"hidden_units": [12], "latent_dim": 4},
    "shallow": {"hidden_units": [], "normalization": "none", "optimizer": "muon", "learning_rate": 0.01},
    "conv": {"layers": "conv", "hidden_units": [8], "latent_dim": 12},
    "variational": {"hidden_units": [12], "latent_dim": 4, "kl_weight": 1.0, "noise": 0.2, "dropout": 0.1, "shift": 1},
    "batch": {"hidden_units": [12], "latent_dim": 4, "normalization": "batch", "noise": 0.2, "code_l1": 0.001},
    "mixed": {"hidden_units": [12], "loss": "mse", "optimizer": "lion", "precision": "mixed_bfloat16"},
    "wide": {"layers": "conv", "hidden_units": [16], "normalization": "batch", "kl_weight": 1.0, "optimizer": "muon"}
    | {"batch_size": 100},
    "deep": {"batch_size": 128},
}


def digest(arrays: Iterable[object]) -> str:
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(content).hexdigest()[:12]


def main() -> None:
    use_all_cores()
    raw = read_idx(RAW / "train-images-idx3-ubyte.gz", 3)[:128].reshape(128, -1)
    defaults = read_params(Params, ROOT / "params.yaml").models["deep"]
    for kind in sys.argv[1:] or KINDS:
        settings = defaults.model_copy(update={"batch_size": 32, "epochs": 1, "warmup_epochs": 0.5} | KINDS[kind])
        model = build_autoencoder(28, 28, settings)
        history = train(build_training(model, settings, len(raw), (28, 28)), resident(raw), resident(raw))
        print(kind, "trained", digest([*model.get_weights(), history]), flush=True)
        images = raw / np.float32(255)
        decoded = compile_model(model, 64)(images)
        pca = fit_pca(image_moments(raw), 4)
        linear = pca.decode(pca.encode(images))
        pictures = (array.reshape(-1, 28, 28) for array in (images, decoded))
        measures = [
            squared_error(images, decoded),
            bce(images, decoded),
            ssim(*pictures),
            squared_error(images, linear),
        ]
        print(kind, "measured", digest([*measures, *code_moments(linear)]), flush=True)


if __name__ == "__main__":
    main()
