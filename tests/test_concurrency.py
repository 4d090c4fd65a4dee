"""Several runs at once: in one checkout, in two checkouts of one repository, and in DVC's queue."""

import hashlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from matplotlib.image import imread

from stages.core.files import model_files
from tests.conftest import call, digests, start, succeed, wait_until

CACHE_RACE = (
    r"ERROR: failed to reproduce .*: unable to remove '.*/data/.*' without a confirmation",
    r"ERROR: failed to reproduce .*: \[Errno 2\] No such file or directory: '.*/data/.*'",
)


def test_two_checkouts_at_once_give_the_same_bytes_and_a_second_run_in_one_is_refused(
    run_template: Path, project: Path
) -> None:
    """A clone and a worktree of it that share DVC's cache, started at the same time and, on Linux, one of them on a
    single core; compared with a run at another time, in another folder.

    DVC 3.67 locks a checkout, not the cache: where two store one file at the same moment, one of them may stop. The
    cure is to start that one again.
    """
    succeed(project, "git", "worktree", "add", "-q", "../worktree")
    worktree = project.parent / "worktree"
    succeed(worktree, "dvc", "cache", "dir", "--local", str(project / ".dvc/cache"))
    one_core = {}
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
        one_core = {"preexec_fn": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})}
    runs = {project: start(project, "dvc", "repro"), worktree: start(worktree, "dvc", "repro", **one_core)}

    wait_until((project / "data/prepared").exists)  # its first stage runs
    second = call(project, "dvc", "repro")
    assert second.returncode == 255
    assert "is busy, it is being blocked by" in second.stderr or "Unable to acquire lock" in second.stderr
    assert "Traceback" not in second.stderr

    expected = digests(run_template)
    outputs = {folder: process.communicate(timeout=300)[0] for folder, process in runs.items()}
    stopped = [folder for folder, process in runs.items() if process.returncode != 0]
    assert len(stopped) <= 1, outputs
    for folder in stopped:
        assert any(re.search(message, outputs[folder]) for message in CACHE_RACE), outputs[folder]
        print(f"started again: {outputs[folder]}")
        succeed(folder, "dvc", "repro")
    for folder in runs:
        assert digests(folder) == expected
        assert list((folder / ".dvc/tmp/checkpoints").iterdir()) == []  # each has scratch of its own
    assert not (worktree / ".dvc/cache").exists()
    assert "up to date" in succeed(worktree, "dvc", "status")


SEQUENTIAL = """
import runpy, shutil, sys
from pathlib import Path
text = Path("params.yaml").read_text()
for rate in sys.argv[1].split(","):
    Path("params.yaml").write_text(text.replace("learning_rate: 0.05", f"learning_rate: {rate}", 1))
    for stage in ("train", "evaluate"):
        sys.argv = ["x", "shallow"]
        runpy.run_module(f"stages.{stage}", run_name="__main__")
    shutil.copytree("data/models", f"{rate}/models")
    shutil.copytree("metrics", f"{rate}/metrics")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="DVC documents its queue for systems with fork")
def test_queued_experiments_give_what_sequential_runs_give(run_project: Path, tmp_path: Path) -> None:
    """DVC's queue has two known faults: workers that start together may fail on a lock of git's (its issue 10673),
    and a worker may leave before the queue is empty (10427). The cure is to queue and start again."""
    rates = {"rate-a": "0.01", "rate-b": "0.02", "rate-c": "0.03"}
    before = digests(run_project)
    clone = tmp_path / "sequential"
    shutil.copytree(run_project, clone, symlinks=True)

    def results() -> dict[str, str]:
        """The commit of every experiment that is through."""
        lines = succeed(run_project, "git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps")
        refs = dict(line.split() for line in lines.splitlines())
        return {ref.rpartition("/")[2]: commit for ref, commit in refs.items() if ref.rpartition("/")[2] in rates}

    def in_state(*states: str) -> set[str]:
        rows = [line.split() for line in succeed(run_project, "dvc", "queue", "status").splitlines()]
        return {row[1] for row in rows if len(row) > 1 and row[-1] in states}

    try:
        for attempt in range(1, 4):
            known = set() if attempt == 1 else in_state("Queued")
            for name in rates.keys() - results().keys() - known:
                change = f"models.shallow.learning_rate={rates[name]}"
                succeed(run_project, "dvc", "exp", "run", "--queue", "-n", name, "-S", change, "evaluate@shallow")
            succeed(run_project, "dvc", "queue", "start", "-j", "2")
            if attempt == 1:
                succeed(clone, sys.executable, "-c", SEQUENTIAL, ",".join(rates.values()))
            started = time.monotonic()
            while (missing := rates.keys() - results().keys()) and time.monotonic() < started + 240:
                if time.monotonic() > started + 60 and not in_state("Running"):
                    break
                time.sleep(0.5)
            if not missing:
                break
            print(f"attempt {attempt}: {succeed(run_project, 'dvc', 'queue', 'status')}")
    finally:
        call(run_project, "dvc", "queue", "stop", "--kill")
    assert results().keys() == rates.keys()
    for name, commit in results().items():
        metrics = succeed(run_project, "git", "show", f"{commit}:metrics/shallow.json")
        assert metrics == (clone / rates[name] / "metrics/shallow.json").read_text()
        lock = yaml.safe_load(succeed(run_project, "git", "show", f"{commit}:dvc.lock"))
        md5 = {out["path"]: out["md5"] for out in lock["stages"]["train@shallow"]["outs"]}
        model = (clone / rates[name] / "models/shallow.keras").read_bytes()
        assert md5[str(model_files("shallow").model)] == hashlib.md5(model).hexdigest()
    assert digests(run_project) == before  # the workspace is as it was
    assert succeed(run_project, "git", "status", "--porcelain") == ""

    # DVC shows one that is not through with the metrics of the commit, which are no result of its settings.
    change = "models.shallow.learning_rate=0.04"
    succeed(run_project, "dvc", "exp", "run", "--queue", "-n", "rate-later", "-S", change, "evaluate@shallow")
    study = call(run_project, sys.executable, "-m", "stages", "study", "learning_rate", "mse", "rate:shallow")
    assert study.returncode == 0, study.stderr
    assert study.stderr == "note: left out: rate-later (queued)\n"
    table = pd.read_csv(run_project / "plots/studies/mse_by_learning_rate.csv")
    assert table["learning_rate"].tolist() == [0.01, 0.02, 0.03]
    measured = [json.loads((clone / rate / "metrics/shallow.json").read_text())["mse"] for rate in rates.values()]
    assert table["mean"].tolist() == pytest.approx(measured)
    assert imread(run_project / "plots/studies/mse_by_learning_rate.png").shape[1] > 500
    share(run_project, tmp_path, "rate-b")


def share(project: Path, tmp_path: Path, name: str) -> None:
    """Push an experiment to a git remote and a folder of data, pull it in another clone, promote it there."""
    succeed(tmp_path, "git", "init", "-q", "--bare", "shared.git")
    succeed(project, "git", "remote", "add", "team", str(tmp_path / "shared.git"))
    succeed(project, "git", "push", "-q", "team", "HEAD:refs/heads/main")
    succeed(project, "dvc", "remote", "add", "--local", "-d", "folder", str(tmp_path / "folder"))
    succeed(project, "dvc", "exp", "push", "team", name)

    succeed(tmp_path, "git", "clone", "-q", "-b", "main", "-o", "team", "shared.git", "colleague")
    colleague = tmp_path / "colleague"
    succeed(colleague, "dvc", "remote", "add", "--local", "-d", "folder", str(tmp_path / "folder"))
    succeed(colleague, "dvc", "exp", "pull", "team", name)
    succeed(colleague, "dvc", "exp", "branch", name, "winner")
    succeed(colleague, "dvc", "exp", "apply", name)
    model = model_files("shallow").model
    lock = yaml.safe_load((colleague / "dvc.lock").read_text())["stages"]["train@shallow"]["outs"]
    md5 = {out["path"]: out["md5"] for out in lock}
    assert hashlib.md5((colleague / model).read_bytes()).hexdigest() == md5[str(model)]
    assert (
        succeed(colleague, "git", "show", "winner:metrics/shallow.json")
        == (colleague / "metrics/shallow.json").read_text()
    )
