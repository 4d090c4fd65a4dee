"""Measuring what compresses images and gives them back: a trained model, or PCA, by the same functions."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stages.applications.anomalies import combined_score, inverse_covariance, squared_distances
from stages.core import shown as pictures
from stages.core.arrays import Bytes, Float32, Float64, Floats, Transform
from stages.core.codes import active_dimensions, nearest_images, sample_codes, sample_prior
from stages.core.evaluation import Result
from stages.core.files import Split
from stages.core.linear import Moments, class_means, code_moments, fit_probe
from stages.core.measures import bce, divergence, in_batches, psnr, scaled_batches, squared_error, ssim
from stages.core.schema import Evaluate


class Codec(NamedTuple):
    """What compresses images and gives them back: a model's two halves, or PCA."""

    encode: Transform  # images float32 [images, pixels] in [0, 1] -> codes
    decode: Transform  # codes float [images, latent_dim] -> images
    parameters: int  # numbers that both are made of
    kernel: Floats  # [latent_dim, pixels], of a linear encoder; empty for any other
    posterior: Transform | None = None  # images -> means and log-variances [images, 2, latent_dim], if variational


class Data(NamedTuple):
    """All that is measured on, and what does not depend on the model."""

    train: Split
    validation: Split
    test: Split
    shape: tuple[int, int]  # height and width of the images
    moments: Moments  # of the training images


def measure(codec: Codec, data: Data, settings: Evaluate) -> Result:
    """Everything that is measured of a model and of PCA alike."""
    encode, decode, parameters, kernel, posterior = codec
    train_codes, validation_codes, codes = (
        in_batches(encode, split.images, settings.batch_size) for split in (data.train, data.validation, data.test)
    )
    errors, cross_entropies, similarities = measure_images(decode, codes, data.test.images, data.shape, settings)
    mse = errors.mean() / data.test.images.shape[1]
    generated, generation = generate_per_class(decode, train_codes, data.train, settings)
    samples = generated[:, : pictures.SAMPLES]
    if posterior:
        samples = decode(sample_prior(samples[..., 0].size, codes.shape[1], settings.seed)).reshape(samples.shape)
    shown, chosen = pictures.first_of_each_class(data.test.labels), pictures.extremes(errors, pictures.EXTREMES)
    moments = code_moments(train_codes)
    code_inverse_covariance = inverse_covariance(moments)
    distances = squared_distances(codes, moments.mean, code_inverse_covariance)
    combined = combined_score(errors, data.test.images.sum(axis=1) / 255, distances)
    least, _, most = pictures.extremes(combined, pictures.UNUSUAL)
    unusual = np.stack([most[::-1], least])
    deviation = np.sqrt(np.diag(data.moments.covariance).clip(0))  # pixels that never vary can have any weight
    return Result(
        latent_dim=codes.shape[1],
        parameters=parameters,
        mse=float(mse),
        mse_train=mean_squared_error(decode, train_codes, data.train.images, settings.batch_size),
        mse_validation=mean_squared_error(decode, validation_codes, data.validation.images, settings.batch_size),
        psnr=psnr(mse),
        ssim=float(similarities.mean()),
        bce=float(cross_entropies.mean()),
        probe=probe_codes(moments, train_codes, codes, data, settings),
        generation=generation,
        active_dimensions=active_dimensions(train_codes, settings.active_variance),
        kl=divergences(posterior, data.test.images, settings.batch_size),
        squared_error=errors,
        distance=distances,
        combined=combined,
        codes=codes.astype(np.float32),
        code_mean=moments.mean,
        code_inverse_covariance=code_inverse_covariance,
        reconstructions=as_pictures(decode(codes[shown]), data.shape),
        extremes=chosen,
        extreme_images=as_pictures(data.test.images[chosen] / np.float32(255), data.shape),
        extreme_reconstructions=as_pictures(decode(codes[chosen.ravel()]).reshape(*chosen.shape, -1), data.shape),
        interpolations=as_pictures(pictures.interpolate(decode, codes[shown]), data.shape),
        traversals=as_pictures(pictures.traverse(decode, train_codes), data.shape),
        samples=as_pictures(samples, data.shape),
        weights=as_pictures(kernel[: pictures.DIMENSIONS] * deviation, data.shape),
        unusual=unusual,
        unusual_images=as_pictures(data.test.images[unusual] / np.float32(255), data.shape),
    )


def measure_images(
    decode: Transform, codes: Floats, images: Bytes, shape: tuple[int, int], settings: Evaluate
) -> tuple[Float64, Float64, Float64]:
    """Squared error, binary cross-entropy and SSIM of each image uint8 [images, pixels]: float64 [images] each."""
    rows = []
    for batch, part in batches_with_codes(images, codes, settings.batch_size):
        decoded = decode(part)
        similarity = ssim(batch.reshape(-1, *shape), decoded.reshape(-1, *shape))
        rows.append((squared_error(batch, decoded), bce(batch, decoded), similarity))
    errors, cross_entropies, similarities = (np.concatenate(column) for column in zip(*rows, strict=True))
    return errors, cross_entropies, similarities


def divergences(posterior: Transform | None, images: Bytes, batch_size: int) -> Float64:
    """Each image's posterior from the prior, in nats: float64 [images], empty without a posterior.

    images: uint8 [images, pixels].
    """
    if posterior is None:
        return np.zeros(0)
    return in_batches(lambda batch: divergence(posterior(batch)), images, batch_size)


def mean_squared_error(decode: Transform, codes: Floats, images: Bytes, batch_size: int) -> float:
    """Mean over images uint8 [images, pixels] and their pixels, of what their codes are decoded to."""
    errors = (squared_error(batch, decode(part)) for batch, part in batches_with_codes(images, codes, batch_size))
    return mean_of_batches(errors, images.size)


def mean_of_batches(batches: Iterator[Float64], count: int) -> float:
    """The sum of all values in the batches over `count`."""
    return float(sum(batch.sum() for batch in batches) / count)


def batches_with_codes(images: Bytes, codes: Floats, batch_size: int) -> Iterator[tuple[Float32, Floats]]:
    """Batches of images, scaled to [0, 1], with their codes."""
    for index, batch in enumerate(scaled_batches(images, batch_size)):
        yield batch, codes[index * batch_size : index * batch_size + len(batch)]


def probe_codes(moments: Moments, train_codes: Floats, codes: Floats, data: Data, settings: Evaluate) -> float:
    """Share of the test images whose class a linear probe, fitted to the training codes, reads off their codes.

    Of the classes that were trained on: no probe can name another. moments: of the training codes.
    """
    means = class_means(train_codes, data.train.labels)
    probe = fit_probe(moments, means, data.train.labels, settings.ridge)
    return share_named(probe.predict(codes), data)


def probe_pixels(data: Data, settings: Evaluate) -> float:
    """The same for a probe that sees every pixel."""
    means = class_means(data.train.images, data.train.labels) / 255
    probe = fit_probe(data.moments, means, data.train.labels, settings.ridge)
    return share_named(in_batches(probe.predict, data.test.images, settings.batch_size), data)


def share_named(predicted: Bytes, data: Data) -> float:
    """Share of the test images of trained classes whose predicted class, uint8 [test images], is their own."""
    trained = np.isin(data.test.labels, data.train.labels)
    return float((predicted == data.test.labels)[trained].mean())


def generate_per_class(
    decode: Transform, train_codes: Floats, train: Split, settings: Evaluate
) -> tuple[Floats, float]:
    """Digits decoded from each class' Gaussian: float [classes, samples, pixels], and how often they are of the class.

    A generated digit counts as of its class if the nearest training image is.
    """
    drawn = sample_codes(train_codes, train.labels, settings.samples_per_class, settings.seed)
    digits = decode(drawn.reshape(-1, drawn.shape[-1])).clip(0, 1)
    nearest = train.labels[nearest_images(digits, train.images, settings.batch_size)]
    intended = np.repeat(np.unique(train.labels), settings.samples_per_class)
    return digits.reshape(*drawn.shape[:2], -1), float((nearest == intended).mean())


def as_pictures(rows: Floats, shape: tuple[int, int]) -> Float32:
    """Float [..., pixels] as float32 [..., height, width]."""
    return rows.reshape(*rows.shape[:-1], *shape).astype(np.float32)
