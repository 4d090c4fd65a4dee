"""Bad settings, arguments and files: a stage refuses them in one sentence and leaves its outputs as they were."""

import dataclasses
import importlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from stages.core.errors import StageError
from stages.core.evaluation import load_evaluation
from stages.core.params import read_params
from stages.core.records import save_record
from stages.core.schema import Params
from stages.evaluate import read_history
from tests import made_up
from tests.conftest import (
    ARGUMENTS,
    MODELS,
    ROOT,
    STAGES,
    TUTORIAL,
    Stage,
    call,
    change_params,
    digests,
    full_disk,
    obey_permissions,
    outputs,
    pictures,
    refused,
    succeed,
)

not_on_windows = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has neither permission bits nor a limit on the size of files"
)
PARAMS = read_params(Params, ROOT / "params.yaml")
HOSTILE = ("$(touch pwned)", "; touch pwned #", "`touch pwned`", "' && touch pwned '", "../escaped")


@pytest.fixture
def refuse_here(run_project: Path, here: Stage) -> Callable[..., str]:
    """The stage, called in this process, ends with `status` and one line, and leaves no output."""

    def refuse_it(status: int, sentence: str, *arguments: str) -> str:
        before = outputs(run_project)
        ended = here(*arguments)
        assert outputs(run_project) == before
        return refused(ended.status, ended.err, status, sentence)

    return refuse_it


# --- settings -----------------------------------------------------------------------------


def test_every_stage_and_the_check_refuse_a_typo_and_hostile_model_names(
    run_project: Path, refuse_here: Callable[..., str]
) -> None:
    """DVC puts names into commands, so run the check before `dvc repro` if params.yaml is a stranger's."""

    def change(params: Any) -> None:
        params["models"]["shallow"].update(epoch=3)
        params["models"].update(dict.fromkeys(HOSTILE))

    change_params(run_project, change)
    for name in (*STAGES, "tools.check"):
        arguments = ARGUMENTS.get(name, ())[:1]
        error = refuse_here(2, "models.shallow.epoch is not a known key", name, *arguments)
        assert [name for name in HOSTILE if f"params.yaml: models.{name} is {name!r}" in error] == list(HOSTILE)
    assert not [*run_project.rglob("pwned*"), *run_project.parent.rglob("escaped*")]


def test_dvc_repro_stops_at_a_mistake(project: Path) -> None:
    change_params(project, lambda p: p["prepare"].update(seed="x"))
    result = call(project, "dvc", "repro")
    assert result.returncode != 0
    assert "error: params.yaml: prepare.seed is 'x', but has to be a valid integer" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_sizes_that_the_data_cannot_serve(run_project: Path, refuse_here: Callable[..., str]) -> None:
    """Of a model, and of a preset."""
    changes = {"batch_size": 501, "latent_dim": 501}
    change_params(run_project, lambda p: p["models"]["deep"].update(changes))
    error = refuse_here(2, "params.yaml: models.deep.batch_size is 501, but has to be at most 500", "train", "deep")
    assert "params.yaml: models.deep.latent_dim is 501, but has to be at most 500" in error
    of_conv = {"batch_size": 50, "latent_dim": 16, "layers": "conv", "hidden_units": [2] * 6}
    change_params(run_project, lambda p: p["models"]["deep"].update(of_conv))
    refuse_here(2, "models.deep.hidden_units has 6 convolutional layers, but images of 28×28 can be", "train", "deep")
    (run_project / "presets.yaml").write_text("best16: {batch_size: 501}")
    refuse_here(2, "presets.yaml: best16.batch_size is 501, but has to be at most 500", "train", "best16")


# --- arguments ----------------------------------------------------------------------------


def test_a_missing_or_unknown_model(refuse_here: Callable[..., str]) -> None:
    known = ", ".join([*PARAMS.models, *PARAMS.presets])
    assert "did you mean" not in refuse_here(2, known, "train")
    error = refuse_here(2, known, "train", "deeep")
    assert "(did you mean deep?)" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", STAGES)
def test_help_is_the_description_and_an_argument_without_meaning_is_refused(here: Stage, name: str) -> None:
    ended = here(name, "--help")
    assert ended.status == 0
    assert ended.out.startswith(f"usage: python -m stages.{name} [-h]")
    assert f"\n{importlib.import_module(f'stages.{name}').__doc__}".splitlines()[1] in ended.out
    ended = here(name, *ARGUMENTS.get(name, ("deep",))[:1], "--dpi")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"usage: python -m stages.{name} [-h]")
    assert re.search(r"error: unrecognized arguments: .*--dpi\n", ended.err)


# --- training that goes wrong -------------------------------------------------------------


def test_a_collapse_is_a_warning_and_a_penalty_is_none(run_project: Path, here: Stage) -> None:
    """A saturated latent layer gives all images one code. A penalised model has a large loss, but knows digits."""
    trained = TUTORIAL | {"learning_rate": 0.01, "epochs": 20}
    special = {
        "penalised": {"code_l1": 0.02},
        "saturated": {"latent_activation": "softplus", "learning_rate": 0.5},
    }

    def change(params: Any) -> None:
        models = params["models"]
        models.update({name: models["shallow"] | trained | changes for name, changes in special.items()})

    change_params(run_project, change)
    printed = "".join(here(stage, name).err for name in special for stage in ("train", "evaluate"))
    (warning,) = re.findall(r"^warning: .*", printed, re.MULTILINE)
    saturated, penalised = (load_evaluation(run_project / f"data/evaluation/{name}.npz") for name in reversed(special))
    assert saturated.model.reconstructions.std(axis=0).max() < 1e-3
    assert penalised.model.reconstructions.std(axis=0).max() > 0.1
    assert penalised.val_loss[-1] > saturated.val_loss[-1]  # so the loss shows no collapse
    assert warning.startswith("warning: models.saturated collapsed: its test mse per pixel, ")
    mse, mse_mean_image = saturated.model.mse, saturated.mse_mean_image
    assert f", {mse:.4f}, is no better than that of the mean image, {mse_mean_image:.4f}," in warning


# --- files --------------------------------------------------------------------------------


def test_broken_intermediate_files(run_project: Path, refuse_here: Callable[..., str]) -> None:
    (run_project / "data/prepared/train_images.npy").unlink()
    refuse_here(1, "data/prepared/train_images.npy is missing; run `dvc repro prepare`.", "evaluate", "deep")

    (run_project / "data/evaluation/deep.npz").unlink()
    for name in ("compare", "anomalies"):
        refuse_here(1, "data/evaluation/deep.npz is missing; run `dvc repro`.", name)
    classical = run_project / "data/classical/denoising.npz"
    content = classical.read_bytes()
    classical.unlink()  # it may be a link into DVC's cache
    classical.write_bytes(content[:3000])
    refuse_here(1, "data/classical/denoising.npz is broken", "denoise")


def test_evaluations_of_other_images_are_refused(run_project: Path, refuse_here: Callable[..., str]) -> None:
    """As they are after a model was measured alone, with other data."""
    path = run_project / "data/evaluation/deep.npz"
    found = load_evaluation(path)
    path.unlink()
    with open(path, "wb") as file:
        save_record(file, dataclasses.replace(found, digits=made_up.digits(found.digits.labels[::-1].tolist())))
    for name in ("compare", "figures", "anomalies"):
        refuse_here(1, "data/evaluation/deep.npz is of other test images than data/evaluation/shallow.npz", name)


def test_classical_methods_with_other_noise_are_refused(run_project: Path, refuse_here: Callable[..., str]) -> None:
    change_params(run_project, lambda p: p["denoise"].update(seed=1))
    refuse_here(1, "data/classical/denoising.npz is of other images or noise than the `denoise` section", "denoise")


@pytest.mark.quick
@pytest.mark.parametrize(
    "text",
    ["", "epoch,loss\n1,0.5\n", "epoch,loss,val_loss\n1,0.5,x\n", "epoch,loss,val_loss,kl,val_kl\n1,0.5,1,0,y\n"],
)
def test_a_history_that_is_no_table_of_losses(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shallow.csv"
    path.write_text(text)
    with pytest.raises(StageError, match=r"shallow\.csv is not a table of losses"):
        read_history(path)


def test_what_belongs_to_no_model(run_project: Path, here: Stage) -> None:
    """The error names what is left of that model, never a file of a model or preset that exists, and the command
    that deletes it."""
    (run_project / "metrics/best16.json").write_text("{}")  # of the preset, which may once have been a model
    before = outputs(run_project)
    old = ["data/models/old.keras", "data/history/old.csv", "data/evaluation/old.npz", "metrics/old.json"]
    alone = ("best16.npz", "deep.txt", "a folder")
    for paths in (old, *([f"data/evaluation/{name}"] for name in alone)):
        for path in paths:
            (run_project / path).mkdir() if path.endswith(" folder") else (run_project / path).write_bytes(b"")
        ended = here("compare")
        assert ended.status == 1
        (found,) = (path for path in paths if path.startswith("data/evaluation/"))
        assert ended.err.startswith(f"error: {found} belongs to no model in params.yaml")
        command = ended.err.split(" again: ")[1]
        assert shlex.split(command) == ["rm", "-r", *paths]
        succeed(run_project, *shlex.split(command))
        assert outputs(run_project) == before
    assert here("compare").status == 0
    assert outputs(run_project) == before


def test_a_damaged_archive_is_reported(run_template: Path, tmp_path: Path) -> None:
    """Flip bits of the directory's first entry (version, flags, compression) and of the directory's offset,
    which then lies before the start of the file."""
    whole = (run_template / f"data/evaluation/{MODELS[0]}.npz").read_bytes()
    path, entry, end = tmp_path / "x.npz", whole.index(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    bits = [(entry + offset, bit) for offset, bit in ((6, 64), (8, 1), (8, 32), (8, 64), (10, 1), (10, 8))]
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


# --- faults of the machine ----------------------------------------------------------------


class Case(NamedTuple):
    stage: str  # and its argument
    limit: int  # bytes, fewer than at least one output needs
    source: str  # an input
    largest: str  # the output that the limit stops
    outputs: tuple[str, ...]


TRAIN, TEST, SHALLOW, DEEP = (
    f"data/{name}"
    for name in ("prepared/train_images.npy", "prepared/test_images.npy", "models/shallow.keras", "evaluation/deep.npz")
)
OF_EVALUATE = ("data/evaluation/shallow.npz", "metrics/shallow.json")
OF_COMPARE = ("metrics/README.md", "plots/comparison.csv", "plots/losses.csv", "plots/mse_per_class.csv")
FIGURES = tuple(f"plots/{name}.png" for name in pictures("figures"))
CASES = [  # in an order that works, since each stage needs what those before it have made
    Case("prepare", 100_000, "data/raw/t10k-labels-idx1-ubyte.gz", TRAIN, ("data/prepared/*",)),
    # Keras saves to a temporary folder first
    Case("train shallow", 50_000, TRAIN, "model.keras", ("data/history/shallow.csv", SHALLOW)),
    Case("evaluate shallow", 9_000, SHALLOW, "data/evaluation/shallow.npz", OF_EVALUATE),
    Case("compare", 300, DEEP, "metrics/README.md", OF_COMPARE),
    Case("figures", 20_000, DEEP, "plots/reconstructions.png", FIGURES),
    Case("anomalies", 9_000, DEEP, "plots/anomalies.png", ("plots/anomalies.*", "metrics/anomalies.*")),
    Case("classical", 9_000, TEST, "data/classical/denoising.npz", ("data/classical/*",)),
    Case("denoise", 9_000, SHALLOW, "plots/denoising.png", ("plots/denoising.*", "metrics/denoising.md")),
    Case("few_labels", 9_000, SHALLOW, "plots/labels.png", ("plots/labels.*", "metrics/few_labels.md")),
]


@not_on_windows
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stage)
def test_a_stage_reports_a_full_disk_and_a_folder_in_place_of_an_input_and_the_next_run_recovers(
    run_project: Path, here: Stage, refuse_here: Callable[..., str], case: Case
) -> None:
    expected = digests(run_project)
    for pattern in case.outputs:  # as DVC does before it runs a stage
        for path in run_project.glob(pattern):
            path.unlink()
    with full_disk(case.limit):
        refuse_here(1, f"{case.largest}: cannot be written: File too large.", *case.stage.split())
    source = run_project / case.source
    # without the dot, `compare` would count it as a model's
    away = source.rename(source.with_name(f".{source.name}.away"))
    source.mkdir()
    refuse_here(1, f"error: {case.source}", *case.stage.split())
    source.rmdir()
    away.rename(source)
    assert here(*case.stage.split()).status == 0
    assert digests(run_project) == expected


@not_on_windows
def test_a_folder_that_may_not_be_written_is_named_and_no_other_output_is_left(run_project: Path) -> None:
    before = outputs(run_project)
    (run_project / "plots").chmod(0o555)
    alone = call(run_project, sys.executable, "-m", "stages.compare", preexec_fn=obey_permissions)
    (run_project / "plots").chmod(0o755)
    refused(alone.returncode, alone.stderr, 1, "error: plots/comparison.csv: cannot be written: Permission denied.")
    assert outputs(run_project) == before


@not_on_windows
def test_dvc_and_the_stage_report_what_they_may_not_write_or_read_and_lose_nothing(run_project: Path) -> None:
    """DVC itself reads inputs and removes old outputs before the stage runs."""
    expected = digests(run_project)
    for path, mode, options in (
        ("data/prepared", 0o555, ["--force", "--single-item"]),
        ("data/raw/t10k-labels-idx1-ubyte.gz", 0, []),
    ):
        place = run_project / path
        before = place.stat().st_mode
        place.chmod(mode)
        place.touch()  # so that DVC does not consider it unchanged
        by_dvc = call(run_project, "dvc", "repro", *options, "prepare", preexec_fn=obey_permissions)
        alone = call(run_project, sys.executable, "-m", "stages.prepare", preexec_fn=obey_permissions)
        place.chmod(before)
        assert by_dvc.returncode == 255
        assert f"ERROR: failed to reproduce 'prepare': [Errno 13] Permission denied: '{place}" in by_dvc.stderr
        assert "Traceback" not in by_dvc.stderr
        assert "Permission denied" in refused(alone.returncode, alone.stderr, 1, f"error: {path}")
        assert digests(run_project) == expected
    assert "up to date" in succeed(run_project, "dvc", "repro")
