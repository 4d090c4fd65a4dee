"""Several processes on this machine train one model, as several machines would."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages import checkpoint, files, workers
from stages.errors import ParamsError
from tests.conftest import call, change_params, digests, start, succeed, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="TensorFlow's collectives need Linux or macOS")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def tf_configs(count: int) -> list[str]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(count)
    ]


def start_workers(projects: list[Path], name: str = "deep") -> list[subprocess.Popen[str]]:
    """Each in a folder of its own, as on machines of their own."""
    command = (sys.executable, "-m", "stages.train", name)
    return [
        start(project, "env", f"TF_CONFIG={config}", *command)
        for project, config in zip(projects, tf_configs(len(projects)), strict=True)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def copies(source: Path, folder: Path, count: int) -> list[Path]:
    projects = [folder / f"worker{index}" for index in range(count)]
    for project in projects:
        shutil.copytree(source, project, symlinks=True)
        for path in (files.model_path("deep"), files.history_path("deep")):
            (project / path).unlink()
    return projects


@pytest.mark.parametrize("count", [2, 3])
def test_several_workers_train_what_one_process_trains(run_template: Path, tmp_path: Path, count: int) -> None:
    """500 images in batches of 64 fall to three workers unevenly, and the last batch has 52."""
    projects = copies(run_template, tmp_path, count)
    before = digests(projects[1])
    results = ends(start_workers(projects))
    assert [status for status, _ in results] == [0] * count, results
    expected, found = (pd.read_csv(p / files.history_path("deep")) for p in (run_template, projects[0]))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    metrics = "metrics/deep.json"
    succeed(projects[0], sys.executable, "-m", "stages.evaluate", "deep")
    mse, expected_mse = (json.loads((p / metrics).read_text())["mse"] for p in (projects[0], run_template))
    assert mse == pytest.approx(expected_mse, rel=1e-3)
    for project, (_, output) in zip(projects[1:], results[1:], strict=True):
        assert digests(project) == before  # only the chief writes
        assert "epoch 1 of" not in output
        assert "reports the epochs" in output
        assert not list((project / checkpoint.FOLDER).glob("*"))


def test_a_lost_worker_ends_the_others_and_the_next_start_continues(run_template: Path, tmp_path: Path) -> None:
    """With early stopping, whose best weights have to reach the other worker, and dropout, whose state has to."""
    source = tmp_path / "source"
    shutil.copytree(run_template, source, symlinks=True)
    long = {"epochs": 150, "early_stopping": 149, "dropout": 0.1, "hidden_units": [30]}
    change_params(source, lambda params: params["models"]["deep"].update(long))
    undisturbed, disturbed = (copies(source, tmp_path / kind, 2) for kind in ("undisturbed", "disturbed"))
    assert [status for status, _ in ends(start_workers(undisturbed))] == [0, 0]

    for lost in (1, 0):
        processes = start_workers(disturbed)
        seen = {path.stat().st_mtime_ns for path in (disturbed[0] / checkpoint.FOLDER).glob("*.npz")}

        def saved(seen: set[int] = seen) -> bool:
            return bool({p.stat().st_mtime_ns for p in (disturbed[0] / checkpoint.FOLDER).glob("*.npz")} - seen)

        wait_until(saved)
        os.killpg(processes[lost].pid, signal.SIGKILL)
        status, output = ends(processes)[1 - lost]
        assert status == 1
        assert "error: another worker stopped or cannot be reached" in output
        assert "Traceback" not in output
        assert not (disturbed[0] / files.model_path("deep")).exists()
    (status, output), (other, _) = ends(start_workers(disturbed))
    assert (status, other) == (0, 0)
    assert "continuing at epoch" in output
    assert "WARNING" not in output
    assert digests(disturbed[0]) == digests(undisturbed[0])


@pytest.mark.parametrize("hanging", [0, 1])
def test_a_worker_that_hangs_ends_the_other_and_itself_when_it_wakes(
    run_template: Path, tmp_path: Path, hanging: int
) -> None:
    projects = copies(run_template, tmp_path, 2)
    for project in projects:
        change_params(project, lambda params: params["models"]["deep"].update(epochs=1000))
    processes = start_workers(projects)
    wait_until(lambda: list((projects[0] / checkpoint.FOLDER).glob("*.npz")))
    os.killpg(processes[hanging].pid, signal.SIGSTOP)
    output, _ = processes[1 - hanging].communicate(timeout=60)  # TensorFlow gives up after about ten seconds
    assert processes[1 - hanging].returncode == 1
    assert "error: another worker stopped or cannot be reached" in output
    os.killpg(processes[hanging].pid, signal.SIGCONT)
    output, _ = processes[hanging].communicate(timeout=60)
    assert processes[hanging].returncode == 1
    assert "error: another worker stopped or cannot be reached" in output
    assert not (projects[0] / files.model_path("deep")).exists()


def test_a_worker_with_other_settings_is_told(run_template: Path, tmp_path: Path) -> None:
    projects = copies(run_template, tmp_path, 2)
    change_params(projects[1], lambda params: params["models"]["deep"].update(learning_rate=0.5))
    for status, output in ends(start_workers(projects)):
        assert status == 1
        address = r"127\.0\.0\.1:\d+"
        assert re.search(rf"error: {address} has other settings than the chief, {address}\. All workers need", output)


def test_a_worker_that_never_comes_is_not_awaited_for_ever(run_template: Path) -> None:
    code = "from stages import workers; workers.PATIENCE = 2; workers.join(workers.read_cluster())"
    for config in tf_configs(2):
        result = call(run_template, "env", f"TF_CONFIG={config}", sys.executable, "-c", code)
        assert result.returncode == 1
        assert result.stdout.startswith("waiting for 127.0.0.1:")
        assert "at most 2 s" in result.stdout


WORKER = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("{", "TF_CONFIG is '{', but has to be like {"),
        ("7", "TF_CONFIG is '7' ("),
        ({"cluster": {"worker": ["a:1"]}}, "(task: Field required)"),
        ({"cluster": {"worker": ["a"]}, "task": WORKER}, "(cluster.worker.0: "),
        ({"cluster": {"ps": ["a:1"], "worker": ["a:2"]}, "task": WORKER}, "(cluster.ps: "),
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}, "(there is no worker 2)"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}, "(there is no chief 0)"),
    ],
)
def test_a_mistake_in_tf_config_is_told(monkeypatch: pytest.MonkeyPatch, value: Any, sentence: str) -> None:
    monkeypatch.setenv("TF_CONFIG", value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(ParamsError) as error:
        workers.read_cluster()
    assert sentence in str(error.value)
    assert workers.EXAMPLE in str(error.value)


def test_who_is_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster: dict[str, Any] = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for task, position in (("chief", 0), 0), (("worker", 0), 1), (("worker", 1), 2):
        config = {"cluster": cluster, "task": dict(zip(("type", "index"), task, strict=True))}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        found = workers.read_cluster()
        assert found is not None
        assert (found.position, found.addresses) == (position, ["a:1", "b:1", "c:1"])
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1"]}, "task": WORKER}))
    assert workers.read_cluster() is None  # alone, it is a process like any other


def test_several_devices_of_one_machine_train_what_one_trains(run_template: Path) -> None:
    """Two logical CPUs stand for two GPUs."""
    code = """
import stages
from stages.backend import tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from stages import files, train
from stages.autoencoder import build_autoencoder
from stages.params import read_params
settings = read_params().models["deep"].model_copy(update={"shift": 1, "epochs": 2})
losses = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        images, validation = train.read_pixels("train"), train.read_pixels("validation")
        model = build_autoencoder(28, 28, settings)
        report = lambda *row: losses.append(row)
        augment = train.random_shift(28, 28, 1, 0)
        path = train.Path("none/x.npz")
        train.train("x", model, settings, images, validation, report, path, augment)
        path.unlink()
print([strategy.num_replicas_in_sync, losses])
"""
    output = succeed(run_template, sys.executable, "-c", code)
    replicas, losses = json.loads(output.splitlines()[-1].replace("(", "[").replace(")", "]"))
    assert replicas == 2
    assert [value for row in losses[2:] for value in row] == pytest.approx([v for row in losses[:2] for v in row], 1e-5)
