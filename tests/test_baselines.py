"""A second baseline is one function and one entry in a list."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.decomposition import NMF

from stages.core import charts, pictures, tables
from stages.core.arrays import Bytes
from stages.core.baselines import BASELINES, fit_baselines
from stages.core.comparison import compare_all
from stages.core.encoder_decoder import Data, EncoderDecoder, measure
from stages.core.evaluation import BASELINE, results_by_name
from stages.core.files import Split
from stages.core.linear import Moments, fit_pca, image_moments
from stages.core.schema import Evaluate
from tests import made_up

pytestmark = pytest.mark.quick
SETTINGS = Evaluate(active_variance=0.01, ridge=1.0, seed=0)


def nmf(images: Bytes, moments: Moments, latent_dim: int) -> EncoderDecoder:
    fitted = NMF(latent_dim, max_iter=50, tol=0.1, random_state=0).fit(images / 255)
    components = fitted.components_
    return EncoderDecoder(
        lambda x: fitted.transform(x.astype(np.float64)),
        lambda codes: (codes @ components).clip(0, 1),
        components.size,
    )


@pytest.fixture
def data(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> Data:
    train, test = (Split(images.reshape(len(images), -1), labels) for images, labels in mnist.values())
    return Data(train, test, test, (28, 28), image_moments(train.images))


def test_a_second_baseline_gets_its_rows_in_tables_and_figures(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "NMF", nmf)
    fitted = fit_baselines(data.train.images, data.moments, 4)
    assert list(fitted) == ["PCA (4)", "NMF (4)"]
    baselines = [measure(BASELINE, name, method, data, SETTINGS) for name, method in fitted.items()]
    model = measure("model", "deep", fitted["PCA (4)"], data, SETTINGS)
    digits = made_up.digits(data.test.labels.tolist())
    one = SimpleNamespace(model=model, baselines=baselines, latent_dim=4, pixels=784, digits=digits)
    evaluations = {"deep": one}
    results = results_by_name(evaluations)  # type: ignore[arg-type]
    assert list(results) == ["PCA (4)", "NMF (4)", "deep"]
    compared = compare_all(evaluations, 100, 0)  # type: ignore[arg-type]
    assert [(row.model, row.opponent) for row in compared] == [("deep", "PCA (4)"), ("deep", "NMF (4)")]
    per_class = tables.mse_per_class_table(evaluations)  # type: ignore[arg-type]
    assert list(dict.fromkeys(per_class["model"])) == list(results)
    assert any("NMF (4)" in ax.get_ylabel() for ax in charts.draw_errors(results).axes)
    assert "NMF (4)" in " ".join(ax.get_title() for ax in pictures.draw_traversals(results).axes)
    plt.close("all")


def test_pca_is_clipped_and_so_closer_to_the_images(data: Data) -> None:
    clipped = fit_baselines(data.train.images, data.moments, 8)["PCA (8)"]
    plain = fit_pca(data.moments, 8)
    images = data.test.images / np.float32(255)
    outputs = clipped.decode(clipped.encode(images))
    np.testing.assert_array_equal(outputs, plain.decode(plain.encode(images)).clip(0, 1))
    assert np.square(outputs - images).mean() < np.square(plain.decode(plain.encode(images)) - images).mean()


def test_a_code_as_large_as_the_image_has_no_baseline(data: Data) -> None:
    assert fit_baselines(data.train.images, data.moments, 784) == {}
