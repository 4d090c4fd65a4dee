"""Few labels, against SciPy on real digits, by hand, and by the real pipeline."""

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import scipy
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from stages.applications.classifiers import classify, measure_labels, scale
from stages.applications.labels import TABLE, Task, draw_in_turns, read_task
from stages.applications.schema import ApplicationParams
from stages.core import files
from stages.core.files import Split
from stages.core.linear import fit_pca, image_moments
from stages.core.params import read_params
from tests.conftest import MODELS, ROOT

quick = pytest.mark.quick

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
SETTINGS = read_params(ApplicationParams, ROOT / "params.yaml").few_labels.model_copy(
    update={"labels": [10, 50, 1000], "draws": 2, "training_images": 200, "queries": 60, "seed": 3}
)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist: Mnist) -> Path:
    """A folder with prepared images; the training images lack the class 3."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/prepared").mkdir(parents=True)
    images, labels = mnist["train"]
    save_split("train", images[labels != 3], labels[labels != 3])
    save_split("test", *mnist["test"])
    return tmp_path


def save_split(split: str, images: np.ndarray, labels: np.ndarray) -> None:
    np.save(files.images_path(split), images)
    np.save(files.labels_path(split), labels)


# --- which images --------------------------------------------------------------------------


@quick
def test_the_task_is_of_training_images_and_of_test_images_of_trained_classes(prepared: Path) -> None:
    train, test = files.read_split("train"), files.read_split("test")
    task = read_task(SETTINGS)
    for chosen, split, count in ((task.candidates, train, 200), (task.queries, test, 60)):
        assert len(chosen.labels) == count
        places = {(image.tobytes(), label) for image, label in zip(split.images, split.labels, strict=True)}
        found = {(image.tobytes(), label) for image, label in zip(chosen.images, chosen.labels, strict=True)}
        assert len(found) == count
        assert found < places
        assert 3 not in chosen.labels
    assert task.numbers.tolist() == [10, 50, 200]  # 1,000 stand for all
    for draw in task.draws:
        assert sorted(Counter(task.candidates.labels[draw[:10]].tolist()).values()) == [1] * 8 + [2]
    assert (task.draws[0] != task.draws[1]).any()
    again, other = read_task(SETTINGS), read_task(SETTINGS.model_copy(update={"seed": 4}))
    np.testing.assert_array_equal(again.draws, task.draws)
    np.testing.assert_array_equal(again.queries.images, task.queries.images)
    assert (other.candidates.images != task.candidates.images).any()
    assert (other.queries.images != task.queries.images).any()
    more = {"training_images": 10**6, "queries": 10**6, "labels": [10**6, 10**5]}
    everything = read_task(SETTINGS.model_copy(update=more))
    np.testing.assert_array_equal(everything.candidates.images, train.images)
    assert len(everything.queries.labels) == (test.labels != 3).sum()
    assert everything.numbers.tolist() == [len(train.labels)]


@quick
def test_within_a_turn_the_order_is_that_of_chance() -> None:
    """Python's sort is stable. Another one orders equal turns by the processor's instructions."""
    labels = np.repeat([3, 5, 8], [300, 200, 100]).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    seen, turns = Counter[int](), {}
    for position in order.tolist():
        turns[position] = seen[int(labels[position])]
        seen[int(labels[position])] += 1
    expected = sorted(order.tolist(), key=turns.__getitem__)
    assert draw_in_turns(labels, np.random.default_rng(0)).tolist() == expected


# --- classifiers ---------------------------------------------------------------------------


def by_scipy(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, penalty: float) -> np.ndarray:
    """The classes that logistic regression gives, its objective minimised by SciPy."""
    classes, places = np.unique(labels, return_inverse=True)
    shape = (features.shape[1] + 1, len(classes))
    inputs = np.column_stack([features, np.ones(len(features))]).astype(np.float64)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        logs = scipy.special.log_softmax(inputs @ weights, axis=1)
        free = np.vstack([weights[:-1], np.zeros((1, shape[1]))])  # of the intercept nothing is penalised
        loss = -logs[np.arange(len(places)), places].sum() + penalty / 2 * np.square(free).sum()
        return loss, (inputs.T @ (np.exp(logs) - np.eye(shape[1])[places]) + penalty * free).ravel()

    found = scipy.optimize.minimize(
        objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"gtol": 1e-6}
    )
    weights = found.x.reshape(shape)
    best: np.ndarray = classes[np.argmax(queries @ weights[:-1] + weights[-1], axis=1)]
    return best


def by_votes(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """The classes that k-nearest neighbours give, one query at a time."""
    found = []
    for row in scipy.spatial.distance.cdist(queries, features):
        nearest = np.argsort(row)[:count]
        votes = {label: (1 / row[nearest])[labels[nearest] == label].sum() for label in set(labels[nearest])}
        found.append(max(votes, key=lambda label: votes[label]))
    return np.array(found)


def by_spreading(features: np.ndarray, labels: np.ndarray, some: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The classes that label spreading converges to, which is the solution of a linear system."""
    distances = scipy.spatial.distance.cdist(features, features)
    np.fill_diagonal(distances, np.inf)
    graph = np.zeros_like(distances)
    np.put_along_axis(graph, np.argsort(distances, axis=1)[:, :10], 1, axis=1)
    graph = np.maximum(graph, graph.T)
    roots = np.sqrt(graph.sum(axis=1))
    known = np.zeros((len(features), 10))
    known[some, labels[some]] = 1
    shares = np.linalg.solve(np.eye(len(features)) - 0.95 * graph / np.outer(roots, roots), known)
    shares /= shares.sum(axis=1, keepdims=True)
    near = np.argsort(scipy.spatial.distance.cdist(queries, features), axis=1)[:, :10]
    found: np.ndarray = np.argmax(shares[near].sum(axis=1), axis=1)
    return found


@pytest.fixture(scope="module")
def coded(mnist: Mnist) -> tuple[Task, Any]:
    """300 training digits, 40 or all of them labelled, 100 test digits, and PCA of 12 components."""
    candidates = Split(mnist["train"][0][:300].reshape(300, -1), mnist["train"][1][:300])
    queries = Split(mnist["test"][0][:100].reshape(100, -1), mnist["test"][1][:100])
    random = np.random.default_rng(0)
    draws = [draw_in_turns(candidates.labels, random) for _ in range(2)]
    return Task(candidates, queries, draws, np.array([40, 300])), fit_pca(image_moments(candidates.images), 12)


@quick
def test_accuracy_and_precision_are_those_of_scipy(coded: tuple[Task, Any]) -> None:
    """On PCA's codes of real digits, from the definitions."""
    task, pca = coded
    found = measure_labels(pca.encode, task, SETTINGS)
    codes, queries = (pca.encode(split.images / 255) for split in (task.candidates, task.queries))
    deviation = np.sqrt(np.square(codes - codes.mean(axis=0)).sum(axis=1).mean())
    codes, queries = codes / deviation, (queries - codes.mean(axis=0)) / deviation
    codes -= codes.mean(axis=0)
    labels = task.candidates.labels
    for column, draw in enumerate(task.draws):
        for row, number in enumerate(task.numbers):
            some = draw[:number]
            logistic = by_scipy(codes[some], labels[some], queries, SETTINGS.penalty)
            votes = by_votes(codes[some], labels[some], queries, SETTINGS.neighbours)
            assert found.logistic[row, column] == pytest.approx((logistic == task.queries.labels).mean(), abs=0.011)
            assert found.neighbours[row, column] == pytest.approx((votes == task.queries.labels).mean(), abs=1e-9)
            limit = by_spreading(codes, labels, some, queries)
            assert found.spreading[row, column] == pytest.approx((limit == task.queries.labels).mean(), abs=0.011)
    assert found.logistic.shape == found.neighbours.shape == found.spreading.shape == (2, 2)
    assert (found.spreading[0] > found.neighbours[0] + 0.05).all()  # the unlabelled images help
    assert found.logistic[0, 0] != found.logistic[0, 1]  # other images have a label
    nearest = np.argsort(scipy.spatial.distance.cdist(queries, codes), axis=1)[:, :10]
    np.testing.assert_allclose(found.precision, (labels[nearest] == task.queries.labels[:, None]).mean(axis=1))


@quick
def test_logistic_regression_has_the_penalty_of_the_settings(coded: tuple[Task, Any]) -> None:
    task, pca = coded
    codes, queries = scale(*(pca.encode(split.images / 255) for split in (task.candidates, task.queries)))
    some = task.draws[0][:40]
    predictions = []
    for penalty in (0.01, 10.0):
        given_settings = SETTINGS.model_copy(update={"penalty": penalty})
        found, _ = classify(codes[some], task.candidates.labels[some], queries, given_settings)
        expected = by_scipy(codes[some], task.candidates.labels[some], queries, penalty)
        assert (found == expected).mean() >= 0.99
        predictions.append(found)
    assert (predictions[0] != predictions[1]).mean() > 0.03  # so that a wrong penalty would be noticed


@quick
def test_scaled_features_have_one_unit_and_keep_their_geometry() -> None:
    random = np.random.default_rng(0)
    candidates, queries = random.normal(5, [1, 10, 0.1], (40, 3)), random.normal(5, 1, (7, 3))
    scaled, also = scale(candidates, queries)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    assert np.square(scaled).sum(axis=1).mean() == pytest.approx(1, rel=1e-6)
    before, after = (scipy.spatial.distance.cdist(*pair) for pair in ((queries, candidates), (also, scaled)))
    np.testing.assert_allclose(after / before, after[0, 0] / before[0, 0], rtol=1e-5)
    many = (10_000 + random.normal(0, 1, (50_000, 2))).astype(np.float32)  # float32 sums of them are off
    exact = (many - many.mean(axis=0, dtype=np.float64)) / np.sqrt(many.var(axis=0, dtype=np.float64).sum())
    np.testing.assert_allclose(scale(many, many)[0], exact, rtol=1e-6, atol=1e-7)
    collapsed, _ = scale(np.full((4, 2), 7.0), queries[:, :2])
    assert not collapsed.any()


@quick
@pytest.mark.parametrize("classes", [[5], [5, 7]])
def test_of_one_class_everything_is_right(classes: list[int]) -> None:
    """With labels of one of two classes, half is right; with all labels, everything is. Nothing warns.

    Except by spreading, where all four images are neighbours of all.
    """
    labels = np.array(classes * 2, np.uint8)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4), np.uint8)
    task = Task(Split(images, labels), Split(images, labels), [np.arange(len(labels))] * 2, np.array([1, len(labels)]))
    found = measure_labels(lambda pixels: pixels, task, SETTINGS)
    share = 1 / len(classes)
    assert found.logistic.tolist() == found.neighbours.tolist() == [[share, share], [1, 1]]
    assert found.spreading.tolist() == [[share, share]] * 2
    assert found.precision.tolist() == [share] * len(labels)


@quick
def test_a_collapsed_model_is_measured(coded: tuple[Task, Any]) -> None:
    task, _ = coded
    found = measure_labels(lambda images: np.zeros((len(images), 3), np.float32), task, SETTINGS)
    assert found.logistic.max() <= 0.25
    by_class = [set(found.precision[task.queries.labels == label]) for label in range(10)]
    assert [len(shares) for shares in by_class] == [1] * 10  # all queries get the same candidates
    assert sum(share for shares in by_class for share in shares) == pytest.approx(1)


# --- the pipeline --------------------------------------------------------------------------


def test_the_table_of_labels_is_what_keras_and_scikit_learn_give(
    run_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With codes by Keras' own predict. Rounding decides between some equal distances, hence the tolerances."""
    monkeypatch.chdir(run_template)
    chosen = read_params(ApplicationParams).few_labels
    task = read_task(chosen)
    table: dict[Any, Any] = pd.read_csv(TABLE).set_index(["method", "labels"]).to_dict("index")
    scaled = [split.images / np.float32(255) for split in (task.candidates, task.queries)]
    pca = PCA(16, svd_solver="full").fit(files.read_split("train").images / 255)
    features = {"all pixels": scaled, "PCA (16)": [pca.transform(images) for images in scaled]}
    for name in MODELS:
        encoder = keras.saving.load_model(files.model_files(name).model).get_layer("encoder")
        keras.utils.set_random_seed(chosen.seed)
        for method, some in ((f"untrained {name}", keras.models.clone_model(encoder)), (name, encoder)):
            features[method] = [some.predict(images, verbose=0) for images in scaled]
    assert table.keys() == {(method, labels) for method in features for labels in (10, 100)}
    labels = task.candidates.labels
    for method, (candidates, queries) in features.items():
        deviation = np.sqrt(candidates.var(axis=0).sum())
        one, other = candidates / deviation, queries / deviation
        for name, classifier, tolerance in (
            ("logistic", LogisticRegression(C=1 / chosen.penalty, max_iter=1000), 0.01),
            ("neighbours", KNeighborsClassifier(chosen.neighbours, weights="distance"), 0.005),
        ):
            fitted = (classifier.fit(one[draw[:100]], labels[draw[:100]]) for draw in task.draws)
            shares = [some.score(other, task.queries.labels) for some in fitted]
            assert table[method, 100][name] == pytest.approx(np.mean(shares), abs=tolerance)
        nearest = np.square(other[:, None] - one).sum(axis=2).argsort(axis=1)[:, :10]
        precision = (labels[nearest] == task.queries.labels[:, None]).mean()
        assert table[method, 10]["precision"] == pytest.approx(precision, abs=0.002)
