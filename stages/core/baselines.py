"""Baselines: methods that compress images without a network. To add one, write a function and list it in BASELINES."""

from collections.abc import Callable

from stages.core.arrays import Bytes
from stages.core.encoder_decoder import EncoderDecoder
from stages.core.linear import Moments, Pca, fit_pca

# Training images uint8 [images, pixels], their moments, latent_dim -> the fitted method.
Fit = Callable[[Bytes, Moments, int], EncoderDecoder]


def pca(images: Bytes, moments: Moments, latent_dim: int) -> EncoderDecoder:
    """Principal component analysis, its outputs clipped to [0, 1] as a sigmoid's are.

    Unclipped, no linear method has a smaller squared error on the training images (Eckart and Young, 1936).
    Clipping brings every pixel closer to an image in [0, 1].
    """
    return clipped_pca(fit_pca(moments, latent_dim))


def clipped_pca(fitted: Pca) -> EncoderDecoder:
    """Principal components as a baseline, their outputs clipped to [0, 1]."""
    parameters = fitted.components.size + fitted.mean.size
    return EncoderDecoder(fitted.encode, lambda codes: fitted.decode(codes).clip(0, 1), parameters)


BASELINES: dict[str, Fit] = {"PCA": pca}  # PCA first: metrics/<model>.json has its error


def fit_baselines(images: Bytes, moments: Moments, latent_dim: int) -> dict[str, EncoderDecoder]:
    """All baselines with codes of this size, by display name, such as "PCA (16)".

    None if a code has at least as many numbers as an image has pixels: then a baseline makes no error.
    """
    if latent_dim >= images.shape[1]:
        return {}
    return {f"{name} ({latent_dim})": fit(images, moments, latent_dim) for name, fit in BASELINES.items()}
