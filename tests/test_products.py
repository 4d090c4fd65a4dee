"""One way to multiply: the convolutions and gradients of Keras, and the same bytes on any number of threads."""

import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.backend import tf
from stages.core.products import PatchProduct, portable, portable_gradients
from tests.conftest import ROOT, succeed

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


AS_ON_CORES = """
import os, runpy, sys
cores = range(int(sys.argv[1]))
os.sched_getaffinity = lambda process: cores
sys.argv[1:] = ["wide"]
runpy.run_module("tests.portable", run_name="__main__")
"""


def test_the_number_of_threads_changes_no_byte() -> None:
    """Of a small training and its evaluation with every kind of product and of sum."""
    two, five = (succeed(ROOT, sys.executable, "-c", AS_ON_CORES, cores) for cores in ("2", "5"))
    assert len(two.splitlines()) == 3  # an epoch, the training and the measures
    assert five == two
