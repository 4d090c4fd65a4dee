"""Several processes on this machine train one model, as several machines would."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core import checkpoint, cluster
from stages.core.backend import tf
from stages.core.cluster import Cluster
from stages.core.errors import ParamsError, StageError
from stages.core.files import model_files
from stages.core.replicas import ONE, join_replicas
from tests.conftest import ROOT, call, change_params, digests, start, succeed, wait_until

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


def copies(source: Path, folder: Path, count: int, name: str = "deep") -> list[Path]:
    projects = [folder / f"worker{index}" for index in range(count)]
    for project in projects:
        shutil.copytree(source, project, symlinks=True)
        for path in model_files(name)[:2]:
            (project / path).unlink()
    return projects


@pytest.mark.parametrize(("count", "name"), [(2, "deep"), (3, "shallow")])
def test_several_workers_train_what_one_process_trains(
    run_template: Path, tmp_path: Path, count: int, name: str
) -> None:
    """500 images in the shallow model's batches of 64 fall to three workers unevenly, and the last batch has 52. Two
    share the deep model's batches of 50 evenly."""
    projects = copies(run_template, tmp_path, count, name)
    before = digests(projects[1])
    results = ends(start_workers(projects, name))
    assert [status for status, _ in results] == [0] * count, results
    expected, found = (pd.read_csv(p / model_files(name).history) for p in (run_template, projects[0]))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    metrics = f"metrics/{name}.json"
    succeed(projects[0], sys.executable, "-m", "stages.evaluate", name)
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
        assert not (disturbed[0] / model_files("deep").model).exists()
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
    assert not (projects[0] / model_files("deep").model).exists()


def test_a_worker_with_other_settings_is_told(run_template: Path, tmp_path: Path) -> None:
    projects = copies(run_template, tmp_path, 2)
    change_params(projects[1], lambda params: params["models"]["deep"].update(learning_rate=0.5))
    for status, output in ends(start_workers(projects)):
        assert status == 1
        address = r"127\.0\.0\.1:\d+"
        assert re.search(rf"error: {address} has other settings than the chief, {address}\. All workers need", output)


def test_a_worker_that_never_comes_is_not_awaited_for_ever(run_template: Path) -> None:
    code = "from stages.core import cluster; cluster.LONGEST_WAIT = 2; cluster.join(cluster.read_cluster())"
    for config in tf_configs(2):
        result = call(run_template, "env", f"TF_CONFIG={config}", sys.executable, "-c", code)
        assert result.returncode == 1
        assert result.stdout.startswith("waiting for 127.0.0.1:")
        assert "at most 2 s" in result.stdout


BROADCASTING = """
import hashlib
from stages.core.replicas import join_replicas
with join_replicas() as replicas:
    for length in (0, 1, 2, 3, 4, 5, 1_000_003):
        content = bytes(range(251)) * 4000
        print(hashlib.sha256(replicas.broadcast(content[:length] if replicas.is_chief else b"other")).hexdigest())
"""


def test_the_chiefs_bytes_reach_every_worker_whole(tmp_path: Path) -> None:
    processes = [
        start(ROOT, "env", f"TF_CONFIG={config}", sys.executable, "-c", BROADCASTING) for config in tf_configs(3)
    ]
    expected = [hashlib.sha256((bytes(range(251)) * 4000)[:n]).hexdigest() for n in (0, 1, 2, 3, 4, 5, 1_000_003)]
    for status, output in ends(processes):
        assert status == 0, output
        assert [line for line in output.splitlines() if len(line) == 64] == expected


# --- what workers tell each other, with threads for processes --------------------------------


def member(position: int, count: int) -> Cluster:
    addresses = {"worker": [f"host{index}:1" for index in range(count)]}
    return Cluster.model_validate({"cluster": addresses, "task": {"type": "worker", "index": position}})


def in_turn(monkeypatch: pytest.MonkeyPatch, count: int, task: Callable[[Cluster], Any]) -> list[Any]:
    """What `task` returns or raises in each of `count` workers; adding up over all of them is done by hand."""
    barrier = threading.Barrier(count, timeout=30)
    contributions: list[Any] = [None] * count
    results: list[Any] = [None] * count
    position = threading.local()

    def all_reduce(values: np.ndarray) -> np.ndarray:
        assert len(values)  # which TensorFlow cannot add up
        contributions[position.value] = np.array(values, np.int32)
        barrier.wait()
        total: np.ndarray = np.stack(contributions).sum(axis=0, dtype=np.int32)
        barrier.wait()
        return total

    def work(index: int) -> None:
        position.value = index
        try:
            results[index] = task(member(index, count))
        except Exception as error:
            results[index] = error
            barrier.abort() if not isinstance(error, StageError) else None

    with monkeypatch.context() as patch:
        patch.setattr(cluster, "all_reduce", all_reduce)
        threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results


@pytest.mark.quick
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40), count=st.integers(2, 4))
def test_any_bytes_are_broadcast(monkeypatch: pytest.MonkeyPatch, content: bytes, count: int) -> None:
    def task(one: Cluster) -> bytes:
        return cluster.broadcast(content if one.position == 0 else b"another's", one)

    assert in_turn(monkeypatch, count, task) == [content] * count


@pytest.mark.quick
def test_workers_of_the_same_run_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"settings": "a", "data": "b"}
    assert in_turn(monkeypatch, 3, lambda one: cluster.check_same_run(same, one)) == [None] * 3


@pytest.mark.quick
def test_all_workers_tell_which_one_differs_and_in_what(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [
        {"settings": "a", "data": "b", "code": "c"},
        {"settings": "a", "data": "b", "code": "other"},
        {"settings": "a", "data": "b", "code": "c"},
        {"settings": "other", "data": "other", "code": "c"},
    ]
    found = in_turn(monkeypatch, 4, lambda one: cluster.check_same_run(digests[one.position], one))
    assert all(isinstance(error, StageError) for error in found)
    assert {str(error) for error in found} == {
        "host1:1 has other code than the chief, host0:1; host3:1 has other settings and data than the chief, host0:1. "
        "All workers need the same."
    }


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError"])
def test_what_tensorflow_says_of_a_lost_worker_becomes_a_sentence(kind: str) -> None:
    with pytest.raises(StageError) as caught, cluster.raise_if_worker_lost():
        raise getattr(tf.errors, kind)(None, None, "Socket closed, and then pages of it")
    assert str(caught.value) == (
        f"another worker stopped or cannot be reached ({kind}), so no model was written. Start all of them again: "
        "training continues at its last checkpoint."
    )


@pytest.mark.quick
def test_another_fault_of_tensorflows_stays_what_it_is() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), cluster.raise_if_worker_lost():
        raise tf.errors.InvalidArgumentError(None, None, "shapes")


@pytest.mark.quick
def test_a_process_alone_is_its_own_chief_and_trains_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with join_replicas() as replicas:
        assert replicas is ONE
    assert (ONE.count, ONE.is_chief, ONE.broadcast(b"x")) == (1, True, b"x")
    ONE.check_same_run({"settings": "a"})


# --- TF_CONFIG -------------------------------------------------------------------------------


WORKER = {"type": "worker", "index": 0}


@pytest.mark.quick
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
        cluster.read_cluster()
    assert sentence in str(error.value)
    assert str(error.value).endswith(f", but has to be like {cluster.EXAMPLE}.")


@pytest.mark.quick
def test_who_is_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: dict[str, Any] = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for task, position in (("chief", 0), 0), (("worker", 0), 1), (("worker", 1), 2):
        config = {"cluster": addresses, "task": dict(zip(("type", "index"), task, strict=True))}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        found = cluster.read_cluster()
        assert found is not None
        assert (found.position, found.addresses) == (position, ["a:1", "b:1", "c:1"])
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1"]}, "task": WORKER}))
    assert cluster.read_cluster() is None  # alone, it is a process like any other
    for nothing in ("", " \n"):
        monkeypatch.setenv("TF_CONFIG", nothing)
        assert cluster.read_cluster() is None


@pytest.mark.quick
def test_the_example_in_the_sentence_is_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", cluster.EXAMPLE)
    found = cluster.read_cluster()
    assert found is not None
    assert found.position == 0


TWO_DEVICES = """
import json, sys
from pathlib import Path
import stages
from stages.core.backend import tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from stages.core import training as loop
from stages.core.autoencoder import build_autoencoder
from stages.core.params import read_params
from stages.core.images import read_pixels
from stages.core.replicas import ONE, Replicas, compile_replicated_training
changes = {"batch_size": 33, "shift": 1, "noise": 0.2, "optimizer": "adamw", "weight_decay": 0.1}
changes |= json.loads(sys.argv[1])
changes |= {"schedule": "linear", "epochs": 3, "warmup_epochs": 0.5, "hidden_units": [30], "ema_momentum": 0.8}
settings = read_params().models["deep"].model_copy(update=changes)
two = Replicas(2, None, tf.constant, compile_replicated_training)
histories = []
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for strategy, replicas in ((tf.distribute.get_strategy(), ONE), (mirrored, two)):
    assert strategy.num_replicas_in_sync == replicas.count
    with strategy.scope():
        images, validation = (read_pixels(split, replicas.place) for split in ("train", "validation"))
        model = build_autoencoder(28, 28, settings)
        path = Path(f"none/{replicas.count}.npz")
        training = loop.build_training(model, settings, len(images), (28, 28), replicas)
        histories.append(loop.train("x", training, settings, images, validation, path, replicas))
print(json.dumps(histories))
"""


@pytest.mark.parametrize("changes", [{"code_l1": 0.01}, {"kl_weight": 1.0, "kl_warmup_epochs": 1.5}], ids=str)
def test_several_devices_of_one_machine_train_what_one_trains(
    run_template: Path, tmp_path: Path, changes: dict[str, float]
) -> None:
    """Two logical CPUs stand for two GPUs; the batches are odd, and the last one, of 500 % 33, has five images.

    Of validation, the last batch has one, so that a device has none.
    """
    (tmp_path / "data").symlink_to(run_template / "data")
    (tmp_path / "params.yaml").symlink_to(run_template / "params.yaml")
    output = succeed(
        tmp_path, "env", f"PYTHONPATH={run_template}", sys.executable, "-c", TWO_DEVICES, json.dumps(changes)
    )
    one, two = json.loads(output.splitlines()[-1])
    assert [epoch for epoch, *_ in two] == [1, 2, 3]
    assert two != one  # sums in another order
    np.testing.assert_allclose(two, one, rtol=1e-5)
