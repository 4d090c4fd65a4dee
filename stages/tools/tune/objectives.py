"""What a study improves, measured on the validation images."""

from collections.abc import Sequence

from stages.core.autoencoder import code_encoder
from stages.core.backend import keras
from stages.core.encoder_decoder import Data, measure_outputs, probe_codes
from stages.core.linear import code_moments
from stages.core.measures import in_batches
from stages.core.schema import Evaluate
from stages.tools.trained import uncompiled


def measure(model: keras.Model, objectives: Sequence[str], data: Data, settings: Evaluate) -> list[float]:
    """The objectives in their order, computed as `evaluate` does.

    data: with the validation images in the place of the test images, which no trial may see.
    """
    # not compiled, since that takes longer than it saves here
    encode, decode = uncompiled(code_encoder(model)), uncompiled(model.get_layer("decoder"))
    codes = in_batches(encode, data.test.images)
    outputs = measure_outputs(decode, codes, data.test.images, data.shape)
    values = {
        "mse": outputs.squared_error.mean() / data.test.images.shape[1],
        "bce": outputs.bce.mean(),
        "ssim": outputs.ssim.mean(),
        "parameters": model.count_params(),
        "latent_dim": codes.shape[1],
    }
    if "probe" in objectives:
        train_codes = in_batches(encode, data.train.images)
        values["probe"] = probe_codes(code_moments(train_codes), train_codes, codes, data, settings)
    return [float(values[name]) for name in objectives]
