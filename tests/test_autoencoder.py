"""The builder and the model file."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stages.autoencoder import build_autoencoder, keras_bytes, load_autoencoder
from stages.errors import StageError
from stages.params import read_params
from tests.conftest import ROOT

DEFAULTS = read_params(ROOT / "params.yaml").models["deep"]
HIDDEN: dict[str, list[int]] = {"shallow": [], "deep": [500, 300, 100]}


def build(hidden_units: list[int], **changes: Any) -> keras.Model:
    return build_autoencoder(28, 28, DEFAULTS.model_copy(update={"hidden_units": hidden_units} | changes))


@pytest.mark.parametrize(("name", "parameters"), [("shallow", 25_888), ("deep", 1_149_800)])
def test_parameter_counts_of_the_defaults(name: str, parameters: int) -> None:
    assert build(HIDDEN[name]).count_params() == parameters


def test_encoder_decoder_and_autoencoder_are_models() -> None:
    model = build([30, 20], latent_dim=7)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    units = [
        [layer.units for layer in part.layers if isinstance(layer, keras.layers.Dense)] for part in (encoder, decoder)
    ]
    assert units == [[30, 20, 7], [20, 30, 784]]  # the decoder mirrors the encoder
    images = np.random.default_rng(0).random((3, 784), np.float32)
    codes = encoder(images)
    assert codes.shape == (3, 7)
    np.testing.assert_array_equal(model(images), decoder(codes))
    assert np.min(model(images)) >= 0
    assert np.max(model(images)) <= 1


@pytest.mark.parametrize(("height", "width", "blocks"), [(28, 28, 3), (9, 14, 2), (5, 1, 4)])
def test_a_convolutional_model_gives_every_size_back(tmp_path: Path, height: int, width: int, blocks: int) -> None:
    """Sizes that halving rounds up, too; as a file that plain Keras loads."""
    settings = DEFAULTS.model_copy(update={"layers": "conv", "hidden_units": [3, 4, 5, 6][:blocks], "latent_dim": 7})
    model = build_autoencoder(height, width, settings)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    filters = [layer.filters for layer in encoder.layers if isinstance(layer, keras.layers.Conv2D)]
    assert filters == settings.hidden_units
    mirrored = [layer.filters for layer in decoder.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    assert mirrored == [*filters[-2::-1], 1]
    images = np.random.default_rng(0).random((3, height * width), np.float32)
    assert encoder(images).shape == (3, 7)
    assert model(images).shape == images.shape
    path = tmp_path / "model.keras"
    path.write_bytes(keras_bytes(model))
    np.testing.assert_allclose(keras.saving.load_model(path)(images), model(images), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "kind", "count"),
    [
        ({"noise": 0.1}, keras.layers.GaussianNoise, 1),
        ({"dropout": 0.1}, keras.layers.Dropout, 4),
        ({"normalization": "batch"}, keras.layers.BatchNormalization, 4),
        ({"normalization": "layer"}, keras.layers.LayerNormalization, 4),
    ],
)
def test_settings_become_layers(changes: dict[str, Any], kind: type, count: int) -> None:
    def layers(model: keras.Model) -> list[Any]:
        return [layer for half in ("encoder", "decoder") for layer in model.get_layer(half).layers]

    assert sum(isinstance(layer, kind) for layer in layers(build([30, 20], **changes))) == count
    assert not any(isinstance(layer, kind) for layer in layers(build([30, 20])))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_weights_and_images_in_float32(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(keras_bytes(build([30], precision=precision)))
    model = load_autoencoder(path)
    images = np.random.default_rng(0).random((3, 784), np.float32)
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    assert keras.backend.standardize_dtype(model.get_layer("encoder")(images).dtype) == precision.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(model(images).dtype) == "float32"
    np.testing.assert_allclose(model(images), build([30])(images), atol=0.02)


def test_weights_depend_on_the_seed_alone() -> None:
    first, again, other = build([30]), build([30]), build([30], seed=1)
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.get_weights()[0] != other.get_weights()[0]).any()
    assert keras_bytes(first) == keras_bytes(again)
    assert keras_bytes(first) != keras_bytes(other)


def test_the_file_opens_in_plain_keras(tmp_path: Path) -> None:
    model = build([30])
    path = tmp_path / "model.keras"
    path.write_bytes(keras_bytes(model))
    images = np.random.default_rng(0).random((3, 784), np.float32)
    np.save(tmp_path / "images.npy", images)
    code = "import keras, numpy as np; m = keras.saving.load_model('model.keras'); "
    code += "assert [l.name for l in m.layers] == ['image', 'encoder', 'decoder']; "
    code += "np.save('out.npy', m(np.load('images.npy')))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model(images), atol=1e-6)
    for a, b in zip(model.get_weights(), load_autoencoder(path).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def rewrite(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {n: archive.read(n) for n in archive.namelist()} | {name: content}
    with zipfile.ZipFile(path, "w") as archive:
        for n, c in files.items():
            archive.writestr(n, c)


def test_broken_model_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with pytest.raises(StageError, match="is missing"):
        load_autoencoder(path)
    whole = keras_bytes(build([]))
    for content in (b"", b"PK", whole[:-100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(StageError, match=r"model\.keras is not a whole autoencoder"):
            load_autoencoder(path)
    path.write_bytes(whole)
    rewrite(path, "model.weights.h5", b"not HDF5")
    with pytest.raises(StageError, match="is not a whole autoencoder"):
        load_autoencoder(path)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]).save(path)
    with pytest.raises(StageError, match="is not a whole autoencoder"):
        load_autoencoder(path)


def test_code_in_a_model_file_does_not_run(tmp_path: Path) -> None:
    """A Lambda layer carries bytecode; safe mode refuses it."""
    path, trap = tmp_path / "model.keras", tmp_path / "sprung"
    name = str(trap)  # a closure may hold text, not a Path
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Lambda(lambda x: (open(name, "w"), x)[1])(image)).save(path)  # noqa: SIM115
    trap.unlink()  # building the model ran it once
    with zipfile.ZipFile(path) as archive:
        assert "Lambda" in json.dumps(json.loads(archive.read("config.json")))
    with pytest.raises(StageError, match="is not a whole autoencoder"):
        load_autoencoder(path)
    assert not trap.exists()
