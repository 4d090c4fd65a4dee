"""Variational autoencoders against SciPy, NumPy and a training loop written by hand."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.stats

from stages.core import measures, objective
from stages.core import training as engine
from stages.core.autoencoder import build_autoencoder, code_encoder, is_variational
from stages.core.backend import tf
from stages.core.checkpoint import History
from stages.core.encoder_decoder import Data
from stages.core.evaluation import Evaluation, load_evaluation
from stages.core.files import Split
from stages.core.linear import image_moments
from stages.core.objective import build_objective
from stages.core.params import read_params
from stages.core.schema import Model, Params
from stages.core.shown import SAMPLES
from stages.core.training import Images, Training, add_noise, build_training, epoch_order, resident, whole_batches
from stages.evaluate import collapse, evaluate
from stages.tools.explore.answers import Question, answer
from stages.tools.explore.library import Library
from stages.tools.explore.scenes import Scene
from tests import made_up
from tests.conftest import OF_VAE, ROOT, TUTORIAL

quick = pytest.mark.quick
layers = keras.layers
HEIGHT, WIDTH, LATENT = 3, 4, 2
PIXELS = HEIGHT * WIDTH
COUNT, BATCH = 11, 4  # an epoch leaves three images out, and validation fills its third batch up
STEPS = 2  # of an epoch
PARAMS = read_params(Params, ROOT / "params.yaml")
SETTINGS = PARAMS.models["deep"].model_copy(
    update=TUTORIAL | {"hidden_units": [5], "latent_dim": LATENT, "kl_weight": 1.0, "batch_size": BATCH, "seed": 7}
)  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, PIXELS), np.uint8)
HISTORY = pd.DataFrame({"epoch": [1.0], "loss": [0.5], "val_loss": [0.4], "kl": [3.0], "val_kl": [2.0]})


def variant(**changes: Any) -> Model:
    return SETTINGS.model_copy(update=changes)


def build(settings: Model = SETTINGS, spread: float = 1.0) -> keras.Model:
    """A model whose weights are random, biases too, so that no part of a posterior is near zero."""
    model = build_autoencoder(HEIGHT, WIDTH, settings)
    random = np.random.default_rng(1)
    model.set_weights([random.normal(0, spread, weight.shape) for weight in model.get_weights()])
    return model


def training_of(model: keras.Model, settings: Model) -> Training:
    return build_training(model, settings, COUNT, (HEIGHT, WIDTH))


def train(model: keras.Model, settings: Model, images: Images) -> History:
    """Train and validate on the same images."""
    return engine.train(training_of(model, settings), images, images)


@tf.function(jit_compile=True)
def standard_normal(images: int, size: int, seeds: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_normal((images, size), seeds, alg="threefry")


def normal_numbers(settings: Model, key: int, images: int) -> np.ndarray:
    """Standard normal numbers of the seed and a key."""
    return np.asarray(standard_normal(images, settings.latent_dim, tf.constant([settings.seed, key], tf.int64)))


# --- the divergence ----------------------------------------------------------------------------


def integrated(mean: float, variance: float) -> float:
    """Of the normal distributions themselves, by quadrature."""
    q, p = scipy.stats.norm(mean, np.sqrt(variance)), scipy.stats.norm(0, 1)
    low, high = mean - 12 * np.sqrt(variance), mean + 12 * np.sqrt(variance)
    return float(scipy.integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), low, high, limit=200)[0])


@quick
def test_the_divergence_is_the_integral_of_its_definition() -> None:
    """Summed over dimensions; wide and narrow posteriors, near and far, and the prior itself."""
    mean = np.array([[0.0, 0, 3], [0.5, -2, 0], [1e-3, 0, 0]])
    variance = np.array([[1.0, 1, 1e-3], [0.25, 4, 1], [1, 1.001, 1]])
    expected = [sum(map(integrated, *rows)) for rows in zip(mean, variance, strict=True)]
    found = measures.divergence(np.stack([mean, np.log(variance)], axis=1))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    theirs = objective.divergence(tf.constant(mean), tf.constant(np.log(variance)))
    np.testing.assert_allclose(theirs, expected, rtol=1e-6, atol=1e-9)
    assert measures.divergence(np.zeros((1, 2, 5), np.float32)).tolist() == [0]


# --- the bound, in NumPy -----------------------------------------------------------------------


def bound(weights: list[np.ndarray], image: np.ndarray, epsilon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each image log p(x | z) at one sample, and the divergence, in nats; in double precision.

    p(x | z) is Bernoulli's, continued to grey pixels; weights: of a model with one hidden layer of ReLUs.
    """
    w1, b1, w_mean, b_mean, w_log, b_log, w2, b2, w3, b3 = (array.astype(np.float64) for array in weights)
    hidden = np.maximum(image @ w1 + b1, 0)
    mean, deviation = hidden @ w_mean + b_mean, np.exp((hidden @ w_log + b_log) / 2)
    decoded = np.maximum((mean + deviation * epsilon) @ w2 + b2, 0) @ w3 + b3
    y = scipy.special.expit(decoded)
    likelihood = scipy.special.xlogy(image, y) + scipy.special.xlog1py(1 - image, -y)
    q = scipy.stats.norm(mean, deviation)
    cross_entropy = (np.log(2 * np.pi) + mean**2 + deviation**2) / 2  # of q relative to the prior
    return likelihood.sum(axis=1), (cross_entropy - q.entropy()).sum(axis=1)


@quick
@pytest.mark.parametrize(("kl_weight", "batch_size"), [(4.0, BATCH), (1.0, 2 * COUNT)])
def test_the_validation_loss_is_the_negative_bound_in_numpy(kl_weight: float, batch_size: int) -> None:
    """One sample for each image, by the place in the file of the first of its batch, the same at every call."""
    settings = variant(kl_weight=kl_weight, kl_warmup_epochs=3.0, batch_size=batch_size)
    model = build(settings, spread=0.4)
    keys = range(-1, -1 - COUNT, -batch_size)
    epsilon = np.concatenate([normal_numbers(settings, key, batch_size) for key in keys])[:COUNT]
    likelihood, kl = bound(model.get_weights(), IMAGES / 255, epsilon)
    found = [training_of(model, settings).validate(resident(IMAGES)) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0] == pytest.approx(((kl_weight * kl - likelihood).mean() / PIXELS, kl.mean()), rel=1e-5)
    assert kl.min() > 0.05


# --- training ----------------------------------------------------------------------------------


class ByHand:
    """The same network of layers put together here, trained operation by operation by Keras' optimizer."""

    def __init__(self, weights: list[np.ndarray]) -> None:
        self.hidden = keras.Sequential([keras.Input((PIXELS,)), layers.Dense(5, "relu")])
        self.mean, self.log_variance = layers.Dense(LATENT), layers.Dense(LATENT)
        decoding = [layers.Dense(5, "relu"), layers.Dense(PIXELS, "sigmoid")]
        self.decoder = keras.Sequential([keras.Input((LATENT,)), *decoding])
        features = self.hidden(np.zeros((1, PIXELS)))
        self.mean(features), self.log_variance(features)
        parts = (self.hidden, self.mean, self.log_variance, self.decoder)
        self.variables = [variable for part in parts for variable in part.trainable_variables]
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def losses(self, image: np.ndarray, epsilon: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross-entropy per pixel and the divergence in nats, means over images."""
        features = self.hidden(image)
        mean, log_variance = self.mean(features), self.log_variance(features)
        decoded = self.decoder(mean + tf.sqrt(tf.exp(log_variance)) * epsilon)
        kl = -0.5 * tf.reduce_sum(1 + log_variance - mean**2 - tf.exp(log_variance), axis=1)
        return tf.reduce_mean(keras.losses.binary_crossentropy(image, decoded)), tf.reduce_mean(kl)


@pytest.mark.parametrize(
    ("precision", "losses_to", "weights_to"), [("float32", 1e-5, 2e-5), ("mixed_bfloat16", 0.02, 0.02)]
)
def test_training_is_that_of_a_loop_written_by_hand(precision: str, losses_to: float, weights_to: float) -> None:
    """Three epochs of two steps; the weight rises for 1.4 epochs, which rounds to 3 steps; beta is 2.5."""
    changes = {"kl_weight": 2.5, "kl_warmup_epochs": 1.4, "learning_rate": 0.01, "epochs": 3}
    settings = variant(precision=precision, **changes)
    ours = build(settings, spread=0.4)
    theirs, optimizer = ByHand(ours.get_weights()), keras.optimizers.Adam(0.01)
    step = 0
    for row in train(ours, settings, resident(IMAGES)):
        losses = []
        for batch in whole_batches(epoch_order(settings.seed, row.epoch, COUNT), BATCH):
            image = IMAGES[batch] / np.float32(255)
            with tf.GradientTape() as tape:
                reconstruction, kl = theirs.losses(image, normal_numbers(settings, step, BATCH))
                loss = reconstruction + 2.5 * min(step / 3, 1) * kl / PIXELS
            optimizer.apply(tape.gradient(loss, theirs.variables), theirs.variables)
            losses.append((reconstruction + 2.5 * kl / PIXELS, kl))  # at full weight
            step += 1
        assert (row.loss, row.kl) == pytest.approx(tuple(np.mean(losses, axis=0)), rel=losses_to)
    for a, b in zip(ours.get_weights(), theirs.variables, strict=True):
        np.testing.assert_allclose(a, b, atol=weights_to)


@quick
@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_only_training_drops(scale: float) -> None:
    """In both halves; an encoder whose weights are 0 has nothing to drop."""
    rows = tf.constant(IMAGES[:3] / 255, tf.float32)

    def losses(dropout: float, training: bool) -> np.ndarray:
        settings = variant(dropout=dropout)
        model = build(settings)
        encoder = model.get_layer("encoder")
        encoder.set_weights([scale * weights for weights in encoder.get_weights()])
        made = build_objective(model, settings, STEPS)
        computed = tf.function(lambda: made.losses(rows, rows, tf.constant(5, tf.int64), training), jit_compile=True)
        return np.array([computed(), computed()])

    trained, shown, whole = losses(0.5, True), losses(0.5, False), losses(0.0, True)
    changed = (trained[0] != trained[1]).any(axis=1)
    assert changed.tolist() == [True, scale > 0]  # the reconstruction, by the decoder too, and the divergence
    np.testing.assert_array_equal(shown[0], shown[1])
    np.testing.assert_allclose(shown, whole, rtol=1e-5)


@quick
def test_no_step_samples_the_numbers_of_its_noise() -> None:
    """Though both have the same seed; of threefry's keys only 32 bits of each half count."""

    @tf.function(jit_compile=True)
    def noise(step: tf.Tensor) -> tf.Tensor:
        noisy = add_noise(tf.fill((4, LATENT), 0.5), 0.1, SETTINGS.seed, step)  # within [0, 1]: not clipped
        return (noisy - 0.5) / 0.1

    def directions(numbers: np.ndarray) -> np.ndarray:  # whatever the standard deviation of an image
        return numbers / np.linalg.norm(numbers, axis=-1, keepdims=True)  # type: ignore[no-any-return]

    sampled = [normal_numbers(SETTINGS, step, 4) for step in range(3)]  # those of the loop written by hand
    noises = [noise(tf.constant(step, tf.int64)).numpy() for step in range(3)]
    assert abs(directions(np.array(sampled)).reshape(-1, 1) - directions(np.array(noises)).ravel()).min() > 1e-5
    np.testing.assert_allclose(directions(noises[0]), directions(normal_numbers(SETTINGS, -1, 4)), atol=1e-4)


# --- the model ---------------------------------------------------------------------------------


@quick
def test_the_encoder_has_mean_and_log_variance_and_the_code_is_the_mean() -> None:
    model, image = build(), IMAGES / np.float32(255)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    (w1, b1), (w_mean, b_mean), (w_log, b_log) = (
        encoder.get_layer(name).get_weights() for name in ("hidden_1", "latent", "latent_log_variance")
    )
    hidden = np.maximum(image @ w1 + b1, 0)
    mean, log_variance = encoder(image)
    np.testing.assert_allclose(mean, hidden @ w_mean + b_mean, atol=1e-5)
    np.testing.assert_allclose(log_variance, hidden @ w_log + b_log, atol=1e-5)
    np.testing.assert_array_equal(code_encoder(model)(image), mean)
    np.testing.assert_array_equal(model(image), decoder(mean))
    plain = build_autoencoder(HEIGHT, WIDTH, variant(kl_weight=0.0))
    assert is_variational(model)
    assert not is_variational(plain)
    np.testing.assert_array_equal(code_encoder(plain)(image), plain.get_layer("encoder")(image))


# --- what is measured --------------------------------------------------------------------------


def data(classes: int = 3) -> Data:
    random = np.random.default_rng(3)
    train, validation, test = (
        Split(random.integers(0, 256, (count, PIXELS), np.uint8), (np.arange(count) % classes).astype(np.uint8))
        for count in (300, 9, 17)
    )
    return Data(train, validation, test, (HEIGHT, WIDTH), image_moments(train.images))


def measured(model: keras.Model) -> Evaluation:
    return evaluate("vae", model, data(), HISTORY, PARAMS.evaluate)


@quick
def test_divergence_and_active_units_are_those_of_the_posteriors() -> None:
    """One unit's mean is the same for all images; batches of 1,000 are larger than the 17 test images."""
    model = build()
    *before, w_mean, b_mean, w_log, b_log, w2, b2, w3, b3 = model.get_weights()
    w_mean[:, 1] *= 1e-3
    model.set_weights([*before, w_mean, b_mean, w_log, b_log, w2, b2, w3, b3])
    found = measured(model)
    mean, log_variance = map(np.asarray, model.get_layer("encoder")(data().test.images / np.float32(255)))
    expected = [sum(map(integrated, row, variances)) for row, variances in zip(mean, np.exp(log_variance), strict=True)]
    np.testing.assert_allclose(found.model.kl, expected, rtol=1e-4)
    assert found.model.active_dimensions == 1
    np.testing.assert_allclose(found.model.codes, mean, atol=1e-5)
    assert found.model.variational
    assert not any(baseline.variational for baseline in found.baselines)
    assert (found.kl.tolist(), found.val_kl.tolist()) == ([3], [2])
    assert collapse(found) is None or "posterior" not in str(collapse(found))


def nll_by_quadrature(decoder: keras.Model, images: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the integral of prior times likelihood over the plane of codes."""
    axis = np.linspace(-9, 9, 91)
    plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, LATENT)
    y = np.asarray(decoder(plane), np.float64)
    prior = scipy.stats.norm.logpdf(plane).sum(axis=1) + 2 * np.log(axis[1] - axis[0])
    likelihood = scipy.stats.bernoulli.logpmf(images[:, None], y).sum(axis=2)
    return -np.asarray(scipy.special.logsumexp(likelihood + prior, axis=1))


@quick
def test_the_likelihood_is_the_integral_over_all_codes() -> None:
    """Of test images that are black and white; batches are of 100 weights and 17 images."""
    model, some = build(spread=0.5), data()
    binary = some.test.images // 128
    black_and_white = some._replace(test=Split(binary * np.uint8(255), some.test.labels))
    found = evaluate("vae", model, black_and_white, HISTORY, PARAMS.evaluate).model.nll
    expected = nll_by_quadrature(model.get_layer("decoder"), binary)
    np.testing.assert_allclose(found, expected, atol=0.4)  # of 100 weights each
    assert found.mean() == pytest.approx(expected.mean(), abs=0.05)


@quick
def test_fewer_weights_estimate_a_lower_likelihood() -> None:
    """With one weight, on average minus the bound."""
    model, images = build(spread=0.5), (IMAGES // 128).astype(np.float32)
    posteriors = np.stack([np.asarray(part) for part in model.get_layer("encoder")(images)], axis=1)

    def estimate(samples: int, repetitions: int) -> float:
        random, decoder = np.random.default_rng(0), model.get_layer("decoder")
        rows = np.repeat(images, repetitions, axis=0), np.repeat(posteriors, repetitions, axis=0)
        return float(measures.negative_log_likelihood(*rows, lambda z: np.asarray(decoder(z)), samples, random).mean())

    noise = np.random.default_rng(1).normal(size=(400, COUNT, LATENT))
    bounds = [kl - likelihood for likelihood, kl in (bound(model.get_weights(), images, one) for one in noise)]
    assert estimate(1, 400) == pytest.approx(np.mean(bounds), abs=0.1)
    assert estimate(1, 400) > estimate(5, 80) > estimate(400, 1)
    assert estimate(400, 1) == pytest.approx(nll_by_quadrature(model.get_layer("decoder"), images).mean(), abs=0.05)


@quick
def test_images_are_binarized_with_their_greys_as_probabilities() -> None:
    """A decoder that ignores the code shows by each likelihood how many pixels are white."""
    model = build(spread=0.0)
    *others, bias = model.get_weights()
    model.set_weights([*others, bias + 1])
    white = scipy.special.expit(1)
    pixels = (PIXELS * np.log1p(-white) + measured(model).model.nll) / (np.log1p(-white) - np.log(white))
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-4)
    greys = data().test.images / 255
    deviation = np.sqrt((greys * (1 - greys)).sum())
    assert abs(pixels.sum() - greys.sum()) < 3 * deviation


@quick
def test_samples_are_decoded_from_the_prior() -> None:
    """As many as of a method with a Gaussian per class."""
    found = measured(build())
    codes = np.random.default_rng(PARAMS.evaluate.seed).normal(size=(3 * SAMPLES, LATENT))
    expected = np.asarray(build().get_layer("decoder")(codes)).reshape(3, SAMPLES, HEIGHT, WIDTH)
    np.testing.assert_allclose(found.model.pictures.samples, expected, atol=1e-5)
    assert found.baselines[0].pictures.samples.shape == expected.shape


@quick
def test_a_posterior_without_an_active_unit_is_reported() -> None:
    """Even if the reconstruction is better than the mean image, as it can be by chance on few images."""
    for kl, active, mse, expected in (
        ([1e-5, 3e-5], 0, 0.01, "much the same for every image: of 2 latent dimensions none is active"),
        ([1e-5, 3e-5], 0, 0.0678, "and the divergence from the prior is 2e-05 nats."),
        ([5.0, 6.0], 1, 0.0678, "its test mse per pixel, 0.0678, is no better than that of the mean image"),
        ([5.0, 6.0], 1, 0.01, None),
        ([], 0, 0.01, None),  # not variational
        ([], 1, 0.995 * 0.0678, "is no better than that of the mean image"),
        ([], 1, 0.98 * 0.0678, None),
    ):
        model = made_up.result([1, 1], 2, kl=np.array(kl), active_dimensions=active, mse=mse)
        found = collapse(made_up.evaluation(model, made_up.result([1, 1]), [0, 1]))
        assert (found is None) == (expected is None)
        assert expected is None or expected in str(found)


# --- the pipeline ------------------------------------------------------------------------------


def test_a_block_with_a_weight_goes_through_the_whole_pipeline(
    extended_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained, measured, compared, drawn and explored."""
    output = (extended_template / ".dvc/tmp/repro.log").read_text()
    assert "epoch 2 of 2: loss 0." in output
    assert ", val_kl " in output

    monkeypatch.chdir(extended_template)
    history = pd.read_csv("data/history/vae.csv")
    assert (history[["kl", "val_kl"]] > 0).all(axis=None)
    losses = pd.read_csv("plots/losses.csv").query("model == 'vae'")
    for split, loss, kl in (("train", "loss", "kl"), ("validation", "val_loss", "val_kl")):
        parts = losses[losses["split"] == split].pivot_table("loss", "epoch", "part")
        assert set(parts) == {"total", "reconstruction", "KL"}
        np.testing.assert_allclose(parts["total"], history[loss], rtol=1e-8)
        np.testing.assert_allclose(parts["KL"], OF_VAE["kl_weight"] * history[kl] / 784, rtol=1e-6)
        np.testing.assert_allclose(parts["reconstruction"] + parts["KL"], history[loss])

    found = load_evaluation(Path("data/evaluation/vae.npz")).model
    row = next(line for line in Path("metrics/README.md").read_text().splitlines() if line.startswith("| `kl`"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["–"] * 4 + [f"{found.kl.mean():#.4g}"]
    metrics = [json.loads(Path(f"metrics/{name}.json").read_text()) for name in ("deep", "vae")]
    assert list(metrics[0]) == list(metrics[1])

    encoder = keras.saving.load_model("data/models/vae.keras").get_layer("encoder")
    image = np.load("data/prepared/test_images.npy")[3].reshape(1, -1) / np.float32(255)
    seen = answer(Library(read_params(Params)), Scene("vae", 3), Question(tab="Code"))
    np.testing.assert_allclose(seen["code"], np.asarray(encoder(image)[0])[0], atol=1e-4)
