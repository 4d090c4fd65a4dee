"""Generated digits and their classifier: against SciPy, scikit-learn and Keras on real digits, and as a stage."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import scipy
import sklearn.mixture

from stages import generate
from stages.applications.classification import CrossEntropy, build_classification, labelled_rows
from stages.applications.classifier import build_classifier, feature_model
from stages.applications.generation import (
    MIXTURE,
    PER_CLASS,
    REAL,
    check_mixture,
    fit_mixture,
    frechet_distance,
    real_digits,
)
from stages.applications.mixtures import Mixture, class_mixture, draw_codes, prior_mixture
from stages.applications.reference_classifier import classifying, reference_classifier
from stages.applications.schema import ApplicationParams, SeededClassifier
from stages.core import files
from stages.core.backend import tf
from stages.core.errors import ParamsError, StageError
from stages.core.files import Split
from stages.core.linear import Moments, code_moments, fit_pca, image_moments
from stages.core.params import read_params
from stages.core.training import epoch_order, resident, shift, train, whole_batches
from tests import made_up
from tests.conftest import MODELS, ROOT, change_params, outputs, refused, start, succeed, wait_until

quick = pytest.mark.quick

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
PARAMS = read_params(ApplicationParams, ROOT / "params.yaml")
CHANGED = {"filters": [4], "features": 8, "batch_size": 64, "epochs": 3, "dropout": 0.0, "shift": 0}
SMALL = SeededClassifier(**PARAMS.generate.classifier.model_dump() | CHANGED, seed=0)
CLASSES = np.arange(10, dtype=np.uint8)
FEW = {"digits": 60, "draws": 2, "components": 3, "codes": 200}
SETTINGS = PARAMS.generate.model_copy(update=FEW)


def flat(split: tuple[np.ndarray, np.ndarray]) -> Split:
    return Split(split[0].reshape(len(split[0]), -1), split[1])


@pytest.fixture(scope="module")
def codes(mnist: Mnist) -> tuple[np.ndarray, np.ndarray]:
    """PCA's codes of the training and the test digits."""
    train_images, test_images = flat(mnist["train"]).images, flat(mnist["test"]).images
    pca = fit_pca(image_moments(train_images), 6)
    return pca.encode(train_images / 255), pca.encode(test_images / 255)


# --- the Fréchet distance ------------------------------------------------------------------


@quick
def test_the_frechet_distance_is_that_of_scipys_square_root(codes: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = map(code_moments, codes)
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance).real
    expected = np.square(first.mean - second.mean).sum()
    expected += np.trace(first.covariance + second.covariance - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


@quick
def test_the_frechet_distance_by_hand() -> None:
    """Of independent features (m - n)^2 + (s - t)^2 each; a feature that never varies is no trouble."""
    first = Moments(np.array([1.0, 2, 5]), np.diag([4.0, 9, 0]))
    second = Moments(np.array([3.0, 2, 5]), np.diag([1.0, 25, 0]))
    assert frechet_distance(first, second) == pytest.approx(2**2 + (2 - 1) ** 2 + (3 - 5) ** 2)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


@quick
@pytest.mark.parametrize("variances", [([4.0, -1e-17], [9.0, 0]), ([4.0, 1e-17], [9.0, -1e-17])])
def test_a_variance_that_rounding_made_negative_is_none(variances: tuple[list[float], list[float]]) -> None:
    first, second = (Moments(np.zeros(2), np.diag(values)) for values in variances)
    assert frechet_distance(first, second) == pytest.approx((2 - 3) ** 2)


# --- drawing codes -------------------------------------------------------------------------


@quick
def test_the_mixture_is_scikit_learns(codes: tuple[np.ndarray, np.ndarray]) -> None:
    train_codes, test_codes = codes
    found = fit_mixture(train_codes, SETTINGS, 0)
    chosen = np.random.default_rng(0).permutation(len(train_codes))[:200]
    theirs = sklearn.mixture.GaussianMixture(3, random_state=0).fit(train_codes[chosen])
    densities = [
        weight * scipy.stats.multivariate_normal(mean, covariance).pdf(test_codes)
        for weight, mean, covariance in zip(*found, strict=True)
    ]
    np.testing.assert_allclose(np.log(np.sum(densities, axis=0)), theirs.score_samples(test_codes), rtol=1e-6)


@quick
def test_a_class_has_the_gaussian_of_its_codes(mnist: Mnist, codes: tuple[np.ndarray, np.ndarray]) -> None:
    labels = mnist["train"][1]
    found = class_mixture(codes[0], labels)
    for label in range(10):
        of_class = codes[0][labels == label]
        assert found.weights[label] == len(of_class) / len(labels)
        np.testing.assert_allclose(found.means[label], of_class.mean(axis=0))
        np.testing.assert_allclose(found.covariances[label], np.cov(of_class.T, bias=True), atol=1e-12)


@quick
def test_draws_have_the_moments_of_their_component() -> None:
    covariances = np.array([[[2.0, 1], [1, 3]], [[1, 0], [0, 0]]])
    mixture = Mixture(np.array([0.75, 0.25]), np.array([[0.0, 10], [-10, 0]]), covariances)
    drawn, components = draw_codes(mixture, 40_000, 1)
    assert (components == 0).mean() == pytest.approx(0.75, abs=0.01)
    for index in (0, 1):
        mean, covariance = code_moments(drawn[components == index])
        np.testing.assert_allclose(mean, mixture.means[index], atol=0.05)
        np.testing.assert_allclose(covariance, covariances[index], atol=0.08)
    np.testing.assert_array_equal(draw_codes(mixture, 40_000, 1)[0], drawn)
    normal, _ = draw_codes(prior_mixture(3), 40_000, 1)
    np.testing.assert_allclose(code_moments(normal).covariance, np.eye(3), atol=0.03)


# --- a classifier in the engine ------------------------------------------------------------


@quick
def test_training_a_classifier_is_keras_own(mnist: Mnist) -> None:
    """Three epochs of nine batches of 64, with the same order of images."""
    images, labels = flat(mnist["train"])
    classes, validation = np.arange(10, dtype=np.uint8), flat(mnist["test"])
    settings = SMALL.model_copy(update={"schedule": "constant", "warmup_epochs": 0.0})
    ours, theirs = (build_classifier(28, 28, 10, settings) for _ in range(2))
    rows, held_out = (resident(labelled_rows(*split, classes)) for split in ((images, labels), validation))
    history = train(build_classification(ours, settings, 600, (28, 28)), rows, held_out)
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    theirs.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    for row in history:
        order = whole_batches(epoch_order(settings.seed, row.epoch, 600), 64).ravel()
        fitted = theirs.fit(images[order] / 255, labels[order], batch_size=64, shuffle=False, verbose=0)
        assert row.loss == pytest.approx(fitted.history["loss"][0], rel=1e-3)
        expected = theirs.evaluate(validation.images / 255, validation.labels, verbose=0)
        assert row.val_loss == pytest.approx(expected, rel=1e-3)
    np.testing.assert_array_equal(
        classifying(ours, classes)(validation.images), theirs.predict(validation.images / 255, verbose=0).argmax(axis=1)
    )
    features = feature_model(ours)(validation.images[:5] / np.float32(255))
    assert features.shape == (5, settings.features)


@quick
def test_a_classifier_is_shown_shifted_images() -> None:
    """Of a height that is not the width. At a step size of nearly 0, the epoch's loss is that of the first weights."""
    random = np.random.default_rng(0)
    labels = np.arange(12, dtype=np.uint8) % 3
    rows = labelled_rows(random.integers(0, 256, (12, 40), np.uint8), labels, np.arange(3, dtype=np.uint8))
    settings = SMALL.model_copy(update={"shift": 2, "learning_rate": 1e-30, "batch_size": 12, "filters": []})
    model = build_classifier(4, 10, 3, settings)
    training = build_classification(model, settings, 12, (4, 10))
    sums = training.train_steps(resident(rows), np.arange(12, dtype=np.int32)[None])
    loss, _ = training.mean_losses([sums], 12)
    images = rows[:, :40]
    shifted = shift(tf.constant(images), (4, 10), 2, settings.seed, 0).numpy()
    expected, unshifted = (
        -np.log(model(shown / np.float32(255)).numpy()[np.arange(12), labels]).mean() for shown in (shifted, images)
    )
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss != pytest.approx(unshifted, rel=1e-3)


@quick
def test_only_training_drops_features(mnist: Mnist) -> None:
    """With 99 % of them dropped, almost nothing is left to distinguish classes by."""
    settings = SMALL.model_copy(update={"dropout": 0.99})
    model = build_classifier(28, 28, 10, settings)
    images, labels = (part[:50] for part in flat(mnist["train"]))
    rows = tf.constant(labelled_rows(images, labels, CLASSES) / np.float32(255))
    losses = tf.function(CrossEntropy(model).losses, jit_compile=True)
    shown, dropped = (losses(rows, rows, tf.constant(0), training)[0].numpy() for training in (False, True))
    expected = -np.log(model.predict(images / np.float32(255), verbose=0)[np.arange(50), labels])
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    assert len(np.unique(np.round(dropped, 5))) < 25 < len(np.unique(np.round(shown, 5)))


# --- judging -------------------------------------------------------------------------------


@quick
def test_each_learns_from_its_digits_alone(mnist: Mnist) -> None:
    """From the same start: what was learned before leaves no trace, and validation images may lack classes."""
    digits, test = flat(mnist["train"]), flat(mnist["test"])
    few = Split(*(part[test.labels < 3] for part in test))
    settings = SMALL.model_copy(update={"dropout": 0.3, "shift": 1})
    judge = reference_classifier(build_classifier(28, 28, 10, settings), CLASSES, few, settings, 600, (28, 28))
    wrong = Split(digits.images, np.roll(digits.labels, 1))
    answers = [judge.learn(given)(test.images) for given in (digits, wrong, digits)]
    np.testing.assert_array_equal(answers[0], answers[2])
    assert set(answers[0]) > {7, 9}
    assert (answers[0] == test.labels).mean() > (answers[1] == test.labels).mean() + 0.2


@quick
def test_real_digits_decide_when_one_stops_early(mnist: Mnist) -> None:
    """Where their classes are wrong, learning makes their loss worse and ends at once."""
    digits, test = flat(mnist["train"]), flat(mnist["test"])
    settings = SMALL.model_copy(update={"epochs": 6, "early_stopping": 1})
    shares = []
    for validation in (test, Split(test.images, np.roll(test.labels, 1))):
        judge = reference_classifier(
            build_classifier(28, 28, 10, settings), CLASSES, validation, settings, 600, (28, 28)
        )
        shares.append((judge.learn(digits)(test.images) == test.labels).mean())
    assert shares[0] > shares[1] + 0.2


@quick
def test_real_digits_are_none_twice_and_others_for_every_draw_and_seed(mnist: Mnist) -> None:
    train_split = flat(mnist["train"])
    draws, again = ([one for seed in range(3) for one in real_digits(train_split, SETTINGS, seed)] for _ in range(2))
    assert [len(np.unique(one.images, axis=0)) for one in draws] == [len(one.labels) for one in draws] == [60] * 6
    assert len({one.images.tobytes() for one in draws}) == len(draws)
    np.testing.assert_array_equal(again[0].images, draws[0].images)


# --- what is refused -----------------------------------------------------------------------


@quick
def test_what_no_mixture_can_be_fitted_to(codes: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ParamsError, match=r"generate\.components is 3, but has to be at most 2, "):
        check_mixture(SETTINGS, 2)
    check_mixture(SETTINGS, 3)
    flat_codes = codes[0][:, :2] @ np.random.default_rng(0).normal(size=(2, 6)) * 1e8
    with pytest.raises(StageError, match="no mixture of Gaussians can be fitted to the codes: "):
        fit_mixture(flat_codes, SETTINGS, 0)


@quick
@pytest.mark.parametrize(
    ("changes", "classes", "sentence"),
    [
        ({"digits": 601}, CLASSES, "generate.digits is 601, but has to be at most 600"),
        ({"components": 601, "codes": 1000}, CLASSES, "generate.components is 601, but has to be at most 600"),
        ({}, CLASSES[4:5], "prepare.classes leaves training images of one class"),
    ],
)
def test_what_a_classifier_cannot_be_trained_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mnist: Mnist,
    changes: dict[str, int],
    classes: np.ndarray,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change_params(tmp_path, lambda p: p["generate"].update(FEW | changes))
    change_params(tmp_path, lambda p: p["generate"]["classifier"].update(batch_size=20))
    (tmp_path / "data/prepared").mkdir(parents=True)
    chosen = np.isin(mnist["train"][1], classes)
    for split in files.SPLITS:
        np.save(files.images_path(split), mnist["train"][0][chosen])
        np.save(files.labels_path(split), mnist["train"][1][chosen])
    ended = made_up.call_main(generate.main, monkeypatch, capsys, "0")
    refused(ended.status, ended.err, 2, sentence)


# --- the stage -----------------------------------------------------------------------------


GENERATED = ["data/generation/0.keras", "metrics/generation_0.md", "plots/generation_0.csv", "plots/generation_0.png"]


def test_generated_digits_are_measured_if_asked_for(run_template: Path, one_missing: Path) -> None:
    """With a class missing, too, whose test digits then do not count."""
    before, after = (
        {str(path.relative_to(project)) for path in outputs(project)} for project in (run_template, one_missing)
    )
    assert after - before == set(GENERATED)
    table = pd.read_csv(one_missing / "plots/generation_0.csv")
    ways = [(name, way) for name in ("PCA (16)", *MODELS) for way in (PER_CLASS, MIXTURE)]
    assert list(zip(table["model"], table["method"], strict=True)) == [("real", REAL), *ways]
    page = (one_missing / "metrics/generation_0.md").read_text()
    assert [name for name, way in ways if f"| {name}: {way} " not in page] == []
    output = (one_missing / ".dvc/tmp/repro.log").read_text()
    check_classifier(one_missing, table.set_index(["model", "method"])["frechet"].to_dict(), output)


def test_a_killed_generation_ends_in_the_same_bytes(one_missing: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(one_missing, project, symlinks=True)
    written = {name: (project / name).read_bytes() for name in GENERATED}
    for path in map(project.joinpath, GENERATED):
        path.unlink()
    checkpoints = project / ".dvc/tmp/checkpoints"
    killed = start(project, sys.executable, "-m", "stages.generate", "0")
    wait_until(lambda: list(checkpoints.glob("[!.]*")))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not [name for name in GENERATED if (project / name).exists()]
    succeed(project, sys.executable, "-m", "stages.generate", "0")
    assert {name: (project / name).read_bytes() for name in GENERATED} == written
    assert list(checkpoints.iterdir()) == []


def check_classifier(project: Path, frechet: dict[Any, float], output: str) -> None:
    """Its accuracy, and the distance of digits of PCA's Gaussians, by Keras."""
    prepared = {
        name: np.load(project / f"data/prepared/{name}.npy")
        for name in ("train_images", "train_labels", "test_images", "test_labels")
    }
    train_images, test_images = (
        prepared[f"{split}_images"].reshape(-1, 784) / np.float32(255) for split in ("train", "test")
    )
    known = prepared["test_labels"] != 3
    classes = np.unique(prepared["train_labels"])
    classifier = keras.saving.load_model(project / "data/generation/0.keras")
    named = classes[classifier.predict(test_images[known], verbose=0).argmax(axis=1)]
    share = (named == prepared["test_labels"][known]).mean()
    assert f"classifier: {share:.2%} of the test images right" in output

    pca = fit_pca(image_moments(prepared["train_images"].reshape(-1, 784)), 16)
    mixture = class_mixture(pca.encode(train_images), prepared["train_labels"])
    features = keras.Model(classifier.input, classifier.get_layer("features").output)
    real, distances = code_moments(features.predict(test_images[known], verbose=0)), []
    for draw in (0, 1):
        digits = np.rint(pca.decode(draw_codes(mixture, 100, draw)[0]).clip(0, 1) * 255) / np.float32(255)
        distances.append(frechet_distance(code_moments(features.predict(digits, verbose=0)), real))
    assert frechet["PCA (16)", PER_CLASS] == pytest.approx(np.mean(distances), rel=1e-2)
    assert frechet["real", REAL] < frechet["PCA (16)", PER_CLASS]
