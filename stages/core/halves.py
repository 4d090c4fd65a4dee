"""A trained model as an encoder and a decoder."""

import numpy as np

from stages.core.arrays import Float32
from stages.core.autoencoder import LOG_VARIANCE, code_encoder, is_variational
from stages.core.backend import keras
from stages.core.encoder_decoder import EncoderDecoder
from stages.core.inference import BATCH, compile_model


def halves(model: keras.Model, batch_size: int = BATCH) -> EncoderDecoder:
    """A model's encoder and decoder, compiled. batch_size: images computed at a time."""
    encoder = code_encoder(model)
    encode, decode = (compile_model(half, batch_size) for half in (encoder, model.get_layer("decoder")))
    posterior = compile_model(model.get_layer("encoder"), batch_size) if is_variational(model) else None
    return EncoderDecoder(encode, decode, model.count_params(), encoder_kernel(encoder), posterior)


def encoder_kernel(encoder: keras.Model) -> Float32:
    """The weights of a shallow encoder: float32 [latent_dim, pixels].

    Empty for an encoder with hidden layers, whose latent units look at no pixels.
    """
    layers = [layer for layer in encoder.layers if layer.weights and layer.name != LOG_VARIANCE]
    if len(layers) > 1:
        return np.zeros((0, encoder.input_shape[1]), np.float32)
    kernel: Float32 = layers[0].kernel.numpy().T
    return kernel
