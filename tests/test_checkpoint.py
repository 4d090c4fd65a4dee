"""A run that is killed continues where it was and ends in the bytes of an undisturbed one."""

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
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import checkpoint, files
from stages.autoencoder import build_autoencoder, keras_bytes
from stages.checkpoint import checkpoint_path, restore, saver
from stages.engine import resident
from stages.params import Model, read_params
from stages.train import train
from tests.conftest import ROOT, change_params, digests, environment, stage, succeed

Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
SETTINGS = read_params(ROOT / "params.yaml").models["deep"].model_copy(
    update={"hidden_units": [20], "batch_size": 64, "epochs": 6}
)  # fmt: skip


class KilledError(Exception):
    """Stands in for a process that ends between two epochs."""


def run(mnist: Mnist, path: Path, model_settings: Model = SETTINGS, kill_after: int = 0) -> tuple[bytes, str]:
    """Train on the small data; with `kill_after`, end at that epoch like a killed process."""
    images = resident(mnist["train"][0].reshape(600, -1).copy())
    model = build_autoencoder(784, model_settings.hidden_units, "relu", 16, "linear", model_settings.precision, 0)

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
    restored = restore(path, fresh)
    assert restored in ([], history)  # a changed byte in the archive's padding does no harm
    expected = variables if restored else [np.zeros((3, 4)), 0]
    for variable, value in zip(fresh, expected, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_checkpoint_of_another_shape_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoint.npz"
    saver(path, [keras.Variable(np.ones(3))])([(1, 0.5, 0.5)])
    assert restore(path, [keras.Variable(np.ones(4))]) == []
    assert "is broken and ignored (it holds variables of other shapes)" in capsys.readouterr().err
    assert restore(tmp_path / "none.npz", []) == []
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
    paths = {checkpoint_path(plain, [data])} | {checkpoint_path(plain | {k: v}, [data]) for k, v in others.items()}
    data.write_bytes(b"2")
    paths.add(checkpoint_path(plain, [data]))
    assert len(paths) == len(others) + 2


def long_run(project: Path) -> None:
    """Enough epochs for a run to be killed in; quick ones."""
    change_params(project, lambda p: p["models"]["deep"].update(hidden_units=[64], epochs=400))
    change_params(project, lambda p: p["models"]["shallow"].update(epochs=50))


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the whole process group: no handler runs, as in a power cut."""
    os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to kill")
def test_kills_at_random_moments_lose_nothing(project: Path, tmp_path: Path) -> None:
    """The crash test: the environment's KILLS says how many kills, 3 in the suite and 50 or more by hand.

    Runs of `dvc repro` are killed and restarted until they are through; each round starts
    without any result, and its outputs have to be those of an undisturbed run.
    """
    wanted = int(os.environ.get("KILLS", "3"))
    long_run(project)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(project, undisturbed)
    succeed(undisturbed, "dvc", "repro")
    expected = digests(undisturbed)

    kills = rounds = continued = 0
    moment = random.Random(0)
    while kills < wanted:
        rounds += 1
        crashed = tmp_path / f"crashed{rounds}"
        shutil.copytree(project, crashed)
        status = None
        while status != 0:
            process = subprocess.Popen(
                ["dvc", "repro"],
                cwd=crashed,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            try:
                output, _ = process.communicate(timeout=moment.uniform(1, 14) if kills < wanted else None)
                assert process.returncode == 0, output
            except subprocess.TimeoutExpired:
                kill(process)
                kills += 1
                output, _ = process.communicate()
            status = process.returncode
            continued += output.count("continuing at epoch")
        assert digests(crashed) == expected
        assert not list((crashed / checkpoint.FOLDER).glob("*.npz"))
        shutil.rmtree(crashed)
    print(f"\n{kills} kills in {rounds} runs, {continued} trainings continued, every output the same")


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C differs on Windows")
def test_an_interrupted_stage_continues(run_project: Path) -> None:
    change_params(run_project, lambda p: p["models"]["deep"].update(hidden_units=[64], epochs=800))
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train", "deep"],
        cwd=run_project,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list((run_project / checkpoint.FOLDER).glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130
    assert error.endswith("interrupted.\n")
    assert succeed(run_project, "git", "status", "--porcelain") == " M params.yaml\n"  # scratch is out of git's sight
    assert "continuing at epoch" in stage(run_project, "train", "deep").stdout
    assert not list((run_project / checkpoint.FOLDER).glob("*.npz"))
