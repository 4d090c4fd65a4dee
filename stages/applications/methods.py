"""All methods that applications compare: the trained models, and the baselines of their latent sizes."""

from pathlib import Path
from typing import NamedTuple

from stages.core.backend import keras
from stages.core.baselines import fit_baselines
from stages.core.encoder_decoder import EncoderDecoder
from stages.core.evaluation import BASELINE, MODEL, shown_name
from stages.core.files import Split, model_files, read_images
from stages.core.inference import check_size, halves, load_autoencoder
from stages.core.linear import image_moments
from stages.core.schema import Params


class Method(NamedTuple):
    """An encoder and decoder to compare with others."""

    kind: str  # MODEL or BASELINE
    name: str  # to display
    halves: EncoderDecoder


def model_paths(params: Params) -> dict[str, Path]:
    """The files of the models of params.yaml, by name."""
    return {name: model_files(name).model for name in params.models}


def load_models(paths: dict[str, Path]) -> dict[str, keras.Model]:
    """The trained models by display name. paths: their files by name.

    Raises StageError if a file is missing, broken or of images of another size.
    """
    _, height, width = read_images("test").shape
    models = {}
    for name, path in paths.items():
        model = load_autoencoder(path)
        check_size(path, model, height, width)
        models[shown_name(name, latent_dim(model), height * width)] = model
    return models


def all_methods(models: dict[str, keras.Model], train: Split) -> list[Method]:
    """The baselines of each latent size, ascending, then the models. models: by display name."""
    moments = image_moments(train.images)
    methods = []
    for size in sorted({latent_dim(model) for model in models.values()}):
        fitted = fit_baselines(train.images, moments, size)
        methods += [Method(BASELINE, name, baseline) for name, baseline in fitted.items()]
    return methods + [Method(MODEL, name, halves(model)) for name, model in models.items()]


def latent_dim(model: keras.Model) -> int:
    """The size of a model's code."""
    size: int = model.get_layer("decoder").input_shape[1]
    return size
