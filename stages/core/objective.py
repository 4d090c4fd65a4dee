"""What training minimises: a loss between each image and its reconstruction, and what a model adds to it.

A variational model's encoder gives a Gaussian for each image, the posterior. Training decodes a
sample of it and adds its divergence from the prior, a standard normal (D. Kingma, M. Welling,
"Auto-encoding variational Bayes", 2014; I. Higgins et al., "beta-VAE", 2017).
"""

from stages.core.autoencoder import is_variational
from stages.core.backend import keras, tf
from stages.core.products import portable
from stages.core.schema import Model


def build_objective(model: keras.Model, settings: Model, steps_per_epoch: int) -> "Objective":
    """The objective that the settings of the model ask for."""
    if is_variational(model):
        return VariationalObjective(model, settings, steps_per_epoch)
    return Objective(model, settings)


class Objective:
    """The loss of a plain, denoising or sparse autoencoder."""

    kl_weight = 0.0  # of a nat, once warmed up

    def __init__(self, model: keras.Model, settings: Model) -> None:
        self.loss = keras.losses.get(settings.loss)
        self.code_l1 = settings.code_l1
        self.encoder, self.decoder = (portable(model.get_layer(half)) for half in ("encoder", "decoder"))

    def losses(self, targets: tf.Tensor, inputs: tf.Tensor, key: tf.Tensor, training: bool) -> tuple[tf.Tensor, ...]:
        """Loss and divergence of each image: float32 [images] both.

        targets, inputs: float32 [images, pixels] in [0, 1]. key: an integer, another one for every batch.
        """
        code = self.encoder(inputs, training=training)
        losses = self.loss(targets, self.decoder(code, training=training))
        if self.code_l1:
            losses += self.code_l1 * tf.reduce_sum(tf.abs(tf.cast(code, tf.float32)), axis=1)
        return losses, tf.zeros_like(losses)

    def kl_weight_at(self, step: tf.Tensor) -> tf.Tensor:
        """The weight of the divergence at a training step: float32."""
        return tf.constant(self.kl_weight)


class VariationalObjective(Objective):
    """The negative evidence lower bound of each image, estimated by one sample of its posterior.

    That is over the number of pixels, and for a loss of binary_crossentropy and a kl_weight of 1. The
    weight rises from zero in a straight line over the warm-up.
    """

    def __init__(self, model: keras.Model, settings: Model, steps_per_epoch: int) -> None:
        super().__init__(model, settings)
        self.kl_weight = settings.kl_weight / model.output_shape[1]  # the reconstruction loss is a mean over pixels
        self.warmup_steps = round(settings.kl_warmup_epochs * steps_per_epoch)
        self.seed = settings.seed

    def losses(self, targets: tf.Tensor, inputs: tf.Tensor, key: tf.Tensor, training: bool) -> tuple[tf.Tensor, ...]:
        """As `Objective.losses`; the same key samples the same codes."""
        # float32 in any precision: an exponential and a difference follow
        mean, log_variance = (tf.cast(part, tf.float32) for part in self.encoder(inputs, training=training))
        # noise of the input has keys below 0; its strength and the shifts have another algorithm
        seeds = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(key, tf.int64)])
        epsilon = tf.random.stateless_normal(mean.shape, seeds, alg="threefry")
        code = mean + tf.exp(log_variance / 2) * epsilon
        return self.loss(targets, self.decoder(code, training=training)), divergence(mean, log_variance)

    def kl_weight_at(self, step: tf.Tensor) -> tf.Tensor:
        """The weight of the divergence at a training step: float32, from 0 to kl_weight."""
        if not self.warmup_steps:
            return tf.constant(self.kl_weight)
        return self.kl_weight * tf.minimum(tf.cast(step, tf.float32) / self.warmup_steps, 1.0)


def divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence of diagonal Gaussians from the standard normal, in nats: float [images], at least 0.

    Both: float [images, latent_dim]. Kingma and Welling (2014), appendix B.
    """
    return tf.reduce_sum(tf.square(mean) + tf.exp(log_variance) - 1 - log_variance, axis=1) / 2
