"""One way to multiply, so that every x86-64 processor sums the same products in the same order.

XLA hands a product of two matrices to YNNPACK, whose results do not depend on the processor
in the mode that `stages/__init__.py` sets. It hands a product with a transposed factor, and a
convolution, to kernels whose order of summation depends on the processor's caches. So gradients
transpose their factors first, and a convolution is a product of patches with its kernel. On two cores
of a Xeon (Ice Lake) an epoch of convolutions takes 0.58 times as long that way.
"""

from contextlib import AbstractContextManager

from stages.core.backend import keras, tf


@tf.RegisterGradient("TransposedFactors")
def _matmul_gradient(op: tf.Operation, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    a, b = op.inputs
    return tf.matmul(gradient, tf.transpose(b)), tf.matmul(tf.transpose(a), gradient)


def portable_gradients() -> AbstractContextManager[None]:
    """`tf.gradients` of what is computed in the block multiplies by transposed factors."""
    context: AbstractContextManager[None] = tf.compat.v1.get_default_graph().gradient_override_map(
        {"MatMul": "TransposedFactors"}
    )
    return context


def portable(model: keras.Model) -> keras.Model:
    """The same model with the same weights, which computes its convolutions as products.

    Its dropout samples by threefry. By Philox, as in Keras, an epoch takes 1.24 times as long (deep model, AMD EPYC).
    """
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)

    def replace(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.layers.Dropout):
            return ThreefryDropout(layer)
        return PatchProduct(layer) if isinstance(layer, kinds) else layer

    return keras.models.clone_model(model, clone_function=replace, recursive=True)


class ThreefryDropout(keras.layers.Layer):  # type: ignore[misc]
    """A dropout layer with the seed and state of one of Keras, which samples by threefry. Only XLA can train it."""

    def __init__(self, dropout: keras.layers.Dropout) -> None:
        super().__init__(name=dropout.name, dtype=dropout.dtype_policy)
        self.dropout = dropout
        self.built = True

    def call(self, values: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return values
        seed = self.dropout.seed_generator.next()
        return tf.nn.experimental.stateless_dropout(values, self.dropout.rate, seed, rng_alg="threefry")


class PatchProduct(keras.layers.Layer):  # type: ignore[misc]
    """A convolution, transposed or not, of 3×3 kernels with strides of 2 and "same" padding, as one product."""

    def __init__(self, convolution: keras.Layer) -> None:
        super().__init__(name=convolution.name, dtype=convolution.dtype_policy)
        self.convolution = convolution
        self.built = True

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.convolution.compute_output_shape(input_shape)
        return shape

    def call(self, maps: tf.Tensor) -> tf.Tensor:
        layer = self.convolution
        convolve = upsample if isinstance(layer, keras.layers.Conv2DTranspose) else downsample
        kernel, bias = (tf.cast(weights, maps.dtype) for weights in (layer.kernel, layer.bias))
        return layer.activation(convolve(maps, kernel) + bias)


def downsample(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Maps [images, height, width, channels] to half the size, rounded up. kernel: [3, 3, channels, filters]."""
    sizes = maps.shape[1:3]
    halves = [-(-size // 2) for size in sizes]
    surplus = [2 * half + 1 - size for half, size in zip(halves, sizes, strict=True)]
    padded = tf.pad(maps, [(0, 0), *((extra // 2, extra - extra // 2) for extra in surplus), (0, 0)])
    rows, columns = (2 * half for half in halves)
    taps = [padded[:, i : i + rows : 2, j : j + columns : 2] for i in range(3) for j in range(3)]
    patches = tf.reshape(tf.concat(taps, axis=3), (-1, 9 * maps.shape[3]))
    product = tf.matmul(patches, tf.reshape(kernel, (9 * maps.shape[3], -1)))
    return tf.reshape(product, (-1, *halves, kernel.shape[3]))


def upsample(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Maps [images, height, width, channels] to twice the size. kernel: [3, 3, filters, channels].

    A pixel adds its product with the kernel to the 3×3 window that begins at twice its position. So the even rows
    of the result have two summands each, the odd rows one, and the columns likewise.
    """
    _, height, width, channels = maps.shape
    filters = kernel.shape[2]
    factor = tf.reshape(tf.transpose(kernel, (3, 0, 1, 2)), (channels, 9 * filters))
    windows = tf.reshape(tf.matmul(tf.reshape(maps, (-1, channels)), factor), (-1, height, width, 3, 3, filters))
    even = windows[:, :, :, 0] + tf.pad(windows[:, :-1, :, 2], [(0, 0), (1, 0), (0, 0), (0, 0), (0, 0)])
    windows = tf.reshape(tf.stack([even, windows[:, :, :, 1]], axis=2), (-1, 2 * height, width, 3, filters))
    even = windows[:, :, :, 0] + tf.pad(windows[:, :, :-1, 2], [(0, 0), (0, 0), (1, 0), (0, 0)])
    return tf.reshape(tf.stack([even, windows[:, :, :, 1]], axis=3), (-1, 2 * height, 2 * width, filters))
