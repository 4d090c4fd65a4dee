"""Generated digits and their judge: against SciPy, scikit-learn and Keras on real digits, by hand, and as stages."""

import math
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import scipy
import sklearn.mixture

from stages.applications.classification import CrossEntropy, build_classification, labelled_rows
from stages.applications.classifier import build_classifier, check_classes, feature_model
from stages.applications.figures import draw_generation
from stages.applications.generation import (
    MIXTURE,
    PER_CLASS,
    PRIOR,
    REAL,
    Floor,
    Generation,
    Generations,
    Judge,
    check_mixture,
    collect,
    digest_judge,
    fit_mixture,
    frechet_distance,
    generate,
    judge_methods,
    load_generations,
    no_generation,
    real_digits,
)
from stages.applications.judge import build_judge, classifying
from stages.applications.schema import ApplicationParams
from stages.core import files, tables
from stages.core.archive import keras_bytes
from stages.core.backend import tf
from stages.core.codes import Mixture, class_mixture, draw_codes, prior_mixture
from stages.core.errors import ParamsError, StageError
from stages.core.evaluation import load_evaluation
from stages.core.files import Split
from stages.core.linear import Moments, code_moments, fit_pca, image_moments
from stages.core.params import read_params
from stages.core.records import load_record, save_record
from stages.core.training import epoch_order, resident, shift, train, whole_batches
from stages.tools import generation as tool
from tests import made_up
from tests.conftest import ROOT, ask_for_generation, change_params, refuse, stages_in_turn, succeed

quick = pytest.mark.quick

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
PARAMS = read_params(ApplicationParams, ROOT / "params.yaml")
SMALL = PARAMS.classifier.model_copy(
    update={"filters": [4], "features": 8, "batch_size": 64, "epochs": 3, "dropout": 0.0, "shift": 0}
)
CLASSES = np.arange(10, dtype=np.uint8)
SETTINGS = PARAMS.generate.model_copy(update={"digits": 60, "draws": 2, "components": 3, "codes": 200})


def flat(split: tuple[np.ndarray, np.ndarray]) -> Split:
    return Split(split[0].reshape(len(split[0]), -1), split[1])


@pytest.fixture(scope="module")
def codes(mnist: Mnist) -> tuple[np.ndarray, np.ndarray]:
    """PCA's codes of the training and the test digits."""
    train_images, test_images = flat(mnist["train"]).images, flat(mnist["test"]).images
    pca = fit_pca(image_moments(train_images, 100), 6)
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
    found = fit_mixture(train_codes, SETTINGS)
    chosen = np.random.default_rng(SETTINGS.seed).permutation(len(train_codes))[:200]
    theirs = sklearn.mixture.GaussianMixture(3, random_state=SETTINGS.seed).fit(train_codes[chosen])
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
    theirs.compile(keras.optimizers.Adam(settings.learning_rate), "sparse_categorical_crossentropy")
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
    """With 99 % of them dropped, next to nothing is left to tell classes apart by."""
    settings = SMALL.model_copy(update={"dropout": 0.99})
    model = build_classifier(28, 28, 10, settings)
    images, labels = (part[:50] for part in flat(mnist["train"]))
    rows = tf.constant(labelled_rows(images, labels, CLASSES) / np.float32(255))
    losses = CrossEntropy(model).losses
    shown, dropped = (losses(rows, rows, tf.constant(0), training)[0] for training in (False, True))
    expected = -np.log(model.predict(images / np.float32(255), verbose=0)[np.arange(50), labels])
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    assert len(np.unique(np.round(dropped, 5))) < 25 < len(np.unique(np.round(shown, 5)))


@quick
def test_shifts_leave_the_class_alone(mnist: Mnist) -> None:
    images, labels = flat(mnist["train"])
    rows = tf.constant(labelled_rows(images[:20], labels[:20], np.arange(10, dtype=np.uint8)))
    assert rows.dtype == tf.uint8
    settings = SMALL.model_copy(update={"shift": 2})
    training = build_classification(build_classifier(28, 28, 10, settings), settings, 600, (28, 28))
    targets, inputs = training.load_batch(rows, 5)
    np.testing.assert_array_equal(inputs, targets)
    assert (targets[:, :784] != images[:20] / np.float32(255)).numpy().any(axis=1).mean() > 0.5
    np.testing.assert_array_equal(targets[:, 784:], np.eye(10)[labels[:20]])


class KilledError(Exception):
    pass


def test_a_killed_classifier_ends_in_the_same_bytes(
    mnist: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL.model_copy(update={"dropout": 0.3, "shift": 1})
    rows = resident(labelled_rows(*flat(mnist["train"]), np.arange(10, dtype=np.uint8)))

    def run(path: Path) -> bytes:
        model = build_classifier(28, 28, 10, settings)
        train(build_classification(model, settings, 600, (28, 28)), rows, rows, path)
        return keras_bytes(model)

    from stages.core.checkpoint import save

    def save_and_end(path: Path, variables: list[Any], history: list[Any]) -> float:
        save(path, variables, history)
        if len(history) == 2:
            raise KilledError
        return -math.inf

    with monkeypatch.context() as patch:
        patch.setattr("stages.core.training.save", save_and_end)
        with pytest.raises(KilledError):
            run(tmp_path / "checkpoint.npz")
    assert run(tmp_path / "checkpoint.npz") == run(tmp_path / "none.npz")


# --- judging -------------------------------------------------------------------------------


@quick
def test_each_learns_from_its_digits_alone(mnist: Mnist) -> None:
    """From the same start: what was learned before leaves no trace."""
    digits, test = flat(mnist["train"]), flat(mnist["test"])
    settings = SMALL.model_copy(update={"dropout": 0.3, "shift": 1})
    judge = build_judge(build_classifier(28, 28, 10, settings), CLASSES, test, settings, 600, (28, 28))
    wrong = Split(digits.images, np.roll(digits.labels, 1))
    answers = [judge.learn(given)(test.images) for given in (digits, wrong, digits)]
    np.testing.assert_array_equal(answers[0], answers[2])
    assert (answers[0] == test.labels).mean() > (answers[1] == test.labels).mean() + 0.2


@quick
def test_classes_are_those_of_training_whatever_validation_has(mnist: Mnist) -> None:
    """A few validation images lack some of them."""
    digits, test = flat(mnist["train"]), flat(mnist["test"])
    few = Split(*(part[test.labels < 3] for part in test))
    judge = build_judge(build_classifier(28, 28, 10, SMALL), CLASSES, few, SMALL, 600, (28, 28))
    assert set(judge.learn(digits)(test.images)) > {7, 9}
    assert judge.predict(test.images).shape == test.labels.shape


@quick
def test_real_digits_decide_when_one_stops_early(mnist: Mnist) -> None:
    """Where their classes are wrong, learning makes their loss worse and ends at once."""
    digits, test = flat(mnist["train"]), flat(mnist["test"])
    settings = SMALL.model_copy(update={"epochs": 6, "early_stopping": 1})
    shares = []
    for validation in (test, Split(test.images, np.roll(test.labels, 1))):
        judge = build_judge(build_classifier(28, 28, 10, settings), CLASSES, validation, settings, 600, (28, 28))
        shares.append((judge.learn(digits)(test.images) == test.labels).mean())
    assert shares[0] > shares[1] + 0.2


def pretend(names: int = 7) -> Judge:
    """A judge that calls everything `names`, whose features are the first two pixels."""

    def always(images: np.ndarray) -> np.ndarray:
        return np.full(len(images), names, np.uint8)

    return Judge(always, lambda images: images[:, :2] / 255, lambda given: lambda images: given.labels[: len(images)])


@quick
def test_methods_and_their_labels(codes: tuple[np.ndarray, np.ndarray]) -> None:
    """A class' Gaussian knows the class; of the others the classifier says it."""
    labels = np.repeat([3, 9], 300).astype(np.uint8)

    def decode(drawn: np.ndarray) -> np.ndarray:
        return drawn[:, :4]

    def methods(variational: bool) -> dict[str, list[Split]]:
        return {k: list(v) for k, v in generate(decode, codes[0], labels, pretend(), SETTINGS, variational)}

    found = methods(True)
    assert list(found) == [PER_CLASS, MIXTURE, PRIOR]
    assert list(methods(False)) == [PER_CLASS, MIXTURE]
    for name, draws in found.items():
        assert [one.images.shape for one in draws] == [(60, 4)] * 2
        assert draws[0].images.dtype == np.uint8
        assert (draws[0].images != draws[1].images).any()
        assert set(draws[0].labels) == ({3, 9} if name == PER_CLASS else {7})
    drawn, components = draw_codes(class_mixture(codes[0], labels), 60, 1)
    np.testing.assert_array_equal(found[PER_CLASS][1].labels, np.array([3, 9])[components])
    np.testing.assert_array_equal(found[PER_CLASS][1].images, np.rint(drawn[:, :4].clip(0, 1) * 255))


@quick
def test_what_is_judged_by_hand() -> None:
    """Features of the real digits vary by 1 around 0 in pixel 1; those of the generated ones are all at 1, 0."""
    images, labels = np.tile(np.array([[0, 255, 9], [0, 0, 9]], np.uint8), (10, 1)), np.repeat([4, 5], 10)
    test = Split(images, labels.astype(np.uint8))
    same = Split(np.tile(np.array([[255, 0, 0]], np.uint8), (20, 1)), np.full(20, 4, np.uint8))
    found = collect(judge_methods([("one", iter([same, test])), ("two", iter([test, test]))], pretend(), test, (1, 3)))
    assert found.methods.tolist() == ["one", "two"]
    np.testing.assert_allclose(found.frechet, np.array([[1 + 0.5**2 + 0.5**2, 0], [0, 0]]), atol=1e-12)
    assert found.accuracy.tolist() == [[0.5, 1], [1, 1]]
    assert found.pictures.dtype == np.float32
    first = [same.images.reshape(20, 1, 3), test.images.reshape(20, 1, 3)]
    np.testing.assert_allclose(found.pictures, np.array(first) / 255, rtol=1e-6)


@quick
def test_neighbouring_seeds_share_no_draw(mnist: Mnist) -> None:
    draws = [
        one.images
        for seed in range(3)
        for one in real_digits(flat(mnist["train"]), SETTINGS.model_copy(update={"seed": seed}))
    ]
    assert len({images.tobytes() for images in draws}) == len(draws) == 3 * SETTINGS.draws


@quick
def test_real_digits_are_as_many_and_none_twice(mnist: Mnist) -> None:
    first, second = real_digits(flat(mnist["train"]), SETTINGS)
    assert len(np.unique(first.images, axis=0)) == len(first.labels) == 60
    assert (first.images != second.images).any()
    again, _ = real_digits(flat(mnist["train"]), SETTINGS)
    np.testing.assert_array_equal(again.images, first.images)


# --- tables and pictures -------------------------------------------------------------------


@quick
def test_the_table_and_the_page_by_hand() -> None:
    pictures = made_up.generation(PER_CLASS, MIXTURE).pictures
    real = Generation(np.array([REAL]), np.array([[1.5, 1.7]]), np.array([[0.98, 0.99]]), pictures[:1])
    frechet, accuracy = np.array([[16.0, 18], [70, 100]]), np.array([[0.65, 0.75], [0.75, 0.75]])
    one = Generation(np.array([PER_CLASS, MIXTURE]), frechet, accuracy, pictures)
    table = tables.generation_table(Floor("judge", 0.9912, real), {"deep": one})
    assert list(table) == ["model", "method", "frechet", "frechet_std", "accuracy", "accuracy_std"]
    assert table[["model", "method"]].to_numpy().tolist() == [["real", REAL], ["deep", PER_CLASS], ["deep", MIXTURE]]
    np.testing.assert_allclose(table["frechet"][1:], one.frechet.mean(axis=1))
    np.testing.assert_allclose(table["accuracy_std"][1:], np.abs(np.diff(one.accuracy)).ravel() / np.sqrt(2))
    page = tables.report_generation(Floor("judge", 0.9912, real), {"deep": one})
    expected = """\
## How good are generated digits?

`frechet` is the distance to the test images in a classifier's features, lower is better. `accuracy`
is the share of the test images that another classifier gets right after learning from these digits
alone. The classifier itself gets 0.9912 right. Mean and standard deviation over 2 draws.
[docs/generation.md](../docs/generation.md) explains both.

|                          |   `frechet` |      `accuracy` |
|:-------------------------|------------:|----------------:|
| real: training images    | 1.60 ± 0.14 | 0.9850 ± 0.0071 |
| deep: Gaussian per class |  17.0 ± 1.4 |   0.700 ± 0.071 |
| deep: Gaussian mixture   |     85 ± 21 | 0.7500 ± 0.0000 |
"""
    assert page == expected
    assert [tables.with_spread(0.98456, 0.00123), tables.with_spread(99.05, 0.4), tables.with_spread(1.5, 0.0)] == [
        "0.9846 ± 0.0012", "99.05 ± 0.40", "1.5000 ± 0.0000"
    ]  # fmt: skip
    nothing = no_generation(2, 3)
    assert nothing.methods.dtype.kind == "U"
    assert nothing.pictures.dtype == np.float32
    assert [part.shape for part in vars(nothing).values()] == [(0,), (0, 0), (0, 0), (0, 0, 2, 3)]
    page = tables.report_generation(Floor("", 0.0, nothing), {"deep": nothing})
    expected = """\
## How good are generated digits?

No classifier was trained, so there is nothing to judge them by;
[docs/generation.md](../docs/generation.md) shows how to train one.
"""
    assert page == expected


@quick
def test_a_model_called_real_is_not_taken_for_it() -> None:
    real, own = made_up.generation(REAL), made_up.generation(PER_CLASS, seed=1)
    table = tables.generation_table(Floor("judge", 0.99, real), {"real": own})
    assert table["method"].tolist() == [REAL, PER_CLASS]
    np.testing.assert_allclose(table["frechet"], [real.frechet.mean(), own.frechet.mean()])


@quick
def test_equal_draws_have_no_spread() -> None:
    same = made_up.generation(REAL)
    same.accuracy[:] = 0.9841
    page = tables.report_generation(Floor("judge", 0.99, same), {"deep": made_up.generation(PER_CLASS)})
    assert "0.9841 ± 0.0000 " in page


@quick
def test_the_picture_has_a_row_for_each_method() -> None:
    figure = draw_generation(
        Floor("judge", 0.99, made_up.generation(REAL)), {"deep": made_up.generation(PER_CLASS, PRIOR)}
    )
    (ax,) = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [f"real: {REAL}", f"deep: {PER_CLASS}", f"deep: {PRIOR}"]
    (picture,) = ax.images
    assert picture.get_size() == (3 * (made_up.HEIGHT + 1) - 1, 20 * (made_up.WIDTH + 1) - 1)


@quick
def test_measures_of_other_classifiers_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {"deep": files.model_files("deep").generation}
    evaluations = {"deep": made_up.evaluation(made_up.result([1, 2]), made_up.result([1, 1]), [0, 1])}
    one = made_up.generation("a")
    for floor, model in (("", "x"), ("x", ""), ("x", "y")):
        for path, record in (
            (files.FLOOR, Floor(floor, 0.9, one)),
            (paths["deep"], Generations(model, 3, 200, one, one)),
        ):
            with files.replacing(path) as file:
                save_record(file, record)
        with pytest.raises(
            StageError, match=r"data/generation/deep\.npz was judged otherwise than data/classifier/floor"
        ):
            load_generations(paths, evaluations)


@quick
def test_unlike_mixtures_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = made_up.evaluation(made_up.result([1, 2]), made_up.result([1, 1]), [0, 1])
    found = made_up.generation("a")
    paths = {name: files.model_files(name).generation for name in ("deep", "wide")}
    with files.replacing(files.FLOOR) as file:
        save_record(file, Floor("x", 0.9, found))
    for path, components in zip(paths.values(), (10, 100), strict=True):
        with files.replacing(path) as file:
            save_record(file, Generations("x", components, 200, found, found))
    with pytest.raises(StageError) as said:
        load_generations(paths, dict.fromkeys(paths, one))
    assert str(said.value) == (
        "data/generation/wide.npz has a mixture of 100 Gaussians fitted to 200 codes, data/generation/deep.npz one of "
        "10 fitted to 200; run `dvc repro`, or `python -m stages.apply NAME` for presets."
    )


@quick
def test_what_no_mixture_can_be_fitted_to(codes: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(
        ParamsError, match=r"generate\.components is 3, but has to be at most 2, the number of codes that"
    ):
        check_mixture(SETTINGS, 2)
    with pytest.raises(ParamsError, match=r"generate\.components is 201, but has to be at most 200, "):
        check_mixture(SETTINGS.model_copy(update={"components": 201}), 600)
    check_mixture(SETTINGS, 3)
    flat_codes = codes[0][:, :2] @ np.random.default_rng(0).normal(size=(2, 6)) * 1e8
    with pytest.raises(StageError, match="no mixture of Gaussians can be fitted to the codes: "):
        fit_mixture(flat_codes, SETTINGS)


@quick
def test_a_judge_is_known_by_its_bytes_and_by_the_digits() -> None:
    settings = read_params(ApplicationParams, ROOT / "params.yaml").generate
    other = settings.model_copy(update={"digits": settings.digits - 1})
    classes, others = np.array([1, 2], np.uint8), np.array([1, 3], np.uint8)
    digests = {
        digest_judge(b"a", classes, settings),
        digest_judge(b"b", classes, settings),
        digest_judge(b"a", others, settings),
        digest_judge(b"a", classes, other),
    }
    assert len(digests) == 4
    assert digest_judge(b"a", classes.copy(), settings) in digests


@quick
def test_a_classifier_of_other_classes_is_refused() -> None:
    settings = read_params(ApplicationParams, ROOT / "params.yaml").classifier
    classifier = build_classifier(4, 5, 3, settings)
    check_classes(files.CLASSIFIER, classifier, 3)
    with pytest.raises(StageError, match=r"classifier\.keras .* 3 classes, .* 2; "):
        check_classes(files.CLASSIFIER, classifier, 2)


# --- stages --------------------------------------------------------------------------------


def test_generation_is_measured_if_asked_for(
    run_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a class missing, too, whose test digits then do not count; twice the same bytes."""
    assert (run_project / files.CLASSIFIER).read_bytes() == b"classifier.train is false\n"
    assert "No classifier was trained" in (run_project / "metrics/README.md").read_text()
    change_params(run_project, ask_for_generation)
    change_params(run_project, lambda p: p["prepare"].update(classes=[0, 1, 2, 4, 5, 6, 7, 8, 9]))
    commands = ("classifier", "apply shallow", "apply deep", "compare")
    written = [files.FLOOR, files.CLASSIFIER, *(Path(f"data/generation/{name}.npz") for name in ("shallow", "deep"))]
    found = []
    for first in (("prepare", *commands), commands):
        result = stages_in_turn(run_project, *first)
        assert result.returncode == 0, result.stderr
        found.append([(run_project / path).read_bytes() for path in written])
    assert found[0] == found[1]
    monkeypatch.chdir(run_project)
    test = files.read_split("test")
    known = test.labels != 3
    classifier = keras.saving.load_model(files.CLASSIFIER)
    classes = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9])
    named = classes[classifier.predict(test.images[known] / 255, verbose=0).argmax(axis=1)]
    floor = load_record(Floor, files.FLOOR)
    assert floor.accuracy == pytest.approx((named == test.labels[known]).mean())
    deep = load_record(Generations, Path("data/generation/deep.npz"))
    assert deep.model.methods.tolist() == deep.pca.methods.tolist() == [PER_CLASS, MIXTURE]
    assert deep.model.pictures.shape == (2, 20, 28, 28)
    evaluation = load_evaluation(Path("data/evaluation/deep.npz"))

    # the first draw of PCA's Gaussians, step by step
    train_digits = files.read_split("train")
    pca_codes = (train_digits.images / np.float32(255) - evaluation.pca_mean) @ evaluation.pca_components.T
    drawn, _ = draw_codes(class_mixture(pca_codes, train_digits.labels), 100, 0)
    digits = np.rint((evaluation.pca_mean + drawn @ evaluation.pca_components).clip(0, 1) * 255) / 255
    np.testing.assert_allclose(deep.pca.pictures[0].reshape(20, -1), digits[:20], atol=1.1 / 255)
    features = keras.Model(classifier.input, classifier.get_layer("features").output)
    moments = [code_moments(features.predict(x, verbose=0)) for x in (digits, test.images[known] / 255)]
    assert deep.pca.frechet[0, 0] == pytest.approx(frechet_distance(*moments), rel=1e-2)

    page = Path("metrics/README.md").read_text()
    assert len(re.findall(rf"^\| (?:PCA \(16\)|shallow|deep): (?:{PER_CLASS}|{MIXTURE}) ", page, re.M)) == 6
    ended = made_up.call_main(tool.main, monkeypatch, capsys, "shallow", "deep")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.strip() in page
    assert Path("plots/studies/generation.png").exists()
    assert len(Path("plots/studies/generation.csv").read_text().splitlines()) == 8


def test_what_a_classifier_cannot_be_trained_on(run_project: Path) -> None:
    change_params(run_project, ask_for_generation)
    change_params(run_project, lambda p: p["generate"].update(digits=501))
    refuse(run_project, 2, "generate.digits is 501, but has to be at most 500, the number of training", "classifier")
    change_params(run_project, lambda p: p["prepare"].update(classes=[4]))
    succeed(run_project, "dvc", "repro", "prepare")
    refuse(run_project, 2, "the training images are of one class; a classifier needs two.", "classifier")
