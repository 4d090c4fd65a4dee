"""What compresses images and restores them, a trained model or a baseline, measured by the same functions."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stages.core import shown
from stages.core.arrays import Bytes, Float32, Float64, Floats, Transform
from stages.core.codes import active_dimensions, sample_codes
from stages.core.evaluation import Pictures, Result
from stages.core.files import Split
from stages.core.linear import Moments, class_means, code_moments, fit_probe
from stages.core.measures import (
    bce,
    divergence,
    in_batches,
    negative_log_likelihood,
    psnr,
    scaled_batches,
    squared_error,
    ssim,
)
from stages.core.schema import Evaluate

WEIGHTS = 100  # importance weights for the likelihood of an image


class EncoderDecoder(NamedTuple):
    """Two functions, images to codes and codes to images."""

    encode: Transform  # images float32 [images, pixels] in [0, 1] -> codes
    decode: Transform  # codes float [images, latent_dim] -> images in [0, 1]
    parameters: int  # how many numbers define both
    posterior: Transform | None = None  # images -> means and log-variances [images, 2, latent_dim], if variational


class Data(NamedTuple):
    """The images to measure on, and what does not depend on the model."""

    train: Split
    validation: Split
    test: Split
    shape: tuple[int, int]  # height and width of the images
    moments: Moments  # of the training images


class Outputs(NamedTuple):
    """Reconstructions of images, and how good they are."""

    squared_error: Float64  # [images]
    bce: Float64  # [images]
    ssim: Float64  # [images]
    reconstructions: Bytes  # [images, pixels]


def measure(kind: str, name: str, method: EncoderDecoder, data: Data, settings: Evaluate) -> Result:
    """Measure a model or a baseline. kind, name: as in `Result`."""
    train_codes, validation_codes, codes = (
        in_batches(method.encode, split.images) for split in (data.train, data.validation, data.test)
    )
    outputs = measure_outputs(method.decode, codes, data.test.images, data.shape)
    mse = outputs.squared_error.mean() / data.test.images.shape[1]
    moments = code_moments(train_codes)
    kl, nll = measure_posteriors(method, data.test.images, settings)
    return Result(
        kind=kind,
        name=name,
        latent_dim=codes.shape[1],
        parameters=method.parameters,
        mse=float(mse),
        mse_train=mean_squared_error(method.decode, train_codes, data.train.images),
        mse_validation=mean_squared_error(method.decode, validation_codes, data.validation.images),
        psnr=psnr(mse),
        ssim=float(outputs.ssim.mean()),
        bce=float(outputs.bce.mean()),
        probe=probe_codes(moments, train_codes, codes, data, settings),
        active_dimensions=active_dimensions(train_codes, settings.active_variance),
        kl=kl,
        nll=nll,
        squared_error=outputs.squared_error,
        codes=codes.astype(np.float32),
        code_mean=moments.mean,
        code_covariance=moments.covariance,
        reconstructions=outputs.reconstructions.reshape(-1, *data.shape),
        pictures=decode_pictures(method, train_codes, codes, data, settings.seed),
    )


def measure_outputs(decode: Transform, codes: Floats, images: Bytes, shape: tuple[int, int]) -> Outputs:
    """Decode the codes of images uint8 [images, pixels], and compare the results with the images."""
    rows = []
    for batch, part in batches_with_codes(images, codes):
        decoded = decode(part)
        similarity = ssim(batch.reshape(-1, *shape), decoded.reshape(-1, *shape))
        as_bytes = np.rint(decoded.clip(0, 1) * 255).astype(np.uint8)
        rows.append((squared_error(batch, decoded), bce(batch, decoded), similarity, as_bytes))
    return Outputs(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def decode_pictures(method: EncoderDecoder, train_codes: Floats, codes: Floats, data: Data, seed: int) -> Pictures:
    """What the decoder makes of codes that belong to no image. train_codes, codes: of training and test images."""
    if method.posterior:
        classes = len(np.unique(data.train.labels))
        drawn = np.random.default_rng(seed).standard_normal((classes, shown.SAMPLES, codes.shape[1]))
    else:
        drawn = sample_codes(train_codes, data.train.labels, shown.SAMPLES, seed)
    samples = method.decode(drawn.reshape(-1, drawn.shape[-1])).clip(0, 1).reshape(*drawn.shape[:2], -1)
    first = codes[shown.first_of_each_class(data.test.labels)]
    return Pictures(
        interpolations=as_pictures(shown.interpolate(method.decode, first), data.shape),
        traversals=as_pictures(shown.traverse(method.decode, train_codes), data.shape),
        samples=as_pictures(samples, data.shape),
    )


def measure_posteriors(method: EncoderDecoder, images: Bytes, settings: Evaluate) -> tuple[Float64, Float64]:
    """The divergence of each posterior from the prior, and minus the log-likelihood of each image, in nats.

    Both: float64 [images], empty without a posterior. images: uint8 [images, pixels]. The likelihood is that of
    black and white images, sampled with the greys as probabilities of white.
    """
    posterior = method.posterior
    if posterior is None:
        return np.zeros(0), np.zeros(0)
    random = np.random.default_rng(settings.seed)

    def likelihood(batch: Float32) -> Float64:
        binary = (random.random(batch.shape) < batch).astype(np.float32)
        return negative_log_likelihood(binary, posterior(binary), method.decode, WEIGHTS, random)

    kl = in_batches(lambda batch: divergence(posterior(batch)), images)
    return kl, in_batches(likelihood, images)


def mean_squared_error(decode: Transform, codes: Floats, images: Bytes) -> float:
    """Mean squared error per pixel of images uint8 [images, pixels], reconstructed from their codes."""
    errors = (squared_error(batch, decode(part)).sum() for batch, part in batches_with_codes(images, codes))
    return float(sum(errors) / images.size)


def batches_with_codes(images: Bytes, codes: Floats) -> Iterator[tuple[Float32, Floats]]:
    """Batches of images, scaled to [0, 1], with their codes."""
    start = 0
    for batch in scaled_batches(images):
        yield batch, codes[start : start + len(batch)]
        start += len(batch)


def probe_codes(moments: Moments, train_codes: Floats, codes: Floats, data: Data, settings: Evaluate) -> float:
    """Accuracy on the test images of a linear probe that was fitted to the training codes, of `moments`."""
    means = class_means(train_codes, data.train.labels)
    probe = fit_probe(moments, means, data.train.labels, settings.ridge)
    return accuracy(probe.predict(codes), data)


def probe_pixels(data: Data, settings: Evaluate) -> float:
    """Accuracy on the test images of a linear probe that sees every pixel."""
    means = class_means(data.train.images, data.train.labels) / 255
    probe = fit_probe(data.moments, means, data.train.labels, settings.ridge)
    return accuracy(in_batches(probe.predict, data.test.images), data)


def accuracy(predicted: Bytes, data: Data) -> float:
    """Share of the test images whose predicted class is right. predicted: uint8 [test images].

    Counts only images of trained classes, because no probe can predict another class.
    """
    trained = np.isin(data.test.labels, data.train.labels)
    return float((predicted == data.test.labels)[trained].mean())


def as_pictures(rows: Floats, shape: tuple[int, int]) -> Float32:
    """Float [..., pixels] as float32 [..., height, width]."""
    return rows.reshape(*rows.shape[:-1], *shape).astype(np.float32)
