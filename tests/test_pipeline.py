"""The pipeline as its user meets it: the real `dvc` on small real data in temporary clones."""

import ast
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imread
from pydantic import ValidationError

import stages.params
from stages import files
from stages.backend import tf
from stages.compare import compare_all, mse_per_class
from stages.errors import StageError
from stages.evaluate import read_history
from stages.figures import COLOURS
from stages.params import Compare
from tests.conftest import ROOT, call, change_params, stage, succeed

MODELS = ("shallow", "deep")
STAGES = ("prepare", "train", "evaluate", "compare", "figures")
FIGURES = (
    "reconstructions", "errors", "mse_per_class", "extremes", "latent_space", "interpolations", "traversals", "samples",
    "weights", "losses",
)  # fmt: skip


def dvc_yaml() -> dict[str, Any]:
    """Each stage of dvc.yaml, the body of `do` for those that `foreach` makes."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in content.items()}


def stages_run(output: str) -> set[str]:
    """The stages that ran, by what `dvc repro` printed."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


# --- the graph ---------------------------------------------------------------------------


def imported_modules(path: Path) -> set[Path]:
    """The files of this project that a module imports, directly or through others."""
    found = {ROOT / "stages/__init__.py", path}
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = ROOT / (name.replace(".", "/") + ".py")
            if name.startswith("stages.") and file.exists():
                found |= imported_modules(file)
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_exactly_the_modules_that_it_imports(name: str) -> None:
    listed = {ROOT / dep for dep in dvc_yaml()[name]["deps"] if dep.startswith("stages/")}
    assert listed == imported_modules(ROOT / f"stages/{name}.py")


@pytest.mark.parametrize("name", ["prepare", "compare", "figures"])
def test_stages_without_tensorflow_do_not_import_it(name: str) -> None:
    code = f"import sys, stages.{name}; sys.exit(bool({{'tensorflow', 'keras'}} & set(sys.modules)))"
    assert call(ROOT, sys.executable, "-c", code).returncode == 0


@pytest.mark.parametrize("name", ["compare", "figures"])
def test_every_default_model_is_among_the_deps(name: str) -> None:
    models = yaml.safe_load((ROOT / "params.yaml").read_text())["models"]
    assert {f"data/evaluation/{model}.npz" for model in models} <= set(dvc_yaml()[name]["deps"])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_exactly_the_parameters_that_it_reads(
    run_project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Run the stage in a process that notes which settings are looked up after validation."""
    recorder = """
import sys, runpy
import stages.params as p
read = set()
plain = p.Section.__getattribute__
def noting(self, key):
    if key in type(self).model_fields:
        read.add((type(self).__name__, key))
    return plain(self, key)
p.Section.__getattribute__ = noting
plain_read = p.read_params
def read_params():
    params = plain_read()
    read.clear()
    return params
p.read_params = read_params
sys.argv = ["x", *sys.argv[2:]]
runpy.run_module(NAME, run_name="__main__")
print("READ", sorted(read))
""".replace("NAME", repr(f"stages.{name}"))
    change_params(
        run_project, lambda p: p["models"]["deep"].update(schedule="cosine")
    )  # else warmup_epochs is not asked
    arguments = ["-", "deep"] if name in ("train", "evaluate") else ["-"]
    out = succeed(run_project, sys.executable, "-c", recorder, *arguments)
    read = ast.literal_eval(out.splitlines()[-1].removeprefix("READ "))
    classes = {"Prepare": "prepare", "Model": "models.${key}"}
    classes |= {section.title(): section for section in ("evaluate", "compare", "figures")}
    keys = {f"{classes[c]}.{key}" for c, key in read if c in classes}
    if name in ("compare", "figures"):  # they read the names of all models, so they list `models` as a whole
        keys = {k for k in keys if not k.startswith("models.$")} | {"models"}

    listed = set()
    for param in dvc_yaml()[name]["params"]:
        section = {v: k for k, v in classes.items()}.get(param)
        fields = getattr(stages.params, section).model_fields if section else None
        listed |= {f"{param}.{key}" for key in fields} if fields else {param}
    assert keys == listed


# --- what a run leaves --------------------------------------------------------------------


def test_a_second_run_finds_nothing_to_do(run_template: Path) -> None:
    assert stages_run(succeed(run_template, "dvc", "repro")) == set()
    assert "up to date" in succeed(run_template, "dvc", "status")
    assert succeed(run_template, "git", "status", "--porcelain") == ""


@pytest.mark.parametrize("name", MODELS)
def test_metrics_are_a_flat_row_and_agree_with_the_model(run_template: Path, name: str) -> None:
    metrics = json.loads((run_template / f"metrics/{name}.json").read_text())
    images = np.load(run_template / "data/prepared/test_images.npy").reshape(200, -1) / np.float32(255)
    model = keras.saving.load_model(run_template / f"data/models/{name}.keras")
    reconstructions = model.predict(images, verbose=0)
    mse = np.square(reconstructions - images).mean()
    assert metrics["mse"] == pytest.approx(mse, rel=1e-4)
    assert metrics["squared_error_per_image"] == pytest.approx(784 * mse, rel=1e-4)
    assert metrics["psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-4)
    assert metrics["bce"] == pytest.approx(keras.losses.BinaryCrossentropy()(images, reconstructions).numpy(), rel=1e-3)
    train = np.load(run_template / "data/prepared/train_images.npy").reshape(500, -1) / np.float32(255)
    assert metrics["mse_mean_image"] == pytest.approx(np.square(images - train.mean(axis=0)).mean(), rel=1e-4)
    assert metrics["mse_train"] == pytest.approx(np.square(model.predict(train, verbose=0) - train).mean(), rel=1e-4)
    assert metrics["mse_pca"] < metrics["mse_mean_image"]
    assert metrics["latent_dim"] == 16
    assert metrics["parameters"] == model.count_params()
    assert metrics["ssim"] == pytest.approx(
        tf.image.ssim(*(a.reshape(-1, 28, 28, 1) for a in (images, reconstructions)), max_val=1).numpy().mean(),
        rel=1e-4,
    )
    assert metrics["compression_ratio"] == 784 / 16
    assert metrics["overcomplete"] is False
    assert 0 <= metrics["active_dimensions"] <= 16
    for kind in ("probe_accuracy", "generation_accuracy"):
        assert metrics[f"{kind}_pca"] > 0.3  # by chance it would be 0.1
        assert 0 < metrics[kind] <= 1
    assert metrics["probe_accuracy_pixels"] > 0.6
    assert metrics["ssim_pca"] > 0.2
    assert metrics["mse_validation"] > 0


def test_histories_and_figures(run_template: Path) -> None:
    for name in MODELS:
        history = pd.read_csv(run_template / f"data/history/{name}.csv")
        assert list(history.columns) == ["epoch", "loss", "val_loss"]
        assert history["epoch"].tolist() == [1, 2]
    losses = pd.read_csv(run_template / "plots/losses.csv")
    assert losses.groupby(["model", "series"]).size().to_dict() == {
        (model, series): 2 for model in MODELS for series in ("train", "validation")
    }
    for name in FIGURES:
        height, width, _ = imread(run_template / f"plots/{name}.png").shape
        assert 300 < height < 1300
        assert 700 < width < 1600


def test_dvc_shows_one_table_and_one_page(run_template: Path, tmp_path: Path) -> None:
    table = succeed(run_template, "dvc", "metrics", "show", "--md")
    assert all(f"| metrics/{name}.json" in table for name in MODELS)
    assert len(table.strip().splitlines()) == 2 + len(MODELS) + 1  # and the comparison
    succeed(run_template, "dvc", "plots", "show", "-o", str(tmp_path / "page"))
    page = (tmp_path / "page/index.html").read_text()
    for name in FIGURES:
        assert f"{name}.png" in page
    chart = json.loads(succeed(run_template, "dvc", "plots", "show", "plots/losses.csv", "--show-vega"))
    encoding = chart["spec"]["encoding"]
    assert (encoding["color"]["field"], encoding["strokeDash"]["field"]) == ("model", "series")
    assert tuple(encoding["color"]["scale"]["range"]) == COLOURS
    rows = chart["data"]["values"]
    assert {(row["model"], row["series"]) for row in rows} == {(m, s) for m in MODELS for s in ("train", "validation")}


# --- change something ---------------------------------------------------------------------


def test_a_figure_setting_re_runs_figures_alone(run_project: Path) -> None:
    change_params(run_project, lambda p: p["figures"].update(dpi=60))
    assert stages_run(succeed(run_project, "dvc", "repro")) == {"figures"}
    assert "plots/losses.png" in succeed(run_project, "git", "status", "--porcelain")


def test_a_note_beside_the_raw_data_re_runs_prepare_alone(run_project: Path) -> None:
    """Its outputs come out the same, so DVC stops there."""
    (run_project / "data/raw/NOTE").write_text("nothing of importance")
    assert stages_run(succeed(run_project, "dvc", "repro")) == {"prepare"}


def test_a_third_model_is_a_block_and_a_line(run_project: Path) -> None:
    def add(params: Any) -> None:
        params["models"]["wide"] = params["models"]["deep"] | {"hidden_units": [40], "latent_dim": 8, "loss": "mse"}

    change_params(run_project, add)
    for name in ("compare", "figures"):
        sentence = (
            "data/evaluation/wide.npz is missing; run `dvc repro`. (A model added to params.yaml needs this file among"
        )
        refuse(run_project, 1, sentence, name)

    path = run_project / "dvc.yaml"
    line = "    - data/evaluation/deep.npz\n"
    assert path.read_text().count(line) == 2
    path.write_text(path.read_text().replace(line, line + "    - data/evaluation/wide.npz\n"))
    expected = {"train@wide", "evaluate@wide", "compare", "figures"}
    assert stages_run(succeed(run_project, "dvc", "repro")) == expected
    assert json.loads((run_project / "metrics/wide.json").read_text())["latent_dim"] == 8
    assert set(pd.read_csv(run_project / "plots/losses.csv")["model"]) == {*MODELS, "wide"}


def test_an_experiment_re_runs_one_model_and_compares(run_project: Path) -> None:
    out = succeed(
        run_project, "dvc", "exp", "run", "-n", "slow", "-S", "models.deep.learning_rate=0.00001", "evaluate@deep"
    )
    assert stages_run(out) == {"train@deep", "evaluate@deep"}
    assert "1e-05" in (run_project / "params.yaml").read_text()  # text to PyYAML, a number to the schema
    changes = json.loads(succeed(run_project, "dvc", "params", "diff", "--json"))
    assert changes["params.yaml"].keys() == {"models.deep.learning_rate"}
    metrics = json.loads(succeed(run_project, "dvc", "metrics", "diff", "--json"))
    assert metrics["metrics/deep.json"]["mse"]["diff"] > 0
    assert "metrics/shallow.json" not in metrics
    experiments = pd.read_csv(io.StringIO(succeed(run_project, "dvc", "exp", "show", "--csv")))
    assert "slow" in experiments["Experiment"].tolist()
    assert "metrics/deep.json:mse" in experiments.columns


# --- bad input ----------------------------------------------------------------------------


def refuse(project: Path, status: int, sentence: str, *arguments: str) -> str:
    """The stage ends with `status` and this sentence as the only line of its own, and leaves no output.

    Returns its standard error.
    """
    name = arguments[0]
    outputs = {"train": "data/models", "evaluate": "metrics", "compare": "metrics"}
    outputs |= {"prepare": "data/prepared", "figures": "plots"}
    before = {p: p.read_bytes() for p in (project / outputs[name]).rglob("*") if p.is_file()}
    result = stage(project, *arguments)
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert {p: p.read_bytes() for p in (project / outputs[name]).rglob("*") if p.is_file()} == before
    return result.stderr


@pytest.mark.parametrize(
    "arguments", [("prepare",), ("train", "deep"), ("evaluate", "deep"), ("compare",), ("figures",)]
)
def test_every_stage_refuses_a_typo_anywhere(run_project: Path, arguments: tuple[str, ...]) -> None:
    change_params(run_project, lambda p: p["models"]["shallow"].update(epoch=3))
    refuse(run_project, 2, "models.shallow.epoch is not a known key (did you mean epochs?)", *arguments)


def test_dvc_repro_stops_at_a_typo(run_project: Path) -> None:
    change_params(run_project, lambda p: p["models"]["deep"].update(optimizer="adm"))
    result = call(run_project, "dvc", "repro")
    assert result.returncode != 0
    assert "models.deep.optimizer is 'adm', but has to be one of" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="these names would be no files on Windows")
def test_a_hostile_model_name_runs_no_command(run_project: Path) -> None:
    """DVC reads the name before the schema does."""

    def add(params: Any) -> None:
        for name in ("$(touch pwned)", "; touch pwned #", "`touch pwned`", "' && touch pwned '", "../escaped"):
            params["models"][name] = params["models"]["deep"]

    change_params(run_project, add)
    result = call(run_project, "dvc", "repro", "--keep-going")
    assert result.returncode != 0
    assert "models.$(touch pwned) is not a possible model name" in result.stderr
    assert not list(run_project.rglob("pwned*"))
    assert not list(run_project.parent.rglob("escaped*"))


@pytest.mark.parametrize("arguments", [("train",), ("train", "deeep"), ("evaluate", "deep", "shallow")])
def test_a_wrong_argument(run_project: Path, arguments: tuple[str, ...]) -> None:
    assert (
        refuse(run_project, 2, "shallow, deep, hinton2006, best16.", *arguments).count("\n") == 1
    )  # no notes of TensorFlow's around it


@pytest.mark.parametrize("name", ["prepare", "compare", "figures", "params"])
def test_arguments_that_mean_nothing_are_refused(name: str) -> None:
    result = stage(ROOT, name, "--dpi")
    assert result.returncode == 2
    assert result.stderr == "error: expected no argument, but found '--dpi'; everything is set in params.yaml.\n"


def test_help_is_the_description(run_template: Path) -> None:
    for name in STAGES:
        result = stage(run_template, name, "--help")
        assert result.returncode == 0
        assert f"python -m stages.{name}" in result.stdout


def test_committed_results_are_compared_with_the_present_ones(run_project: Path) -> None:
    command = (sys.executable, str(ROOT / "tests/committed_results.py"))
    assert "bytes: the committed ones" in succeed(run_project, *command)
    path = run_project / "metrics/comparison.json"
    metrics = json.loads(path.read_text())
    metrics["deep_vs_shallow"]["ratio"] *= 1.1
    path.write_text(json.dumps(metrics))
    result = call(run_project, *command)
    assert result.returncode == 1
    assert "metrics/comparison.json: deep_vs_shallow.ratio is " in result.stdout


@pytest.mark.parametrize(("key", "value"), [("batch_size", 501), ("latent_dim", 501)])
def test_sizes_that_the_data_cannot_serve(run_project: Path, key: str, value: int) -> None:
    change_params(run_project, lambda p: p["models"]["deep"].update({key: value}))
    refuse(run_project, 2, f"models.deep.{key} is 501, but has to be at most 500, the number of", "train", "deep")


def test_more_convolutions_than_halvings(run_project: Path) -> None:
    conv = {"layers": "conv", "hidden_units": [2] * 6}
    change_params(run_project, lambda p: p["models"]["deep"].update(conv))
    refuse(
        run_project, 2, "models.deep.hidden_units has 6 convolutional layers, but images of 28×28 can", "train", "deep"
    )


def test_presets_are_trained_by_name(run_project: Path) -> None:
    """DVC knows nothing of them: it neither trains nor misses them."""
    sizes = {"best16": 16, "hinton2006": 30}

    def small(params: Any) -> None:
        for preset in sizes:
            params["presets"][preset].update(epochs=2, hidden_units=[20])

    change_params(run_project, small)
    assert "up to date" in succeed(run_project, "dvc", "status")
    for preset, latent_dim in sizes.items():
        for name in ("train", "evaluate"):
            assert stage(run_project, name, preset).returncode == 0
        assert json.loads((run_project / files.metrics_path(preset)).read_text())["latent_dim"] == latent_dim
    change_params(run_project, lambda p: p["presets"]["best16"].update(batch_size=501))
    refuse(run_project, 2, "presets.best16.batch_size is 501, but has to be at most 500", "train", "best16")


def test_a_loss_that_diverges(run_project: Path) -> None:
    change_params(run_project, lambda p: p["models"]["deep"].update(optimizer="sgd", learning_rate=100, epochs=20))
    sentence = "at learning_rate 100, so no model was written; try a smaller learning_rate."
    refuse(run_project, 1, sentence, "train", "deep")


def test_a_collapse_is_a_warning(run_project: Path) -> None:
    """A latent layer that saturates gives every image the same code."""
    change_params(run_project, lambda p: p["models"]["deep"].update(latent_activation="softplus", learning_rate=0.5))
    result = stage(run_project, "train", "deep")
    assert result.returncode == 0
    assert "warning: models.deep collapsed: its validation mse per pixel" in result.stderr


def test_a_penalty_is_no_error(run_project: Path) -> None:
    """The loss of a sparse model is mostly penalty here, and its squared error is not: no collapse."""
    change_params(run_project, lambda p: p["models"]["shallow"].update(code_l1=0.02, learning_rate=0.01, epochs=20))
    result = stage(run_project, "train", "shallow")
    assert result.returncode == 0
    assert "collapsed" not in result.stderr
    assert float(re.findall(r"val_loss ([\d.]+)", result.stdout)[-1]) > 0.3


def test_an_overcomplete_model_is_not_compared_with_an_exact_pca() -> None:
    random = np.random.default_rng(0)
    common = {
        "labels": np.repeat([0, 1], 5),
        "images": random.random((2, 3, 4)),
        "pca_squared_error": np.full(10, 1e-30),
    }
    evaluations: dict[str, files.Evaluation] = {
        name: common | {"latent_dim": np.array(size), "squared_error": random.random(10)}
        for name, size in (("small", 5), ("wide", 12))
    }
    compared = compare_all(evaluations, Compare(resamples=100, seed=0))
    assert set(compared) == {"wide_vs_small", "small_vs_pca"}
    assert list(files.with_baselines(evaluations)) == ["PCA (5)", "small", "wide (overcomplete)"]
    assert mse_per_class(evaluations)["model"].unique().tolist() == ["PCA (5)", "small", "wide (overcomplete)"]


def test_broken_intermediate_files(run_project: Path) -> None:
    images = run_project / "data/prepared/train_images.npy"
    whole = images.read_bytes()
    images.unlink()  # it may be a link into DVC's cache
    images.write_bytes(whole[:1000])
    refuse(run_project, 1, "data/prepared/train_images.npy is not a whole .npy file", "train", "deep")
    images.unlink()
    refuse(run_project, 1, "data/prepared/train_images.npy is missing; run `dvc repro prepare`.", "evaluate", "deep")

    for text in ("", "epoch,loss\n1,0.5\n", "epoch,loss,val_loss\n1,0.5,x\n"):
        history = run_project / "data/history/shallow.csv"
        history.unlink()
        history.write_text(text)
        with pytest.MonkeyPatch.context() as context:
            context.chdir(run_project)
            with pytest.raises(StageError, match=r"data/history/shallow\.csv is not a table of losses"):
                read_history("shallow")

    evaluation = run_project / "data/evaluation/deep.npz"
    content = evaluation.read_bytes()[:3000]
    evaluation.unlink()
    evaluation.write_bytes(content)
    refuse(run_project, 1, "data/evaluation/deep.npz is not a whole .npz file", "figures")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1'\n"])
def test_files_that_are_no_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    files.images_path("train").parent.mkdir(parents=True)
    files.images_path("train").write_bytes(content)
    for mapped in (True, False):
        with pytest.raises(StageError, match=r"train_images\.npy is not a whole \.npy file"):
            files.read_images("train", mapped)


def test_arrays_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.write_files({files.images_path("train"): files.npy(np.zeros((5, 28, 28)))})
    with pytest.raises(StageError, match=r"holds float64 \[5, 28, 28\], but has to hold uint8 \[images, height"):
        files.read_images("train")
    files.write_files({files.labels_path("test"): files.npy(np.zeros((5, 28), np.uint8))})
    with pytest.raises(StageError, match=r"holds uint8 \[5, 28\], but has to hold uint8 \[images\]"):
        files.read_labels("test")


def test_pickled_arrays_are_refused(run_project: Path) -> None:
    trap = run_project / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(trap), "w"))

    path = run_project / "data/prepared/train_images.npy"
    path.unlink()
    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    refuse(run_project, 1, "data/prepared/train_images.npy is not a whole .npy file", "train", "deep")
    evaluation = run_project / "data/evaluation/deep.npz"
    evaluation.unlink()
    np.savez(evaluation, labels=np.array([Trap()], dtype=object))
    refuse(run_project, 1, "data/evaluation/deep.npz is not a whole .npz file", "figures")
    assert not trap.exists()


def test_no_stage_can_change_a_setting_after_validation() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        stages.params.read_params(ROOT / "params.yaml").models["deep"].epochs = 1
