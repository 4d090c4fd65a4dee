"""A run that is killed continues where it was and ends in the bytes of an undisturbed one."""

import importlib.metadata
import json
import math
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core import checkpoint, files
from stages.core.archive import keras_bytes
from stages.core.autoencoder import build_autoencoder
from stages.core.backend import assign, tf
from stages.core.checkpoint import Epoch, History, checkpoint_path, digest_run, restore, save
from stages.core.params import read_params
from stages.core.schema import Model, Params
from stages.core.training import best_epoch, build_training, resident, train
from tests.conftest import (
    ROOT,
    TUTORIAL,
    call,
    change_params,
    digests,
    obey_permissions,
    start,
    succeed,
    wait_until,
)  # fmt: skip
from tests.imports import imported_files

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
SETTINGS = read_params(Params, ROOT / "params.yaml").models["deep"].model_copy(
    update=TUTORIAL | {"hidden_units": [20], "batch_size": 60, "epochs": 6}
)  # fmt: skip


EPOCHS = 400  # of the run that gets killed; quick ones
TARGETS = () if "KILLS" in os.environ else ("evaluate@deep",)  # of that run; none: the whole pipeline


class Run:
    """A model, compiled once, that every call trains on the small data from its first weights."""

    def __init__(self, mnist: Mnist, model_settings: Model = SETTINGS) -> None:
        self.images = resident(mnist["train"][0].reshape(600, -1).copy())
        self.model, self.settings = build_autoencoder(28, 28, model_settings), model_settings
        self.training = build_training(self.model, model_settings, 600, (28, 28))
        self.state = self.model.variables + self.training.optimizer.variables
        self.first = [variable.numpy() for variable in self.state]

    def __call__(self, path: Path, **changes: Any) -> tuple[bytes, History]:
        """The model's bytes and its history; changes: of the settings of when to stop."""
        assign(self.state, self.first)
        self.training.settings = self.settings.model_copy(update=changes)
        history = train(self.training, self.images, self.images, path)
        return keras_bytes(self.model), history


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, Path]:
    """Copies of the checkpoint after every epoch of what trains: what a process leaves that is killed after it."""
    copies: dict[int, Path] = {}

    def save_and_copy(path: Path, variables: list[keras.Variable], history: History) -> float:
        save(path, variables, history)
        copies[len(history)] = Path(shutil.copy(path, tmp_path / f"left after {len(history)}.npz"))
        return -math.inf

    monkeypatch.setattr("stages.core.training.save", save_and_copy)
    return copies


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "schedule": "linear", "warmup_epochs": 1.5, "ema_momentum": 0.9, "dropout": 0.2}
        | {"batch_size": 64, "kl_weight": 2.0, "kl_warmup_epochs": 4.5, "shift": 1},
        {"precision": "mixed_float16", "beta_2": 0.9, "normalization": "batch", "noise": 0.3},
    ],
    ids=str,
)
def test_a_killed_run_ends_in_the_same_bytes(
    mnist: Mnist, tmp_path: Path, left: dict[int, Path], capsys: pytest.CaptureFixture[str], changes: Any
) -> None:
    """Whatever an optimizer, a scale of losses or a source of chances has to remember."""
    run = Run(mnist, SETTINGS.model_copy(update=changes))
    undisturbed = run(tmp_path / "checkpoint.npz")
    assert run(left[3]) == undisturbed
    assert "continuing at epoch 4 of 6" in capsys.readouterr().out


def test_a_run_that_is_killed_twice_and_before_it_wrote_its_model_ends_in_the_same_bytes(
    mnist: Mnist, tmp_path: Path, left: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(mnist)
    undisturbed = run(tmp_path / "checkpoint.npz")
    for epoch in (3, 5):  # the copies after 5 and 6 are then those of a run that went on
        before = left[epoch].read_bytes()
        assert run(left[epoch]) == undisturbed
        assert f"continuing at epoch {epoch + 1} of 6" in capsys.readouterr().out
        assert left[epoch].read_bytes() != before
    complete = left[6]
    left.clear()
    assert run(complete) == undisturbed
    assert not left  # no epoch was trained
    assert capsys.readouterr().out == ""


def test_early_stopping_keeps_the_best_weights_of_a_killed_run_too(
    mnist: Mnist, tmp_path: Path, left: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate too large for more than a few epochs; stopped, it is the model of its best epoch."""
    restless = {"optimizer": "sgd", "loss": "mae", "learning_rate": 60.0, "epochs": 40}
    run = Run(mnist, SETTINGS.model_copy(update=restless))
    model, history = run(tmp_path / "checkpoint.npz", early_stopping=2)
    assert run(left[2], early_stopping=2) == (model, history)
    losses = [row.val_loss for row in history]
    best = losses.index(min(losses)) + 1
    assert best_epoch(history) == best
    assert len(losses) == best + 2 < 40
    assert "continuing at epoch 3 of 40" in capsys.readouterr().out
    assert model == run(tmp_path / "best.npz", epochs=best)[0]


@pytest.mark.quick
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_checkpoint_is_ignored_and_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, or with a byte changed anywhere."""
    path = tmp_path / "checkpoint.npz"
    path.unlink(missing_ok=True)
    variables = [keras.Variable(np.ones((3, 4), np.float32)), keras.Variable(7)]
    history = [Epoch(1, 0.5, 0.25, 7.5, 1 / 7), Epoch(2, 0.125, 1 / 3, 0.0, 1e9)]
    save(path, variables, history)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    fresh = [keras.Variable(np.zeros((3, 4), np.float32)), keras.Variable(0)]
    restored = restore(path, fresh)
    assert restored in ([], history)  # a changed byte in the archive's padding does no harm
    expected = variables if restored else [np.zeros((3, 4)), 0]
    for variable, value in zip(fresh, expected, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.quick
def test_a_checkpoint_of_another_shape_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoint.npz"
    save(path, [keras.Variable(np.ones(3))], [Epoch(1, 0.5, 0.5, 0.0, 0.0)])
    other = keras.Variable(np.full(4, 2.0))
    assert restore(path, [other]) == []
    assert other.numpy().tolist() == [2, 2, 2, 2]
    assert str(path) in capsys.readouterr().err
    assert restore(tmp_path / "none.npz", []) == []
    assert capsys.readouterr().err == ""


@pytest.mark.quick
def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").write_text("a file where the folder should be")
    path = tmp_path / "folder/checkpoint.npz"
    save(path, [keras.Variable(np.ones(3))], [Epoch(1, 0.5, 0.5, 0.0, 0.0)])
    (note,) = capsys.readouterr().err.splitlines()
    assert str(path) in note
    assert "Not a directory" in note


@pytest.mark.quick
@pytest.mark.parametrize("seconds", [0.001, 0.1, 7.0])
def test_saving_takes_its_share_of_time_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Epochs of a fifth of a second, and a disk that takes `seconds` for a checkpoint."""
    now = [100.0]

    def slow_disk(contents: dict[Path, object]) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(files, "write_all", slow_disk)
    saves, next_save = 0, now[0]
    while now[0] < 100 + 3000 * max(seconds, 0.2):
        now[0] += 0.2
        if now[0] >= next_save:
            next_save = save(tmp_path / "x.npz", [], [Epoch(1, 0.0, 0.0, 0.0, 0.0)])
            saves += 1
    share = saves * seconds / (now[0] - 100)
    assert share <= checkpoint.LARGEST_SHARE * 1.01
    assert share > 0.9 * checkpoint.LARGEST_SHARE or seconds < 0.01  # every epoch, then, for less than the share


@pytest.mark.quick
def test_everything_that_determines_a_run_names_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting, a byte of the images or of any file of code, Python, each library and the machine."""
    data = [tmp_path / "train.npy", tmp_path / "validation.npy"]
    code = [tmp_path / "one.py", tmp_path / "two.py"]
    for path in data + code:
        path.write_bytes(b"12")
    plain = SETTINGS.model_dump()

    def path_with(**changes: Any) -> Path:
        return checkpoint_path(digest_run(plain | changes, data, code))

    same = path_with()
    assert path_with() == same
    seen = [same]
    for key, value in plain.items():
        seen.append(path_with(**{key: "another" if isinstance(value, str) else [21] if key == "hidden_units" else 99}))
    for path in data + code:
        path.write_bytes(b"1!")
        seen.append(path_with())
        path.write_bytes(b"12")
    version = importlib.metadata.version

    def newer(library: str) -> Callable[[str], str]:
        return lambda name: version(name) + ("x" if name == library else "")

    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": gpu})
    gpus = (["A100"], ["A100", "A100"], ["H100"])
    others: list[tuple[Any, str, Any]] = [
        *((importlib.metadata, "version", newer(library)) for library in ("keras", "numpy", "tensorflow")),
        (sys, "version", "another"),
        (platform, "machine", lambda: "another"),
        (platform, "system", lambda: "another"),
        *((tf.config, "list_physical_devices", lambda kind, some=some: some) for some in gpus),
    ]
    for place, name, value in others:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            seen.append(path_with())
    assert len(seen) == 1 + len(plain) + len(data + code) + len(others)
    assert len(set(seen)) == len(seen)
    assert path_with() == same


RECORDING = """
import hashlib, json, runpy, sys
digested, digest = [], hashlib.file_digest
hashlib.file_digest = lambda file, *args: digested.append(file.name) or digest(file, *args)
command = json.loads(sys.argv.pop(1))
sys.argv[1:] = command[1:]
runpy.run_module(command[0], run_name="__main__", alter_sys=True)
print(json.dumps(digested))
"""


def test_every_module_that_training_loads_names_its_checkpoint(run_project: Path) -> None:
    """Started either way, the content counts of the images and of all of stages/ that the stage imports."""
    imported = imported_files(run_project / "stages/train.py", run_project)
    assert run_project / "stages/core/training.py" in imported
    assert run_project / "stages/evaluate.py" not in imported
    code = {}
    for command in (["stages.train", "shallow"], ["stages", "train", "shallow"]):
        output = succeed(run_project, sys.executable, "-c", RECORDING, json.dumps(command))
        digested = [Path(name) for name in json.loads(output.splitlines()[-1])]
        code[command[0]] = [path for path in digested if path.suffix == ".py"]
        assert set(code[command[0]]) == imported
        assert digested[:2] == [files.images_path("train"), files.images_path("validation")]
    assert code["stages"] == code["stages.train"]


# --- processes that end at a bad moment, or meet another ------------------------------------


@pytest.fixture(scope="module")
def undisturbed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which a run long enough to be killed in has ended; not to be changed."""
    project = tmp_path_factory.mktemp("undisturbed") / "project"
    succeed(project.parent, "git", "clone", "-q", str(template), "project")
    change_params(project, lambda p: p["models"]["deep"].update(hidden_units=[], normalization="none", epochs=EPOCHS))
    change_params(project, lambda p: p["models"]["shallow"].update(epochs=50))
    succeed(project, "git", "commit", "-qam", "long run")
    succeed(project, "dvc", "repro", *TARGETS)
    return project


def checkpoints(project: Path) -> list[Path]:
    """Those of complete runs are gone, and so are unfinished ones, unless a process was killed while it wrote."""
    return sorted((project / checkpoint.FOLDER).iterdir())


def saved(project: Path) -> bool:
    """Whether a training has written a checkpoint."""
    return any((project / checkpoint.FOLDER).glob("*.npz"))


def mend(project: Path, output: str) -> bool:
    """Do what the README says if a kill has torn one of the two files that DVC does not replace as a whole."""
    if "Unable to read RWLock-file" in output:
        (project / ".dvc/tmp/rwlock").unlink()
    elif "dvc.lock' validation failed" in output or "dvc.lock' is invalid" in output:
        (project / "dvc.lock").unlink()
    else:
        return False
    return True


@pytest.mark.xdist_group("undisturbed")  # which one process makes
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to kill")
def test_kills_at_random_moments_lose_nothing(undisturbed: Path, tmp_path: Path) -> None:
    """The crash test: the environment's KILLS says how many kills, 2 in the suite and 50 or more by hand.

    The suite stops at the long model's evaluation. Runs of `dvc repro` are killed and restarted until
    they end; each round starts without any result, and its outputs have to be those of an
    undisturbed run.
    """
    wanted = int(os.environ.get("KILLS", "2"))
    expected = digests(undisturbed)
    kills = rounds = continued = torn = 0
    moment = random.Random(int(os.environ.get("SEED", "0")))
    while kills < wanted:
        rounds += 1
        crashed = tmp_path / f"crashed{rounds}"
        succeed(tmp_path, "git", "clone", "-q", str(undisturbed), crashed.name)
        status = None
        while status != 0:
            process = start(crashed, "dvc", "repro", *TARGETS)
            seconds = moment.uniform(1, 14)
            if not kills:  # in the middle of training, so that at least one is continued
                wait_until(partial(saved, crashed))
                seconds = 0.1
            try:
                output, _ = process.communicate(timeout=seconds if kills < wanted else None)
                if process.returncode:
                    assert mend(crashed, output), output
                    torn += 1
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # no handler runs, as in a power cut
                kills += 1
                output, _ = process.communicate()
            status = process.returncode
            continued += output.count("continuing at epoch")
        left = [path for path in crashed.rglob(".*.tmp") if ".git" not in path.parts]
        for path in left:  # unfinished files, under names that nothing reads
            path.unlink()
        assert len(left) <= kills
        assert digests(crashed) == expected
        assert checkpoints(crashed) == []
        shutil.rmtree(crashed)
    assert continued
    print(
        f"\n{kills} kills in {rounds} runs, {continued} trainings continued, every output the same; "
        f"DVC's own files were torn {torn} times and mended"
    )


@pytest.mark.xdist_group("undisturbed")  # which one process makes
@pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")
def test_an_interrupted_or_terminated_run_continues(undisturbed: Path, tmp_path: Path) -> None:
    """Ctrl-C at a terminal and a batch system's SIGTERM reach `dvc repro` and its stage, `kill` the stage alone."""
    project = tmp_path / "project"
    shutil.copytree(undisturbed, project, symlinks=True)
    expected = digests(project)
    repro = ("dvc", "repro", "--single-item", "--force", "train@deep")
    train = (sys.executable, "-m", "stages.train", "deep")
    seen: set[bytes] = set()

    def newly_saved() -> bool:  # by its content, since some file systems correct a time of change afterwards
        return any(path.read_bytes() not in seen for path in (project / checkpoint.FOLDER).glob("*.npz"))

    for command, number, status, sentences in (  # with which status DVC sees the stage end is its shell's choice
        (repro, signal.SIGINT, 255, ["interrupted.", "failed to run: python -m stages.train deep, exited with"]),
        (train, signal.SIGINT, 130, ["continuing at epoch", "interrupted."]),
        (repro, signal.SIGTERM, -signal.SIGTERM, ["continuing at epoch", "terminated."]),  # DVC says nothing
        (train, signal.SIGTERM, 143, ["continuing at epoch", "terminated."]),
    ):
        process = start(project, *command)
        wait_until(newly_saved)
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == status, output
        for sentence in sentences:
            assert sentence in output
        assert "Traceback" not in output
        (left,) = checkpoints(project)
        seen.add(left.read_bytes())
        assert not (project / "data/models/deep.keras").exists()
    assert succeed(project, "git", "status", "--porcelain") == succeed(undisturbed, "git", "status", "--porcelain")
    (project / checkpoint.FOLDER).chmod(0o555)  # a checkpoint that cannot be replaced or deleted is no failure
    output = succeed(project, *repro, preexec_fn=obey_permissions)
    (project / checkpoint.FOLDER).chmod(0o755)
    assert "continuing at epoch" in output
    assert digests(project) == expected


@pytest.mark.xdist_group("undisturbed")  # which one process makes
@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
def test_two_trainings_of_one_model_share_a_checkpoint_and_end_in_the_same_bytes(
    undisturbed: Path, tmp_path: Path
) -> None:
    """As when DVC alone was killed and started again: the second continues from the first's checkpoint, which
    the first then deletes."""
    project = tmp_path / "project"
    shutil.copytree(undisturbed, project, symlinks=True)
    expected = digests(project)
    for path in files.model_files("deep")[:2]:
        (project / path).unlink()
    first = start(project, sys.executable, "-m", "stages.train", "deep")
    wait_until(partial(saved, project))
    os.killpg(first.pid, signal.SIGSTOP)
    second = start(project, sys.executable, "-m", "stages.train", "deep")
    assert second.stdout is not None
    assert any("continuing at epoch" in line for line in second.stdout)
    os.killpg(second.pid, signal.SIGSTOP)
    for process in (first, second):
        os.killpg(process.pid, signal.SIGCONT)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        assert digests(project) == expected
        assert checkpoints(project) == []


def test_torn_files_of_dvcs_are_reported_and_mended_by_hand(run_project: Path) -> None:
    """DVC truncates two files before it writes them, so a kill can leave them empty."""
    before = digests(run_project)
    for torn in (".dvc/tmp/rwlock", "dvc.lock"):
        (run_project / torn).write_bytes(b"")
        result = call(run_project, "dvc", "repro", "--force", "--single-item", "prepare")
        assert result.returncode != 0
        assert "Traceback" not in result.stderr
        assert mend(run_project, result.stderr)
        succeed(run_project, "git", "checkout", "dvc.lock")
        assert "up to date" in succeed(run_project, "dvc", "repro")
        assert digests(run_project) == before
