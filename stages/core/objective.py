"""What training minimises: a loss between image and reconstruction, and for a variational model a divergence.

A variational model's encoder gives a Gaussian for each image, the posterior, whose mean is
the code. Training decodes a draw from it, and the divergence of the posterior from the
prior, a standard normal, has a weight of its own (D. Kingma, M. Welling, "Auto-encoding
variational Bayes", 2014; I. Higgins et al., "beta-VAE", 2017).
"""

from collections.abc import Callable
from typing import NamedTuple

from stages.core.autoencoder import build_posterior
from stages.core.backend import keras, tf
from stages.core.schema import Model


class Parts(NamedTuple):
    """The loss of each image of a batch in its two parts, float32 [images] each."""

    reconstruction_loss: tf.Tensor  # the chosen loss, mean over pixels
    kl: tf.Tensor  # divergence of the posterior from the prior in nats; 0 without a posterior


class Objective(NamedTuple):
    """The loss of an image is its reconstruction_loss plus `weight` times its kl."""

    draw: Callable[[int, tf.Tensor], tf.Tensor]
    """Random numbers for a batch, float32 [images, any], from the number of its images and a key, a whole number."""

    parts: Callable[[tf.Tensor, tf.Tensor, tf.Tensor, bool], Parts]
    """From targets and inputs, float32 [images, pixels] each, what was drawn, and whether this is training."""

    weight: float
    """Of a nat; kl_weight over the number of pixels, since the reconstruction is a mean over them."""

    warm_up: Callable[[tf.Tensor], tf.Tensor]
    """From the number of a training step the share of the weight that it has, 0 to 1."""


def build_objective(model: keras.Model, settings: Model, steps_per_epoch: int) -> Objective:
    """The objective that the settings of the model ask for."""
    warmup_steps = round(settings.kl_warmup_epochs * steps_per_epoch)
    if settings.kl_weight:
        return variational_objective(model, settings.loss, settings.kl_weight, warmup_steps, settings.seed)
    return plain_objective(model, settings.loss)


def plain_objective(model: keras.Model, loss: str) -> Objective:
    """The Keras loss called `loss` of any model from images to images."""
    loss_per_image = keras.losses.get(loss)

    def nothing(images: int, key: tf.Tensor) -> tf.Tensor:
        return tf.zeros((images, 0))

    def parts(image: tf.Tensor, seen: tf.Tensor, drawn: tf.Tensor, training: bool) -> Parts:
        losses = loss_per_image(image, model(seen, training=training))
        return Parts(losses, tf.zeros_like(losses))

    return Objective(nothing, parts, 0.0, lambda step: tf.ones(()))


def variational_objective(model: keras.Model, loss: str, kl_weight: float, warmup_steps: int, seed: int) -> Objective:
    """The same of what a draw from the posterior is decoded to, and the divergence, whose weight rises from zero.

    With a loss of binary_crossentropy and a weight of 1 this is the negative evidence lower
    bound over the number of pixels, estimated by one draw for each image.
    """
    loss_per_image = keras.losses.get(loss)
    posterior, decoder = build_posterior(model), model.get_layer("decoder")

    def draw(images: int, key: tf.Tensor) -> tf.Tensor:
        # training's noise has keys below 0 where this has a step's number, and shifts have another algorithm
        both = tf.stack([tf.constant(seed, tf.int64), tf.cast(key, tf.int64)])
        return tf.random.stateless_normal((images, posterior.output_shape[2]), both, alg="threefry")

    def parts(image: tf.Tensor, seen: tf.Tensor, drawn: tf.Tensor, training: bool) -> Parts:
        # float32 in any precision: an exponential and a difference follow
        mean, log_variance = tf.unstack(tf.cast(posterior(seen, training=training), tf.float32), axis=1)
        code = mean + tf.exp(log_variance / 2) * drawn
        return Parts(loss_per_image(image, decoder(code, training=training)), divergence(mean, log_variance))

    def warm_up(step: tf.Tensor) -> tf.Tensor:
        return tf.minimum(tf.cast(step, tf.float32) / warmup_steps, 1.0) if warmup_steps else tf.ones(())

    return Objective(draw, parts, kl_weight / model.output_shape[1], warm_up)


def divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence of diagonal Gaussians from the standard normal, in nats: float [images], at least 0.

    Both: float [images, latent_dim]. Kingma and Welling (2014), appendix B.
    """
    return tf.reduce_sum(tf.square(mean) + tf.exp(log_variance) - 1 - log_variance, axis=1) / 2
