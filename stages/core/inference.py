"""Applying a model to arrays."""

import numpy as np

from stages.core.arrays import Float32, Floats, Transform
from stages.core.backend import keras, tf


def compile_model(model: keras.Model, batch_size: int) -> Transform:
    """Compile `model` as a function of arrays of any length: floats [items, inputs] -> float32 [items, outputs].

    Computes `batch_size` items at a time, the last ones filled up, so that XLA compiles once.
    """

    @tf.function(jit_compile=True)
    def compute(batch: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(batch, training=False), tf.float32)

    def apply(items: Floats) -> Float32:
        results = []
        for start in range(0, max(1, len(items)), batch_size):  # an empty input still needs an output shape
            part = items[start : start + batch_size].astype(np.float32)
            filled = np.pad(part, ((0, batch_size - len(part)), (0, 0)))
            results.append(compute(filled).numpy()[: len(part)])
        return np.concatenate(results)

    return apply
