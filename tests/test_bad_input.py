"""Bad settings, arguments and files: each stage tells them in a sentence and leaves its outputs as they were."""

import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from stages.core import files
from stages.core.errors import ParamsError, StageError
from stages.core.evaluation import load_evaluation
from stages.core.params import choose_model, read_params
from stages.core.schema import Params
from stages.evaluate import read_history
from tests import made_up
from tests.conftest import (
    MODELS,
    ROOT,
    STAGES,
    TUTORIAL,
    call,
    change_params,
    outputs,
    refuse,
    refused,
    stages_in_turn,
    succeed,
)

Here = Callable[..., made_up.Ended]
PARAMS = read_params(Params, ROOT / "params.yaml")
KNOWN = f"{', '.join([*PARAMS.models, *PARAMS.presets])}."
OF_A_MODEL = ("train", "evaluate", "apply")
HOSTILE = ("$(touch pwned)", "; touch pwned #", "`touch pwned`", "' && touch pwned '", "../escaped")


@pytest.fixture
def here(run_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Call a stage in this process, which has loaded TensorFlow, and in the clone: `here("train", "deep")`."""
    monkeypatch.chdir(run_project)

    def call_it(name: str, *arguments: str) -> made_up.Ended:
        module = importlib.import_module(f"stages.{name}")
        # once TensorFlow has run, in another test of this process, its threads are fixed
        monkeypatch.setattr(module, "use_threads", lambda threads: None, raising=False)
        return made_up.call_main(module.main, monkeypatch, capsys, *arguments)

    return call_it


@pytest.fixture
def refuse_here(run_project: Path, here: Here) -> Callable[..., str]:
    """As `refuse`, with a stage called in this process."""

    def refuse_it(status: int, sentence: str, *arguments: str) -> str:
        before = outputs(run_project)
        ended = here(*arguments)
        assert outputs(run_project) == before
        return refused(ended.status, ended.err, status, sentence)

    return refuse_it


# --- settings -----------------------------------------------------------------------------


def test_every_stage_refuses_a_typo_and_a_hostile_model_name_anywhere(
    run_project: Path, refuse_here: Callable[..., str]
) -> None:
    def change(params: Any) -> None:
        params["models"]["shallow"].update(epoch=3)
        params["models"].update(dict.fromkeys(HOSTILE, params["models"]["deep"]))

    change_params(run_project, change)
    for stage in STAGES:
        arguments = ("deep",) if stage in OF_A_MODEL else ()
        error = refuse_here(2, "models.shallow.epoch is not a known key (did you mean epochs?)", stage, *arguments)
        for name in HOSTILE:
            assert f"models.{name} is not a possible name; a name starts with a lower-case letter" in error


def test_the_check_refuses_names_that_a_shell_or_a_path_would_read_otherwise(run_project: Path) -> None:
    """DVC puts names into commands, so this comes before `dvc repro` if params.yaml is a stranger's."""
    change_params(run_project, lambda p: p["models"].update(dict.fromkeys(HOSTILE, p["models"]["deep"])))
    result = call(run_project, sys.executable, "-m", "stages", "check")
    assert (result.returncode, result.stdout) == (2, "")
    told = re.findall(r"models\.(.*) is not a possible name", result.stderr)
    assert tuple(told) == HOSTILE
    assert not list(run_project.rglob("pwned*"))
    assert not list(run_project.parent.rglob("escaped*"))


@pytest.mark.quick
@pytest.mark.parametrize("name", HOSTILE)
def test_no_argument_becomes_a_path(name: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(f"params.yaml has no model {name!r}; it has shallow, deep")):
        choose_model(read_params(Params, ROOT / "params.yaml"), name)


def test_dvc_repro_stops_at_a_typo(run_project: Path) -> None:
    change_params(run_project, lambda p: p["models"]["deep"].update(optimizer="adm"))
    result = call(run_project, "dvc", "repro")
    assert result.returncode != 0
    assert "models.deep.optimizer is 'adm', but has to be one of" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_sizes_that_the_data_cannot_serve(run_project: Path, refuse_here: Callable[..., str]) -> None:
    changes = {"batch_size": 501, "latent_dim": 501, "layers": "conv", "hidden_units": [2] * 6}
    change_params(run_project, lambda p: p["models"]["deep"].update(changes))
    sentence = "models.deep.batch_size is 501, but has to be at most 500, the number of"
    error = refuse_here(2, sentence, "train", "deep")
    assert "models.deep.latent_dim is 501, but has to be at most 500, the number of" in error
    assert "models.deep.hidden_units has 6 convolutional layers, but images of 28×28 can" in error


@pytest.mark.quick
def test_no_stage_can_change_a_setting_after_validation() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read_params(Params, ROOT / "params.yaml").models["deep"].epochs = 1


# --- arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("train",), ("train", "deeep")])
def test_a_missing_or_unknown_model(run_project: Path, arguments: tuple[str, ...]) -> None:
    error = refuse(run_project, 2, KNOWN, *arguments)
    assert error.count("\n") == 1  # no notes of TensorFlow's around it
    assert ("(did you mean deep?)" in error) == (len(arguments) == 2)


@pytest.mark.parametrize(
    "arguments", [("prepare", "--dpi"), ("compare", "--dpi"), ("figures", "deep"), ("evaluate", "deep", "shallow")]
)
def test_arguments_that_mean_nothing_are_refused(run_project: Path, here: Here, arguments: tuple[str, ...]) -> None:
    before = outputs(run_project)
    ended = here(*arguments)
    assert ended.status == 2
    assert ended.out == ""
    usage = f"usage: python -m stages.{arguments[0]} [-h]"
    assert ended.err.startswith(usage)
    assert f"error: unrecognized arguments: {arguments[-1]}\n" in ended.err
    assert outputs(run_project) == before


def test_help_is_the_description(here: Here) -> None:
    listing = succeed(ROOT, sys.executable, "-m", "stages")
    for name in STAGES:
        ended = here(name, "--help")
        assert ended.status == 0
        assert ended.out.startswith(f"usage: python -m stages.{name} [-h]")
        assert "Everything else is set in params.yaml." in ended.out
        (first_line,) = re.findall(rf"stages\.{name} +(.*)", listing)
        assert f"\n{first_line}\n" in ended.out


# --- training that goes wrong -------------------------------------------------------------


def test_a_loss_that_diverges(run_project: Path, refuse_here: Callable[..., str]) -> None:
    wild = TUTORIAL | {"optimizer": "sgd", "learning_rate": 100, "epochs": 20}
    change_params(run_project, lambda p: p["models"]["deep"].update(wild))
    sentence = "at learning_rate 100, so no model was written; try a smaller learning_rate."
    refuse_here(1, sentence, "train", "deep")


def test_a_collapse_is_a_warning_and_a_penalty_is_none(run_project: Path) -> None:
    """A latent layer that saturates gives every image the same code.

    The loss of the penalised model is mostly penalty here, and its squared error is not: it tells digits apart.
    """
    trained = TUTORIAL | {"learning_rate": 0.01, "epochs": 20}

    def change(params: Any) -> None:
        models = params["models"]
        models["penalised"] = models["shallow"] | trained | {"code_l1": 0.02}
        models["sound"] = models["shallow"] | trained
        models["saturated"] = models["shallow"] | trained | {"latent_activation": "softplus", "learning_rate": 0.5}

    change_params(run_project, change)
    names = ("penalised", "sound", "saturated")
    result = stages_in_turn(run_project, *(f"{name} {model}" for model in names for name in ("train", "evaluate")))
    assert result.returncode == 0, result.stderr
    warnings = re.findall(r"^warning: .*", result.stderr, re.MULTILINE)
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: models.saturated collapsed: its test mse per pixel, ")
    found = {name: load_evaluation(run_project / f"data/evaluation/{name}.npz") for name in names}
    spread = {name: float(e.model.reconstructions.std(axis=0).max()) for name, e in found.items()}
    assert spread["saturated"] < 1e-3
    assert spread["penalised"] > 0.1
    assert spread["sound"] > 0.2
    mse, mse_mean_image = found["saturated"].model.mse, found["saturated"].mse_mean_image
    assert f", {mse:.4f}, is no better than that of the mean image, {mse_mean_image:.4f}," in warnings[0]
    assert found["penalised"].val_loss[-1] > found["saturated"].val_loss[-1]  # so the loss cannot tell


# --- files --------------------------------------------------------------------------------


def replace(path: Path, content: bytes) -> None:
    """Another content, in a new file, since the old one may be a link into DVC's cache."""
    path.unlink()
    path.write_bytes(content)


def test_broken_intermediate_files(run_project: Path, refuse_here: Callable[..., str]) -> None:
    images = run_project / "data/prepared/train_images.npy"
    replace(images, images.read_bytes()[:1000])
    refuse_here(1, "data/prepared/train_images.npy is not a whole .npy file", "train", "deep")
    images.unlink()
    refuse_here(1, "data/prepared/train_images.npy is missing; run `dvc repro prepare`.", "evaluate", "deep")

    evaluation = run_project / "data/evaluation/deep.npz"
    replace(evaluation, evaluation.read_bytes()[:3000])
    refuse_here(1, "data/evaluation/deep.npz is broken", "figures")
    evaluation.unlink()
    refuse_here(1, "data/evaluation/deep.npz is missing; run `dvc repro`.", "compare")
    refuse_here(1, "data/evaluation/deep.npz is missing; run `dvc repro`.", "apply", "deep")
    application = run_project / "data/applications/shallow.npz"
    shutil.copy(run_project / "data/evaluation/shallow.npz", evaluation)
    replace(application, application.read_bytes()[:3000])
    refuse_here(1, "data/applications/shallow.npz is broken", "figures")


@pytest.mark.quick
@pytest.mark.parametrize(
    "text",
    ["", "epoch,loss\n1,0.5\n", "epoch,loss,val_loss\n1,0.5,1\n", "epoch,loss,val_loss,kl,val_kl\n1,0.5,x,0,0\n"],
)
def test_a_history_that_is_no_table_of_losses(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shallow.csv"
    path.write_text(text)
    with pytest.raises(StageError, match=r"shallow\.csv is not a table of losses"):
        read_history(path)


def test_what_belongs_to_no_model(run_project: Path, here: Here) -> None:
    """The advice names that alone, never a file of a model or a preset that is in params.yaml."""
    (run_project / "metrics/best16.json").write_text("{}")  # of the preset, which may have been a model
    before = outputs(run_project)
    for name in ("old.npz", "best16.npz", "deep.txt", "deep.keras", "a copy.npz", "a folder"):
        path = run_project / "data/evaluation" / name
        path.mkdir() if name == "a folder" else path.write_bytes(b"")
        ended = here("compare")
        assert ended.status == 1
        sentence, command = ended.err.split(" again: ")
        assert sentence == (
            f"error: data/evaluation/{name} belongs to no model in params.yaml; "
            "delete what is left of that model and run `dvc repro`"
        )
        assert shlex.split(command) == ["rm", "-r", f"data/evaluation/{name}"]
        succeed(run_project, *shlex.split(command))
        assert outputs(run_project) == before
    for folder in (
        "applications",
        "evaluation",
        "generation",
    ):  # a model's files are named once, whichever folder has them
        (run_project / f"data/{folder}/old.npz").write_bytes(b"")
    command = here("compare").err.split(" again: ")[1]
    assert shlex.split(command) == [
        "rm", "-r", "data/evaluation/old.npz", "data/applications/old.npz", "data/generation/old.npz"
    ]  # fmt: skip
    succeed(run_project, *shlex.split(command))
    succeed(run_project, sys.executable, "-m", "stages.compare")
    assert outputs(run_project) == before


@pytest.mark.quick
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1'\n"])
def test_files_that_are_no_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    files.images_path("train").parent.mkdir(parents=True)
    files.images_path("train").write_bytes(content)
    for mapped in (True, False):
        with pytest.raises(StageError, match=r"train_images\.npy is not a whole \.npy file"):
            files.read_images("train", mapped)


@pytest.mark.quick
def test_arrays_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.images_path("train").parent.mkdir(parents=True)
    np.save(files.images_path("train"), np.zeros((5, 28, 28)))
    with pytest.raises(StageError, match=r"holds float64 \[5, 28, 28\], but has to hold uint8 \[images, height"):
        files.read_images("train")
    np.save(files.labels_path("test"), np.zeros((5, 28), np.uint8))
    with pytest.raises(StageError, match=r"holds uint8 \[5, 28\], but has to hold uint8 \[images\]"):
        files.read_labels("test")


def test_an_archive_is_no_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/prepared").mkdir(parents=True)
    with open("data/prepared/test_labels.npy", "wb") as file:
        np.savez(file, labels=np.zeros(3, np.uint8))
    with pytest.raises(StageError, match=r"test_labels\.npy is not a whole \.npy file \(it is an \.npz archive\); run"):
        files.read_labels("test")


def test_a_damaged_archive_is_told(run_template: Path, tmp_path: Path) -> None:
    """Bits of the directory's first entry, which zipfile tells in its own ways: version, flags, compression.

    And of the directory's place in the file, which becomes one before its beginning, where no system seeks.
    """
    whole = (run_template / f"data/evaluation/{MODELS[0]}.npz").read_bytes()
    path, entry, end = tmp_path / "x.npz", whole.index(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    bits = [*((entry + offset, bit) for offset, bit in ((6, 64), (8, 1), (8, 32), (8, 64), (10, 1), (10, 8)))]
    for position, bit in [*bits, (end + 18, 2)]:
        damaged = bytearray(whole)
        damaged[position] ^= bit
        path.write_bytes(damaged)
        with pytest.raises(StageError, match=r"x\.npz is broken"):
            load_evaluation(path)


def test_pickled_arrays_are_refused(run_project: Path, refuse_here: Callable[..., str]) -> None:
    trap = run_project / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(trap), "w"))

    path = run_project / "data/prepared/train_images.npy"
    path.unlink()
    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    refuse_here(1, "data/prepared/train_images.npy is not a whole .npy file", "train", "deep")
    evaluation = run_project / "data/evaluation/deep.npz"
    with np.load(evaluation) as archive:
        arrays: dict[str, Any] = dict(archive)
    evaluation.unlink()
    np.savez(evaluation, **arrays | {"digits.labels": np.array([Trap()], dtype=object)})
    refuse_here(1, "data/evaluation/deep.npz is broken", "figures")
    assert not trap.exists()
