"""A trained model as an encoder and a decoder."""

from stages.core.autoencoder import code_encoder, is_variational
from stages.core.backend import keras
from stages.core.encoder_decoder import EncoderDecoder
from stages.core.inference import BATCH, compile_model


def halves(model: keras.Model, batch_size: int = BATCH) -> EncoderDecoder:
    """A model's encoder and decoder, compiled. batch_size: images computed at a time."""
    encode, decode = (compile_model(half, batch_size) for half in (code_encoder(model), model.get_layer("decoder")))
    posterior = compile_model(model.get_layer("encoder"), batch_size) if is_variational(model) else None
    return EncoderDecoder(encode, decode, model.count_params(), posterior)
