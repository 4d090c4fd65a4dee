"""One way to multiply: the convolutions and gradients of Keras, and the same bytes on any number of threads."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.backend import tf
from stages.core.products import PatchProduct, portable, portable_gradients
from tests.conftest import ROOT, environment

layers = keras.layers
HALVING = {"kernel_size": 3, "strides": 2, "padding": "same"}


@pytest.mark.quick
@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from([layers.Conv2D, layers.Conv2DTranspose]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 3),
    filters=st.integers(1, 3),
)
def test_a_product_of_patches_is_the_convolution(
    kind: type[keras.Layer], height: int, width: int, channels: int, filters: int
) -> None:
    """In value, and in the gradients of the image, the kernel and the bias."""
    convolution = kind(filters, **HALVING, activation="tanh")
    random = np.random.default_rng(0)
    maps = tf.constant(random.normal(size=(2, height, width, channels)), tf.float32)
    convolution.build(maps.shape)
    for weights in convolution.weights:
        weights.assign(random.normal(0, 0.3, weights.shape))
    results = []
    for layer in (convolution, PatchProduct(convolution)):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            value = layer(maps)
            total = tf.reduce_sum(value * tf.reshape(tf.range(tf.size(value), dtype=tf.float32), value.shape))
        watched = [maps, *(variable.value for variable in convolution.trainable_variables)]
        results.append([value, *tape.gradient(total, watched)])
        assert layer.compute_output_shape(maps.shape) == value.shape
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.quick
def test_a_portable_model_has_the_weights_of_the_model_itself() -> None:
    image = keras.Input((5, 6, 2))
    model = keras.Model(image, layers.Conv2DTranspose(2, **HALVING)(layers.Conv2D(3, **HALVING)(image)))
    maps = np.random.default_rng(0).random((2, 5, 6, 2), np.float32)
    computed = portable(model)
    for _ in range(2):
        np.testing.assert_allclose(computed(maps), model(maps), atol=1e-6)
        model.set_weights([weights + 0.1 for weights in model.get_weights()])


@pytest.mark.quick
def test_portable_gradients_are_those_of_the_product() -> None:
    random = np.random.default_rng(0)
    a, b, weights = (random.random(shape, np.float32) for shape in ((3, 4), (4, 5), (3, 5)))

    @tf.function(jit_compile=True)
    def gradients(a: tf.Tensor, b: tf.Tensor) -> list[tf.Tensor]:
        with portable_gradients():
            product = tf.matmul(a, b)
        found: list[tf.Tensor] = tf.gradients(tf.reduce_sum(product * weights), [a, b])
        return found

    for found, expected in zip(gradients(a, b), (weights @ b.T, a.T @ weights), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


TRAINING = """
import hashlib, json, sys
import stages
import numpy as np
from stages.core.archive import keras_bytes
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import tf
from stages.core.params import read_params
from stages.core.schema import Params
from stages.core.training import build_training, resident, train

tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
tf.config.threading.set_inter_op_parallelism_threads(1)
plain = read_params(Params).models["deep"].model_copy(
    update={"hidden_units": [128], "latent_dim": 16, "batch_size": 100, "epochs": 2, "early_stopping": 0}
)
kinds = {
    "dense": {"kl_weight": 1.0, "normalization": "layer", "optimizer": "muon"},
    "convolutions": {"layers": "conv", "hidden_units": [8, 16], "normalization": "batch", "optimizer": "adam"},
}
images = resident(np.random.default_rng(0).integers(0, 256, (450, 784), np.uint8))
digests = {}
for name, changes in kinds.items():
    settings = plain.model_copy(update={"beta_2": 0.0} | changes)
    model = build_autoencoder(28, 28, settings)
    history = train(build_training(model, settings, 450, (28, 28)), images, images)
    digests[name] = [hashlib.sha256(keras_bytes(model)).hexdigest(), history]
print(json.dumps(digests))
"""


def test_the_number_of_threads_changes_no_byte() -> None:
    """Of small trainings with every kind of product and of sum."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(threads)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for threads in (2, 5)
    ]
    first, other = (json.loads(process.communicate(timeout=600)[0].splitlines()[-1]) for process in processes)
    assert len(first) == 2
    assert other == first
