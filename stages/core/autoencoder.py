"""The one builder of every autoencoder.

A shallow autoencoder is a deep one with no hidden layers; models differ by data in
params.yaml, never by code.
"""

import math
from typing import TypeAlias

from stages.core.backend import keras
from stages.core.schema import Model

layers = keras.layers
Tensor: TypeAlias = keras.KerasTensor

LOG_VARIANCE = "latent_log_variance"


def build_autoencoder(height: int, width: int, settings: Model) -> keras.Model:
    """A functional model made of two named sub-models, "encoder" and "decoder".

    Input and output: float32 [images, height * width] in [0, 1]; the code between them
    [images, latent_dim], float32 or, in mixed precision, the 16-bit type of `precision`.
    Weights are float32, sampled by the seed (Glorot uniform, biases zero). With a `kl_weight`
    the encoder has two outputs, mean and log-variance of a Gaussian, and the code is the mean.
    """
    keras.utils.set_random_seed(settings.seed)
    encoder, decoder = build_encoder(height, width, settings), build_decoder(height, width, settings)
    image = keras.Input((height * width,), dtype="float32", name="image")
    encoded = encoder(image)
    return keras.Model(image, decoder(encoded[0] if settings.kl_weight else encoded), name="autoencoder")


def build_encoder(height: int, width: int, settings: Model) -> keras.Model:
    """From images float [images, height * width] to codes [images, latent_dim], or to means and log-variances."""
    dtype = settings.precision
    image = x = keras.Input((height * width,), dtype="float32", name="image")
    if settings.layers == "conv":
        x = layers.Reshape((height, width, 1), dtype=dtype, name="map")(x)
    for index, units in enumerate(settings.hidden_units, 1):
        if settings.layers == "conv":
            hidden = layers.Conv2D(units, 3, strides=2, padding="same", dtype=dtype, name=f"hidden_{index}")
        else:
            hidden = layers.Dense(units, dtype=dtype, name=f"hidden_{index}")
        x = normalize_and_activate(hidden(x), index, settings)
    if settings.layers == "conv":
        x = layers.Flatten(dtype=dtype, name="flat")(x)
    latent = layers.Dense(settings.latent_dim, settings.latent_activation, dtype=dtype, name="latent")
    if not settings.kl_weight:
        return keras.Model(image, latent(x), name="encoder")
    log_variance = layers.Dense(settings.latent_dim, dtype=dtype, name=LOG_VARIANCE)(x)
    return keras.Model(image, [latent(x), log_variance], name="encoder")


def is_variational(model: keras.Model) -> bool:
    """Whether an autoencoder's encoder has a log-variance next to the mean."""
    return len(model.get_layer("encoder").outputs) > 1


def code_encoder(model: keras.Model) -> keras.Model:
    """An autoencoder's encoder, from images float [images, pixels] to codes [images, latent_dim]."""
    encoder = model.get_layer("encoder")
    return keras.Model(encoder.input, encoder.outputs[0], name="encoder") if is_variational(model) else encoder


def build_decoder(height: int, width: int, settings: Model) -> keras.Model:
    """From codes [images, latent_dim] to images float32 [images, height * width], the encoder's mirror image."""
    dtype, units = settings.precision, settings.hidden_units
    code = x = keras.Input((settings.latent_dim,), dtype="float32", name="code")
    if settings.layers == "dense":
        for index in range(len(units), 0, -1):
            x = normalize_and_activate(
                layers.Dense(units[index - 1], dtype=dtype, name=f"hidden_{index}")(x), index, settings
            )
        # float32 in any precision: 16 bits leave too few steps for a loss between near pixels
        return keras.Model(
            code, layers.Dense(height * width, "sigmoid", dtype="float32", name="reconstruction")(x), name="decoder"
        )

    maps = feature_maps(height, width, len(units))
    x = layers.Dense(math.prod(maps[-1]) * units[-1], dtype=dtype, name=f"hidden_{len(units)}")(x)
    x = layers.Reshape((*maps[-1], units[-1]), dtype=dtype, name="map")(normalize_and_activate(x, len(units), settings))
    for index in range(len(units) - 1, 0, -1):
        x = upsample(x, units[index - 1], maps[index], dtype, f"hidden_{index}")
        x = normalize_and_activate(x, index, settings)
    x = upsample(x, 1, maps[0], "float32", "logits")
    x = layers.Flatten(dtype="float32", name="flat")(x)
    return keras.Model(code, layers.Activation("sigmoid", dtype="float32", name="reconstruction")(x), name="decoder")


def feature_maps(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """Height and width of the image and then of `count` feature maps, each half the one before, rounded up."""
    maps = [(height, width)]
    for _ in range(count):
        maps.append((-(-maps[-1][0] // 2), -(-maps[-1][1] // 2)))
    return maps


def upsample(x: Tensor, filters: int, size: tuple[int, int], dtype: str, name: str) -> Tensor:
    """A transposed convolution that doubles height and width, cut to `size` where the encoder had rounded up."""
    x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", dtype=dtype, name=name)(x)
    surplus = [(0, doubled - wanted) for doubled, wanted in zip(x.shape[1:3], size, strict=True)]
    return layers.Cropping2D(surplus, dtype=dtype, name=f"{name}_cut")(x) if any(map(any, surplus)) else x


def normalize_and_activate(x: Tensor, index: int, settings: Model) -> Tensor:
    """What follows the weights of a hidden layer: normalization, activation, dropout."""
    dtype = settings.precision
    if settings.normalization == "batch":
        x = layers.BatchNormalization(dtype=dtype, name=f"normalization_{index}")(x)
    elif settings.normalization == "layer":
        x = layers.LayerNormalization(dtype=dtype, name=f"normalization_{index}")(x)
    x = layers.Activation(settings.hidden_activation, dtype=dtype, name=f"activation_{index}")(x)
    if settings.dropout:
        x = layers.Dropout(settings.dropout, dtype=dtype, name=f"dropout_{index}")(x)
    return x
