"""A run that is killed continues where it was and ends in the bytes of an undisturbed one."""

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import checkpoint, files
from stages.autoencoder import build_autoencoder, keras_bytes
from stages.checkpoint import checkpoint_path, digest_run, read_checkpoint, restore, saver
from stages.engine import resident
from stages.params import Model, read_params
from stages.train import train
from tests.conftest import ROOT, call, change_params, digests, obey_permissions, start, succeed, wait_until

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
SETTINGS = read_params(ROOT / "params.yaml").models["deep"].model_copy(
    update={"hidden_units": [20], "batch_size": 64, "epochs": 6}
)  # fmt: skip


EPOCHS = 400  # of the run that gets killed; quick ones


class KilledError(Exception):
    """Stands in for a process that ends between two epochs."""


def run(mnist: Mnist, path: Path, model_settings: Model = SETTINGS, kill_after: int = 0) -> tuple[bytes, str]:
    """Train on the small data; with `kill_after`, end at that epoch like a killed process."""
    images = resident(mnist["train"][0].reshape(600, -1).copy())
    model = build_autoencoder(28, 28, model_settings)

    def report(epoch: int, loss: float, val_loss: float) -> None:
        if epoch == kill_after:
            raise KilledError

    history = train("deep", model, model_settings, images, images, report, path)
    return keras_bytes(model), history.to_csv()


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd"}, {"precision": "mixed_float16"}])
def test_a_killed_run_ends_in_the_same_bytes(
    mnist: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: Any
) -> None:
    monkeypatch.setattr(checkpoint, "COST", 1e9)  # save after every epoch
    model_settings = SETTINGS.model_copy(update=changes)
    path = tmp_path / "checkpoint.npz"
    for epoch in (3, 5):
        with pytest.raises(KilledError):
            run(mnist, path, model_settings, kill_after=epoch)
    assert "continuing at epoch 4 of 6" in capsys.readouterr().out
    continued = run(mnist, path, model_settings)
    assert "continuing at epoch 6 of 6" in capsys.readouterr().out
    assert continued == run(mnist, tmp_path / "none.npz", model_settings)


def test_early_stopping_keeps_the_best_weights_of_a_killed_run_too(
    mnist: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate too large for more than a few epochs; stopped, it is the model of its best epoch."""
    monkeypatch.setattr(checkpoint, "COST", 1e9)
    restless = SETTINGS.model_copy(update={"optimizer": "sgd", "loss": "mae", "learning_rate": 60.0, "epochs": 40})
    stopping = restless.model_copy(update={"early_stopping": 2})
    with pytest.raises(KilledError):
        run(mnist, tmp_path / "checkpoint.npz", stopping, kill_after=2)
    model, history = run(mnist, tmp_path / "checkpoint.npz", stopping)
    assert (model, history) == run(mnist, tmp_path / "none.npz", stopping)
    losses = pd.read_csv(io.StringIO(history))["val_loss"]
    best = int(losses.argmin()) + 1
    assert len(losses) == best + 2 < 40
    assert f"stopped early after epoch {best + 2}: the best val_loss, {losses.min():.5f}, was in epoch {best}" in (
        capsys.readouterr().out
    )
    assert model == run(mnist, tmp_path / "best.npz", restless.model_copy(update={"epochs": best}))[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_checkpoint_is_ignored_and_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, or with a byte changed anywhere."""
    path = tmp_path / "checkpoint.npz"
    path.unlink(missing_ok=True)
    variables = [keras.Variable(np.ones((3, 4), np.float32)), keras.Variable(7)]
    history = [(1, 0.5, 0.25), (2, 0.125, 1 / 3)]
    saver(path, variables)(history)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    fresh = [keras.Variable(np.zeros((3, 4), np.float32)), keras.Variable(0)]
    restored = restore(read_checkpoint(path), fresh)
    assert restored in ([], history)  # a changed byte in the archive's padding does no harm
    expected = variables if restored else [np.zeros((3, 4)), 0]
    for variable, value in zip(fresh, expected, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_checkpoint_of_another_shape_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoint.npz"
    saver(path, [keras.Variable(np.ones(3))])([(1, 0.5, 0.5)])
    assert restore(read_checkpoint(path), [keras.Variable(np.ones(4))]) == []
    assert "is broken and ignored (it holds variables of other shapes)" in capsys.readouterr().err
    assert restore(read_checkpoint(tmp_path / "none.npz"), []) == []
    assert capsys.readouterr().err == ""


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").write_text("a file where the folder should be")
    saver(tmp_path / "folder/checkpoint.npz", [keras.Variable(np.ones(3))])([(1, 0.5, 0.5)])
    assert "note: no checkpoint: " in capsys.readouterr().err


def test_saving_takes_its_share_of_time_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    saves = []

    def write_files(writers: Any) -> None:
        saves.append(clock[0])
        clock[0] += 0.1

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(files, "write_files", write_files)
    save = saver(tmp_path / "x.npz", [])
    for epoch in range(1000):
        clock[0] += 0.2
        save([(epoch, 0.0, 0.0)])
    assert 0.9 * checkpoint.COST < 0.1 * len(saves) / clock[0] <= checkpoint.COST * 1.1


def test_every_setting_and_the_data_name_the_checkpoint(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"1")
    plain = SETTINGS.model_dump()
    others = {"hidden_units": [21], "latent_dim": 3, "loss": "mse", "learning_rate": 0.1, "seed": 9, "threads": 1}
    paths = {
        checkpoint_path(digest_run(plain | changed, [data])) for changed in [{}, *({k: v} for k, v in others.items())]
    }
    data.write_bytes(b"2")
    paths.add(checkpoint_path(digest_run(plain, [data])))
    assert len(paths) == len(others) + 2


# --- processes that end at a bad moment, or meet another ------------------------------------


@pytest.fixture(scope="module")
def undisturbed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which a run long enough to be killed in has gone through; not to be changed."""
    project = tmp_path_factory.mktemp("undisturbed") / "project"
    succeed(project.parent, "git", "clone", "-q", str(template), "project")
    change_params(project, lambda p: p["models"]["deep"].update(hidden_units=[64], epochs=EPOCHS))
    change_params(project, lambda p: p["models"]["shallow"].update(epochs=50))
    succeed(project, "git", "commit", "-qam", "long run")
    succeed(project, "dvc", "repro")
    return project


def checkpoints(project: Path) -> list[Path]:
    """Those of complete runs are gone, and so are unfinished ones, unless a process was killed while it wrote."""
    return sorted((project / checkpoint.FOLDER).iterdir())


def mend(project: Path, output: str) -> bool:
    """Do what the README says if a kill has torn one of the two files that DVC does not replace as a whole."""
    if "Unable to read RWLock-file" in output:
        (project / ".dvc/tmp/rwlock").unlink()
    elif "dvc.lock' validation failed" in output or "dvc.lock' is invalid" in output:
        (project / "dvc.lock").unlink()
    else:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to kill")
def test_kills_at_random_moments_lose_nothing(undisturbed: Path, tmp_path: Path) -> None:
    """The crash test: the environment's KILLS says how many kills, 3 in the suite and 50 or more by hand.

    Runs of `dvc repro` are killed and restarted until they are through; each round starts
    without any result, and its outputs have to be those of an undisturbed run.
    """
    wanted = int(os.environ.get("KILLS", "3"))
    expected = digests(undisturbed)
    kills = rounds = continued = torn = 0
    moment = random.Random(int(os.environ.get("SEED", "0")))
    while kills < wanted:
        rounds += 1
        crashed = tmp_path / f"crashed{rounds}"
        succeed(tmp_path, "git", "clone", "-q", str(undisturbed), crashed.name)
        status = None
        while status != 0:
            process = start(crashed, "dvc", "repro")
            try:
                output, _ = process.communicate(timeout=moment.uniform(1, 14) if kills < wanted else None)
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
    print(
        f"\n{kills} kills in {rounds} runs, {continued} trainings continued, every output the same; "
        f"DVC's own files were torn {torn} times and mended"
    )


def hear_ctrl_c() -> None:
    """A preexec_fn: what a shell starts in the background ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")
def test_an_interrupted_or_terminated_run_continues(undisturbed: Path, tmp_path: Path) -> None:
    """Ctrl-C at a terminal and a batch system's SIGTERM reach `dvc repro` and its stage, `kill` the stage alone."""
    project = tmp_path / "project"
    shutil.copytree(undisturbed, project, symlinks=True)
    expected = digests(project)
    repro = ("dvc", "repro", "--single-item", "--force", "train@deep")
    train = (sys.executable, "-m", "stages.train", "deep")
    moments: set[int] = set()

    def saved() -> bool:
        found = {path.stat().st_mtime_ns for path in (project / checkpoint.FOLDER).glob("*.npz")}
        return bool(found - moments)

    for command, number, status, sentences in (  # with which status DVC sees the stage end is its shell's choice
        (repro, signal.SIGINT, 255, ["interrupted.", "failed to run: python -m stages.train, exited with"]),
        (train, signal.SIGINT, 130, ["continuing at epoch", "interrupted."]),
        (repro, signal.SIGTERM, -signal.SIGTERM, ["continuing at epoch", "terminated."]),  # DVC says nothing
        (train, signal.SIGTERM, 143, ["continuing at epoch", "terminated."]),
    ):
        process = start(project, *command, preexec_fn=hear_ctrl_c)
        wait_until(saved)
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status
        for sentence in sentences:
            assert sentence in output
        assert "Traceback" not in output
        (left,) = checkpoints(project)
        moments.add(left.stat().st_mtime_ns)
        assert not (project / "data/models/deep.keras").exists()
    assert succeed(project, "git", "status", "--porcelain") == succeed(undisturbed, "git", "status", "--porcelain")
    (project / checkpoint.FOLDER).chmod(0o555)  # a checkpoint that cannot be replaced or deleted is no failure
    output = succeed(project, *repro, preexec_fn=obey_permissions)
    (project / checkpoint.FOLDER).chmod(0o755)
    assert "continuing at epoch" in output
    assert digests(project) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
def test_two_trainings_of_one_model_share_a_checkpoint_and_end_in_the_same_bytes(
    undisturbed: Path, tmp_path: Path
) -> None:
    """As when DVC alone was killed and started again: the second continues from the first's checkpoint, which
    the first then deletes."""
    project = tmp_path / "project"
    shutil.copytree(undisturbed, project, symlinks=True)
    expected = digests(project)
    for path in (files.model_path("deep"), files.history_path("deep")):
        (project / path).unlink()
    first = start(project, sys.executable, "-m", "stages.train", "deep")
    wait_until(lambda: list((project / checkpoint.FOLDER).glob("*.npz")))
    os.killpg(first.pid, signal.SIGSTOP)
    second = start(project, sys.executable, "-m", "stages.train", "deep")
    assert second.stdout is not None
    assert any("continuing at epoch" in line for line in second.stdout)
    os.killpg(second.pid, signal.SIGSTOP)
    for process in (first, second):
        os.killpg(process.pid, signal.SIGCONT)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert digests(project) == expected
        assert checkpoints(project) == []


def test_torn_files_of_dvcs_are_told_and_mended_by_hand(run_project: Path) -> None:
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
