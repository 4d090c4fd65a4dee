"""The pipeline as its user meets it: the real `dvc` on small real data in temporary clones."""

import io
import json
import re
import shlex
import shutil
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from stages.core.backend import tf
from stages.core.evaluation import load_evaluation
from stages.core.params import read_params
from stages.core.schema import Params
from stages.core.style import BASELINE_COLOURS, COLOURS
from tests.conftest import (
    MODELS,
    ROOT,
    STAGES,
    Stage,
    call,
    digests,
    outputs,
    pictures,
    stages_run,
    succeed,
)

FIGURES = pictures("figures")
OF_APPLICATIONS = pictures("anomalies", "denoise", "few_labels")
METRICS = ["mse", "mse_pca", "mse_validation", "ssim", "probe", "parameters"]
FOUR_DIGITS = 6e-4  # the largest relative error of a number with four significant digits, and a little


# --- what can be run ----------------------------------------------------------------------


@pytest.mark.quick
def test_the_package_lists_its_stages_and_tools() -> None:
    listing = succeed(ROOT, sys.executable, "-m", "stages")
    commands = [line.split(maxsplit=4) for line in listing.splitlines() if line.startswith("  python -m stages")]
    assert [command[2].removeprefix("stages.") for command in commands[: len(STAGES)]] == list(STAGES)
    assert list(STAGES) == list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert {"check", "reconstruct", "study"} <= {command[3] for command in commands[len(STAGES) :]}


@pytest.mark.quick
@pytest.mark.parametrize(("name", "nearest"), [("Trian", ["train"]), ("nonsense", [])])
def test_an_unknown_stage_or_tool_is_refused_with_the_nearest_one(name: str, nearest: list[str]) -> None:
    result = call(ROOT, sys.executable, "-m", "stages", name, "deep")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: there is no stage or tool {name!r}")
    assert re.findall(r"did you mean (\w+)\?", result.stderr) == nearest
    assert f"{', '.join(STAGES)}, check, " in result.stderr
    assert result.stderr.count("\n") == 1


# --- what a run leaves --------------------------------------------------------------------


def test_a_second_run_finds_nothing_to_do(run_template: Path) -> None:
    assert stages_run(succeed(run_template, "dvc", "repro")) == set()
    assert succeed(run_template, "git", "status", "--porcelain") == ""


def tables_of(page: Path) -> list[pd.DataFrame]:
    """The tables of a page in Markdown, their cells as text, the first column as index without code marks."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        header, _, *rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in block.splitlines()]
        found.append(pd.DataFrame(rows, columns=header).set_index(header[0]))
    return found


def floats(cells: Any) -> list[float]:
    return [float(cell.replace(",", "")) for cell in cells]


class Recomputed:
    """The numbers of the report by Keras, TensorFlow and scikit-learn, from what prepare and train left."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.images, self.labels = {}, {}
        for split in ("train", "validation", "test"):
            stored = np.load(project / f"data/prepared/{split}_images.npy")
            self.images[split] = stored.reshape(len(stored), -1) / np.float32(255)
            self.labels[split] = np.load(project / f"data/prepared/{split}_labels.npy")

    def pca(self, fitted: str = "train") -> dict[str, float]:
        pca = PCA(16, svd_solver="full").fit(self.images[fitted].astype(np.float64))
        codes = {split: pca.transform(images) for split, images in self.images.items()}
        return self.measured(codes, lambda some: pca.inverse_transform(some).clip(0, 1)) | {"parameters": 17 * 784}

    def model(self, name: str, probe_fitted: str = "train") -> dict[str, float]:
        model = keras.saving.load_model(self.project / f"data/models/{name}.keras")
        encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
        codes = {split: encoder.predict(images, verbose=0) for split, images in self.images.items()}
        measured = self.measured(codes, lambda some: decoder.predict(some, verbose=0), probe_fitted)
        return measured | {"parameters": model.count_params()}

    def measured(self, codes: dict[str, Any], decode: Any, probe_fitted: str = "train") -> dict[str, float]:
        decoded = {split: decode(values) for split, values in codes.items()}
        mse = {split: float(np.square(decoded[split] - images).mean()) for split, images in self.images.items()}
        y = np.clip(decoded["test"], 1e-7, 1 - 1e-7).astype(np.float64)
        x = self.images["test"].astype(np.float64)
        pictures = (a.reshape(-1, 28, 28, 1).astype(np.float32) for a in (x, decoded["test"]))
        return {
            "mse": mse["test"],
            "mse_train": mse["train"],
            "mse_validation": mse["validation"],
            "squared_error": 784 * mse["test"],
            "psnr": float(-10 * np.log10(mse["test"])),
            "ssim": float(tf.image.ssim(*pictures, max_val=1).numpy().mean()),
            "bce": float(-(x * np.log(y) + (1 - x) * np.log(1 - y)).mean()),
            "probe": self.probe(codes, probe_fitted),
            "active_dimensions": int((codes["train"].var(axis=0) > 0.01).sum()),
            "latent_dim": codes["test"].shape[1],
        }

    def probe(self, features: dict[str, Any], fitted: str = "train") -> float:
        """Scikit-learn's ridge regression to one-hot labels, fitted to a split, right on this share of the tests."""
        ridge = Ridge(alpha=1.0).fit(features[fitted], np.eye(10)[self.labels[fitted]])
        return float((ridge.predict(features["test"]).argmax(axis=1) == self.labels["test"]).mean())


def test_the_report_agrees_with_the_models_and_with_scikit_learn(run_template: Path) -> None:
    recomputed = Recomputed(run_template)
    measures, pairs, classes = tables_of(run_template / "metrics/README.md")
    assert list(measures.columns) == ["PCA (16)", *MODELS]
    expected = {"PCA (16)": recomputed.pca()} | {name: recomputed.model(name) for name in MODELS}
    assert set(expected["deep"]) == set(measures.index)
    for column, values in expected.items():
        shown = dict(zip(measures.index, floats(measures[column]), strict=True))
        for row, value in values.items():
            assert shown[row] == pytest.approx(value, rel=FOUR_DIGITS), f"{row} of {column}"
    for row in set(measures.index) - {"latent_dim", "active_dimensions"}:
        assert len(set(measures.loc[row])) == 3, f"{row} cannot tell whether a column is another one's"

    text = (run_template / "metrics/README.md").read_text()
    test, train = recomputed.images["test"], recomputed.images["train"]
    mean_image, pixels = (floats(re.findall(rf"{name} of (\d\.\d+)", text))[0] for name in ("`mse`", "`probe`"))
    assert mean_image == pytest.approx(np.square(test - train.mean(axis=0)).mean(), rel=FOUR_DIGITS)
    assert pixels == pytest.approx(recomputed.probe(recomputed.images), rel=FOUR_DIGITS)

    for name in MODELS:
        metrics = json.loads((run_template / f"metrics/{name}.json").read_text())
        assert list(metrics) == METRICS
        own = {key: value for key, value in metrics.items() if key != "mse_pca"}
        for row, value in own.items():
            assert floats([measures.loc[row, name]])[0] == pytest.approx(value, rel=FOUR_DIGITS)
            assert value == pytest.approx(expected[name][row], rel=1e-4)
        assert metrics["mse_pca"] == pytest.approx(expected["PCA (16)"]["mse"], rel=1e-4)

    table = pd.read_csv(run_template / "plots/comparison.csv", index_col=["model", "opponent"])
    named = pairs.set_index("opponent", append=True)
    assert list(named.index) == list(table.index)
    assert list(table.index) == [("deep", "shallow"), ("shallow", "PCA (16)"), ("deep", "PCA (16)")]
    for pair, compared in zip(table.index, table.to_dict("records"), strict=True):
        one, other = (expected[name]["squared_error"] for name in pair)
        assert compared["ratio"] == pytest.approx(one / other, rel=1e-4)
        assert compared["difference"] == pytest.approx(one - other, rel=1e-4)
        cells = " ".join(named.loc[pair])
        assert floats(re.findall(r"-?[\d.]+", cells)) == pytest.approx(list(compared.values()), rel=FOUR_DIGITS)

    per_class = pd.read_csv(run_template / "plots/mse_per_class.csv").pivot(
        index="class", columns="model", values="mse"
    )
    labels = recomputed.labels["test"]
    assert list(map(int, classes["images"])) == np.bincount(labels).tolist()
    for name in classes.columns[1:]:
        assert floats(classes[name]) == pytest.approx(per_class[name].tolist(), rel=FOUR_DIGITS)
    for name in MODELS:
        model = keras.saving.load_model(run_template / f"data/models/{name}.keras")
        mse = np.square(model.predict(test, verbose=0) - test).mean(axis=1)
        assert per_class[name].tolist() == pytest.approx([mse[labels == c].mean() for c in range(10)], rel=1e-4)


def test_a_fit_to_the_test_images_would_be_seen(run_template: Path) -> None:
    """The numbers that leakage would give are not those of the report, so the test before could distinguish them."""
    measures, *_ = tables_of(run_template / "metrics/README.md")
    recomputed = Recomputed(run_template)
    for fitted in ("test", "validation"):
        pca = recomputed.pca(fitted)
        for row in ("mse", "mse_train", "mse_validation", "bce", "ssim", "psnr"):
            assert floats([measures.loc[row, "PCA (16)"]])[0] != pytest.approx(pca[row], rel=4 * FOUR_DIGITS)
        for name in MODELS:
            leaked = recomputed.model(name, fitted)["probe"]
            assert floats([measures.loc["probe", name]])[0] != pytest.approx(leaked, rel=4 * FOUR_DIGITS)


def test_figures_have_their_size_and_the_colours_of_the_models(run_template: Path) -> None:
    coloured = ("errors", "denoising", "labels")
    for name in (*FIGURES, *OF_APPLICATIONS):
        picture = imread(run_template / f"plots/{name}.png")[..., :3]
        assert 300 < picture.shape[0] < 1300
        assert 700 < picture.shape[1] < 1600
        assert np.ptp(picture) > 0.9
        if name in coloured:
            baseline = COLOURS[-1] if name == "denoising" else BASELINE_COLOURS[0]
            shares = [
                (np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.02).mean()
                for colour in (*COLOURS[:2], baseline, COLOURS[2])
            ]
            assert [share > 0.0005 for share in shares] == [True, True, True, False]


def test_dvc_shows_one_table_and_one_page(run_template: Path, tmp_path: Path) -> None:
    for project in (run_template, ROOT):  # small numbers, and those of all the data
        header, *rows = succeed(project, "dvc", "metrics", "show").splitlines()
        assert header.split() == ["Path", *sorted(METRICS)]
        shown = {path: cells for path, *cells in map(str.split, rows)}
        of_anomalies = shown.pop("metrics/anomalies.json")  # no class is missing
        assert set(of_anomalies) == {"-"}
        assert shown.keys() == {f"metrics/{name}.json" for name in MODELS}
        assert all(len(line) <= 100 for line in (header, *rows))
        assert all(len(cells) == len(METRICS) and "-" not in cells for cells in shown.values())
    succeed(run_template, "dvc", "plots", "show", "-o", str(tmp_path / "page"))
    page = (tmp_path / "page/index.html").read_text()
    assert [name for name in (*FIGURES, *OF_APPLICATIONS) if f"{name}.png" not in page] == []
    chart = json.loads(succeed(run_template, "dvc", "plots", "show", "plots/losses.csv", "--show-vega"))
    encoding = chart["spec"]["encoding"]
    assert (encoding["color"]["field"], encoding["strokeDash"]["field"]) == ("model", "series")
    assert tuple(encoding["color"]["scale"]["range"]) == COLOURS
    rows = chart["data"]["values"]
    assert {(row["model"], row["split"]) for row in rows} == {(m, s) for m in MODELS for s in ("train", "validation")}


# --- change something ---------------------------------------------------------------------


def test_a_raw_file_without_images_stops_at_prepare(run_project: Path) -> None:
    """A new raw file re-runs only `prepare`, which writes the same bytes."""
    (run_project / "data/raw/NOTE").write_text("nothing of importance")
    assert stages_run(succeed(run_project, "dvc", "repro")) == {"prepare"}


OF_ALL = {"compare", "figures", "anomalies", "denoise", "few_labels"}  # stages that need every model


def test_a_block_is_all_that_a_model_needs(extended_template: Path, run_template: Path) -> None:
    ran = stages_run((extended_template / ".dvc/tmp/repro.log").read_text())
    assert ran == {"train@vae", "evaluate@vae"} | OF_ALL
    changed = succeed(extended_template, "git", "diff", "--name-only").splitlines()
    drawn = {f"plots/{name}.png" for name in (*FIGURES, *OF_APPLICATIONS)}
    assert {"dvc.lock", "params.yaml"} | drawn < set(changed)
    assert "dvc.yaml" not in changed
    everyone = [*MODELS, "vae"]
    measures, pairs, *_ = tables_of(extended_template / "metrics/README.md")
    assert list(measures.columns) == ["PCA (4)", "PCA (16)", *everyone]
    assert floats(measures.loc["latent_dim"]) == [4, 16, 16, 16, 4]
    with_pca = [("shallow", "PCA (16)"), ("deep", "PCA (16)"), ("vae", "PCA (4)")]
    compared = list(zip(pairs.index, pairs["opponent"], strict=True))
    assert compared == [*((later, earlier) for earlier, later in combinations(everyone, 2)), *with_pca]
    for table, baselines in (("denoising", {"linear regression"}), ("labels", {"PCA (4)", "PCA (16)"})):
        assert set(pd.read_csv(extended_template / f"plots/{table}.csv")["method"]) >= {*baselines, *everyone}
    assert set(pd.read_csv(extended_template / "plots/losses.csv")["model"]) == set(everyone)
    assert "metrics/vae.json" in succeed(extended_template, "dvc", "metrics", "show")
    before, after = (
        pd.read_csv(project / "plots/comparison.csv", index_col=["model", "opponent"])["ratio_low"]
        for project in (run_template, extended_template)
    )
    assert (after[before.index] != before).all()  # with other resamples
    for name in MODELS:
        files = [project / f"data/models/{name}.keras" for project in (run_template, extended_template)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_clone_with_the_cache_has_nothing_to_run(extended_template: Path, tmp_path: Path) -> None:
    shutil.copytree(extended_template, tmp_path / "origin", symlinks=True)
    succeed(tmp_path / "origin", "git", "add", "-A")
    succeed(tmp_path / "origin", "git", "commit", "-qm", "another model")
    succeed(tmp_path, "git", "clone", "-q", "origin", "clone")
    clone = tmp_path / "clone"
    succeed(clone, "dvc", "cache", "dir", "--local", str(extended_template / ".dvc/cache"))
    assert stages_run(succeed(clone, "dvc", "repro")) == set()
    for folder in ("evaluation", "classical", "models"):
        shutil.rmtree(clone / "data" / folder)
    succeed(clone, "dvc", "checkout")
    assert "up to date" in succeed(clone, "dvc", "status")
    assert digests(clone) == digests(extended_template)
    assert succeed(clone, "git", "status", "--porcelain") == ""


def test_undoing_a_change_restores_the_bytes(extended_template: Path, run_template: Path, tmp_path: Path) -> None:
    """Without the block, the model's files have to go, too; DVC's cache keeps them."""
    project = tmp_path / "project"
    shutil.copytree(extended_template, project, symlinks=True)
    succeed(project, "git", "checkout", "params.yaml")
    result = call(project, "dvc", "repro", "compare")
    assert result.returncode != 0
    assert stages_run(result.stdout) == {"compare"}
    advice = re.findall(r"error: (\S+) belongs to no model in params.yaml; .*: (rm -r .*)\n", result.stderr)
    left = ["data/models/vae.keras", "data/history/vae.csv", "data/evaluation/vae.npz", "metrics/vae.json"]
    assert advice == [("data/evaluation/vae.npz", f"rm -r {' '.join(left)}")]
    assert all((project / name).exists() for name in left)
    succeed(project, *shlex.split(advice[0][1]))
    for path in project.glob("plots/*.png"):
        path.unlink()
    out = succeed(project, "dvc", "repro", "compare", "figures")
    assert stages_run(out) <= {"compare"}  # whose report is in git, so its run is not cached
    assert "Stage 'figures' is cached - skipping run" in out
    written, expected = (
        {path.relative_to(folder): content for path, content in outputs(folder).items()}
        for folder in (project, run_template)
    )
    assert written.keys() >= {Path(f"plots/{name}.png") for name in FIGURES}
    changed = {path.stem for path in written.keys() | expected.keys() if written.get(path) != expected.get(path)}
    assert changed <= {"anomalies", "denoising", "few_labels", "labels"}  # of applications, which would run again


def test_experiments_set_a_model_the_defaults_or_what_a_block_inherits(run_project: Path) -> None:
    def experiment(name: str, target: str, *changes: str) -> set[str]:
        options = [option for change in changes for option in ("-S", change)]
        return stages_run(succeed(run_project, "dvc", "exp", "run", "-n", name, *options, target))

    changes = ("models.deep.latent_dim=8", "models.deep.learning_rate=0.00001", "+models.deep.noise=0.1")
    ran = experiment("small", "evaluate", *changes)
    assert ran == {"train@deep", "evaluate@deep"}
    assert "1e-05" in (run_project / "params.yaml").read_text()  # a text to PyYAML, but a number to the schema
    settings = read_params(Params, run_project / "params.yaml").models
    assert (settings["deep"].latent_dim, settings["deep"].noise, settings["deep"].learning_rate) == (8, 0.1, 1e-5)
    assert (settings["shallow"].latent_dim, settings["shallow"].noise) == (16, 0.0)
    assert load_evaluation(run_project / "data/evaluation/deep.npz").latent_dim == 8
    found = json.loads(succeed(run_project, "dvc", "params", "diff", "--json"))["params.yaml"]
    assert found.keys() == {f"models.deep.{key}" for key in ("latent_dim", "noise", "learning_rate")}
    metrics = json.loads(succeed(run_project, "dvc", "metrics", "diff", "--json"))
    assert metrics["metrics/deep.json"]["mse"]["diff"] > 0
    assert "metrics/shallow.json" not in metrics

    ran = experiment("longer", "train@shallow", "defaults.epochs=3")
    assert ran == {"train@shallow"}
    assert len(pd.read_csv(run_project / "data/history/shallow.csv")) == 3
    assert "train@deep" in json.loads(succeed(run_project, "dvc", "status", "--json"))
    experiments = pd.read_csv(io.StringIO(succeed(run_project, "dvc", "exp", "show", "--csv")))
    assert {"small", "longer"} <= set(experiments["Experiment"])
    assert "metrics/deep.json:mse" in experiments.columns


def test_a_preset_is_trained_by_name(run_project: Path, here: Stage) -> None:
    """DVC does not know presets: it neither trains nor misses them, and their files make no stage stale."""
    path = run_project / "presets.yaml"
    small = {"latent_dim": 5, "epochs": 2, "batch_size": 100, "hidden_units": [20]}
    path.write_text(yaml.safe_dump({"best16": small}))
    before = outputs(run_project)
    for name in ("train", "evaluate"):
        assert here(name, "best16").status == 0
    after = outputs(run_project)
    written = {str(path.relative_to(run_project)) for path in set(after) - set(before)}
    assert written == {f"data/presets/best16.{kind}" for kind in ("keras", "csv", "npz")} | {"metrics/best16.json"}
    assert after.items() >= before.items()
    found = load_evaluation(run_project / "data/presets/best16.npz")
    assert found.latent_dim == found.model.codes.shape[1] == 5
    metrics = json.loads((run_project / "metrics/best16.json").read_text())
    (pca,) = found.baselines
    assert (metrics["mse"], metrics["mse_pca"]) == pytest.approx((found.model.mse, pca.mse), rel=1e-5)
    assert "up to date" in succeed(run_project, "dvc", "status")


def test_the_tour_has_no_outputs_and_runs_in_the_folder_docs(project: Path) -> None:
    cells = json.loads((ROOT / "docs/tour.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    (project / "docs/tour.py").write_text("\n".join(code))
    out = succeed(project / "docs", sys.executable, "tour.py")
    assert len(re.findall(r"^\w+: squared error .* after ten steps", out, re.M)) == 2
