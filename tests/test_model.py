"""The builder, the model file, and applying a model."""

import json
import math
import subprocess
import sys
import zipfile
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from stages.core.archive import keras_bytes
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import tf
from stages.core.errors import StageError
from stages.core.inference import compile_model, load_autoencoder
from stages.core.measures import squared_error
from stages.core.optimizer import build_optimizer
from stages.core.params import read_params
from stages.core.products import portable
from stages.core.schema import Activation, Model, Params
from stages.tools.refinement import RATE, refine_codes
from tests.conftest import ROOT, TUTORIAL

MODELS = read_params(Params, ROOT / "params.yaml").models
DEFAULTS = MODELS["deep"].model_copy(update=TUTORIAL)


def build(hidden_units: list[int], **changes: Any) -> keras.Model:
    return build_autoencoder(28, 28, DEFAULTS.model_copy(update={"hidden_units": hidden_units} | changes))


@pytest.mark.parametrize(("height", "width", "blocks"), [(28, 28, 3), (9, 14, 2), (5, 1, 4)])
@pytest.mark.quick
def test_a_convolutional_model_reconstructs_every_size(height: int, width: int, blocks: int) -> None:
    """Sizes that halving rounds up, too."""
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


@pytest.mark.quick
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


@pytest.mark.quick
def test_weights_depend_on_the_seed_alone() -> None:
    first, again, other = build([30]), build([30]), build([30], seed=1)
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.get_weights()[0] != other.get_weights()[0]).any()


KINDS: list[dict[str, Any]] = [
    {"normalization": "layer", "dropout": 0.1},
    {"kl_weight": 1.0, "hidden_units": []},
    {"layers": "conv", "hidden_units": [3], "kl_weight": 1.0, "normalization": "batch"},
    {"precision": "mixed_bfloat16"},
]


def test_the_files_open_in_a_keras_that_knows_nothing_of_this_project(tmp_path: Path) -> None:
    models = [build_autoencoder(5, 6, DEFAULTS.model_copy(update={"hidden_units": [8]} | changes)) for changes in KINDS]
    images = np.random.default_rng(0).random((3, 30), np.float32)
    for number, model in enumerate(models):
        (tmp_path / f"{number}.keras").write_bytes(keras_bytes(model))
    np.save(tmp_path / "images.npy", images)
    code = """
import sys, keras, numpy as np
images = np.load("images.npy")
for number in range(4):
    model = keras.saving.load_model(f"{number}.keras", safe_mode=True)
    assert [layer.name for layer in model.layers] == ["image", "encoder", "decoder"]
    codes = model.get_layer("encoder")(images)
    outputs = [model(images), *(codes if isinstance(codes, list) else [codes])]
    np.savez(f"{number}.npz", *(np.asarray(output).astype(np.float32) for output in outputs))
assert not [name for name in sys.modules if name.split(".")[0] == "stages"]
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    for number, model in enumerate(models):
        codes = model.get_layer("encoder")(images)
        expected = [model(images), *(codes if isinstance(codes, list) else [codes])]
        tolerance = 1e-2 if number == 3 else 1e-5
        with np.load(tmp_path / f"{number}.npz") as found:
            for output, name in zip(expected, found, strict=True):
                np.testing.assert_allclose(found[name], np.asarray(output).astype(np.float32), atol=tolerance)
        for a, b in zip(model.get_weights(), load_autoencoder(tmp_path / f"{number}.keras").get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.quick
@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_the_file_does_not_record_when_or_where_it_was_written(changes: dict[str, Any]) -> None:
    """Keras puts the time and memory addresses in its own."""
    settings = DEFAULTS.model_copy(update={"hidden_units": [8]} | changes)
    first = keras_bytes(build_autoencoder(5, 6, settings))
    keras.layers.Dense(3)  # moves the addresses of what comes after it
    assert keras_bytes(build_autoencoder(5, 6, settings)) == first
    with zipfile.ZipFile(BytesIO(first)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert "date_saved" not in json.loads(archive.read("metadata.json"))
        assert b"shared_object_id" not in archive.read("config.json")


def rewrite(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {n: archive.read(n) for n in archive.namelist()} | {name: content}
    with zipfile.ZipFile(path, "w") as archive:
        for n, c in files.items():
            archive.writestr(n, c)


@pytest.mark.quick
def test_broken_model_files_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with pytest.raises(StageError, match="is missing"):
        load_autoencoder(path)
    whole = keras_bytes(build([]))
    for content in (b"", b"PK", whole[:-100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(StageError, match=r"cannot load .*model\.keras as an autoencoder"):
            load_autoencoder(path)
    path.write_bytes(whole)
    rewrite(path, "model.weights.h5", b"not HDF5")
    with pytest.raises(StageError, match="as an autoencoder"):
        load_autoencoder(path)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]).save(path)
    with pytest.raises(StageError, match="as an autoencoder"):
        load_autoencoder(path)


@pytest.mark.quick
def test_code_in_a_model_file_does_not_run(tmp_path: Path) -> None:
    """A Lambda layer carries bytecode; safe mode refuses it."""
    path, trap = tmp_path / "model.keras", tmp_path / "sprung"
    name = str(trap)  # a closure may hold text, not a Path
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Lambda(lambda x: (open(name, "w"), x)[1])(image)).save(path)  # noqa: SIM115
    trap.unlink()  # building the model ran it once
    with zipfile.ZipFile(path) as archive:
        assert "Lambda" in json.dumps(json.loads(archive.read("config.json")))
    with pytest.raises(StageError, match="as an autoencoder"):
        load_autoencoder(path)
    assert not trap.exists()


def edges() -> list[tuple[str, Any]]:
    """The smallest and the largest number of every setting that is one."""
    found: list[tuple[str, Any]] = []
    for key, schema in Model.model_json_schema()["properties"].items():
        values = [schema.get("minimum"), schema.get("maximum")]
        if "exclusiveMinimum" in schema:
            values.append(math.nextafter(schema["exclusiveMinimum"], 1))
        if "exclusiveMaximum" in schema:
            top = schema["exclusiveMaximum"]
            values.append(top - 1 if schema["type"] == "integer" else math.nextafter(top, 0))
        found += [(key, value) for value in values if value is not None]
    return found


@pytest.mark.quick
def test_every_number_that_is_accepted_makes_a_model_and_its_optimizer() -> None:
    """Keras has limits of its own, which would end in a traceback."""
    cosine: dict[str, Any] = {"schedule": "cosine", "epochs": 100_000}
    variational: dict[str, Any] = {"kl_weight": 1.0, "epochs": 100_000}
    companions = {"warmup_epochs": cosine, "early_stopping": cosine, "kl_warmup_epochs": variational}
    refused = []
    for key, value in edges():
        changes = {"hidden_units": [5], "latent_dim": 4} | companions.get(key, {}) | {key: value}
        try:
            settings = Model.model_validate(DEFAULTS.model_dump() | changes)
        except ValidationError:
            assert key in companions  # alone with a number of epochs above all that are possible
            continue
        try:
            model = build_autoencoder(3, 4, settings)
            model(np.zeros((2, 12), np.float32), training=True)
            build_optimizer(settings, steps_per_epoch=2)
        except Exception as error:
            refused.append((key, value, str(error)))
    assert refused == []


# --- what the layers do ----------------------------------------------------------------------


def identity(**changes: Any) -> keras.Model:
    """The encoder of a model 36-36-36 whose weights hand the image through, so that it shows what else happens."""
    settings = {"latent_dim": 36, "hidden_activation": "linear", "latent_activation": "linear"}
    encoder = build_autoencoder(6, 6, DEFAULTS.model_copy(update={"hidden_units": [36]} | settings | changes))
    half = encoder.get_layer("encoder")
    for layer in half.layers:
        if isinstance(layer, keras.layers.Dense):
            layer.set_weights([np.eye(36), np.zeros(36)])
    return half


@pytest.mark.quick
@pytest.mark.parametrize("name", get_args(Activation))
def test_every_activation_is_the_one_that_is_named(name: str) -> None:
    """In the hidden layers of both halves and of the code, on values at which all differ, but for elu and celu."""
    values = np.linspace(-8, 8, 36, dtype=np.float32)[None]
    expected = np.asarray(keras.activations.get(name)(values))
    np.testing.assert_allclose(identity(hidden_activation=name)(values), expected, atol=1e-6)
    np.testing.assert_allclose(identity(latent_activation=name)(values), expected, atol=1e-6)
    others = [other for other in get_args(Activation) if other != name and {other, name} != {"celu", "elu"}]
    assert all(not np.allclose(expected, keras.activations.get(other)(values), atol=1e-3) for other in others)

    decoder = build([36], latent_dim=36, hidden_activation=name).get_layer("decoder")
    kernel, bias = decoder.get_layer("reconstruction").get_weights()
    decoder.get_layer("hidden_1").set_weights([np.eye(36), np.zeros(36)])
    logits = expected @ kernel + bias
    np.testing.assert_allclose(decoder(values), (1 + np.tanh(logits / 2)) / 2, atol=1e-5)


@pytest.mark.quick
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_dropout_zeroes_its_share_and_scales_the_rest(share: float) -> None:
    """In the file, and as it is trained."""
    ones = np.ones((400, 36), np.float32)
    encoder = identity(dropout=share)
    for computed in (encoder, portable(encoder)):
        train = tf.function(partial(computed, training=True), jit_compile=True)
        first, second = (train(ones).numpy() for _ in range(2))
        assert (first == 0).mean() == pytest.approx(share, abs=0.02)
        np.testing.assert_allclose(first[first != 0], 1 / (1 - share), rtol=1e-5)
        assert (first != second).any()  # new at every step
        np.testing.assert_array_equal(computed(ones, training=False), ones)


@pytest.mark.quick
def test_dropout_layers_of_equal_size_drop_different_outputs() -> None:
    model = build([36], latent_dim=36, dropout=0.5)
    ones = np.ones((1, 36), np.float32)
    encoder, decoder = (portable(model.get_layer(half)).get_layer("dropout_1") for half in ("encoder", "decoder"))
    compute = tf.function(lambda: (encoder(ones, training=True), decoder(ones, training=True)), jit_compile=True)
    encoded, decoded = compute()
    assert (encoded.numpy() != decoded.numpy()).any()


@pytest.mark.quick
@pytest.mark.parametrize("changes", [{}, {"layers": "conv", "hidden_units": [3]}], ids=str)
def test_a_compiled_model_is_the_model_whatever_the_batches(changes: dict[str, Any]) -> None:
    """No images, fewer than a batch, whole batches and a rest."""
    model = build_autoencoder(5, 6, DEFAULTS.model_copy(update={"hidden_units": [], "latent_dim": 3} | changes))
    images = np.random.default_rng(0).random((7, 30))
    expected = model.predict(images, verbose=0)
    for batch_size in (3, 9):
        apply = compile_model(model, batch_size)
        for count in (0, 3, 7):
            found = apply(images[:count])
            assert found.dtype == np.float32
            assert found.shape == (count, 30)
            np.testing.assert_allclose(found, expected[:count], atol=1e-6)


@pytest.mark.quick
def test_a_compiled_encoder_with_two_outputs_has_a_row_for_each() -> None:
    encoder = build([5], latent_dim=3, kl_weight=1.0).get_layer("encoder")
    images = np.random.default_rng(0).random((7, 784))
    found = compile_model(encoder, 4)(images)
    assert found.shape == (7, 2, 3)
    np.testing.assert_allclose(found, np.stack(encoder(images), axis=1), atol=1e-6)


# --- refining codes ------------------------------------------------------------------------------


@pytest.mark.quick
def test_a_refined_code_is_a_step_along_the_gradient(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Where that step lowers the error, by the derivative of a sigmoid layer; elsewhere the code stays."""
    decoder = build([]).get_layer("decoder")
    kernel, bias = decoder.layers[-1].get_weights()
    kernel *= 9
    decoder.layers[-1].set_weights([kernel, bias])

    def decode(codes: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = 1 / (1 + np.exp(-(codes.astype(np.float64) @ kernel + bias)))
        return outputs

    codes = np.random.default_rng(0).normal(0, 0.1, (50, 16)).astype(np.float32)
    images = np.divide(mnist["train"][0][:50].reshape(50, 784), 255, dtype=np.float32)
    images[:25] = decode(codes[:25] + 0.05)  # so near that the step is too long
    outputs = decode(codes)
    moved = codes - RATE * (2 * (outputs - images) * outputs * (1 - outputs)) @ kernel.T
    better = squared_error(images, decode(moved)) < squared_error(images, outputs)
    assert better.tolist() == [False] * 25 + [True] * 25
    expected = np.where(better[:, None], moved, codes)
    np.testing.assert_allclose(refine_codes(decoder, images, codes, steps=1), expected, atol=1e-4)


@pytest.mark.quick
def test_more_steps_lower_the_error_and_raise_that_of_no_image(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    images = np.divide(mnist["train"][0][:50].reshape(50, 784), 255, dtype=np.float32)
    model = build([32, 16])
    codes = model.get_layer("encoder").predict(images, verbose=0)
    decoder = model.get_layer("decoder")
    refined = [refine_codes(decoder, images, codes, steps) for steps in (0, 1, 10)]
    assert {str(some.dtype) for some in refined} == {"float32"}
    np.testing.assert_array_equal(refined[0], codes)
    before, once, often = (squared_error(images, decoder.predict(some, verbose=0)) for some in refined)
    assert (often <= once).all()
    assert (once <= before).all()
    assert often.mean() < once.mean() < before.mean()
