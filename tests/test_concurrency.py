"""Runs at the same time: in one checkout, in two checkouts of one repository, and in DVC's queue."""

import hashlib
import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from stages.core.files import model_files
from tests.conftest import call, change_params, digests, outputs, stages_in_turn, start, succeed, wait_until

CACHE_RACE = (
    r"ERROR: failed to reproduce .*: unable to remove '.*/data/.*' without a confirmation",
    r"ERROR: failed to reproduce .*: \[Errno 2\] No such file or directory: '.*/data/.*'",
)


def files_of(project: Path) -> dict[str, bytes]:
    return {str(path.relative_to(project)): content for path, content in outputs(project).items()}


def test_two_checkouts_at_once_give_the_same_bytes_and_a_second_run_in_one_is_refused(
    run_template: Path, project: Path
) -> None:
    """A clone and its worktree share DVC's cache and start together.

    DVC 3.67 locks a checkout, not the cache: if two store one file at the same moment, one of them may stop, and
    you start it again.
    """
    succeed(project, "git", "worktree", "add", "-q", "../worktree")
    worktree = project.parent / "worktree"
    succeed(worktree, "dvc", "cache", "dir", "--local", str(project / ".dvc/cache"))
    command = ("dvc", "repro", "train@shallow")
    runs = {folder: start(folder, *command) for folder in (project, worktree)}

    wait_until((project / "data/prepared").exists)  # its first stage runs
    second = call(project, *command)
    assert second.returncode == 255
    assert "is busy, it is being blocked by" in second.stderr or "Unable to acquire lock" in second.stderr
    assert "Traceback" not in second.stderr

    printed = {folder: process.communicate(timeout=600)[0] for folder, process in runs.items()}
    stopped = [folder for folder, process in runs.items() if process.returncode != 0]
    assert len(stopped) <= 1, printed
    for folder in stopped:
        assert any(re.search(message, printed[folder]) for message in CACHE_RACE), printed[folder]
        succeed(folder, *command)
    expected = files_of(run_template)
    for folder in runs:
        written = files_of(folder)
        assert written.items() <= expected.items()
        assert {"data/prepared/test_labels.npy", "data/models/shallow.keras", "data/history/shallow.csv"} <= set(
            written
        )
        assert list((folder / ".dvc/tmp/checkpoints").iterdir()) == []
    assert not (worktree / ".dvc/cache").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="DVC documents its queue for systems with fork")
def test_queued_experiments_give_what_sequential_runs_give(run_project: Path, tmp_path: Path) -> None:
    """DVC's queue has two known faults: workers that start together may fail on a lock of git's (its issue 10673),
    and a worker may leave before the queue is empty (10427). If so, queue and start again."""
    rates = {"rate-a": 0.01, "rate-b": 0.02}
    before = digests(run_project)
    clone = tmp_path / "sequential"
    shutil.copytree(run_project, clone, symlinks=True)

    def queue(name: str, rate: float) -> None:
        change = f"models.shallow.learning_rate={rate}"
        succeed(run_project, "dvc", "exp", "run", "--queue", "-n", name, "-S", change, "evaluate@shallow")

    def commits() -> dict[str, str]:
        """The commit of each experiment that has ended."""
        lines = succeed(run_project, "git", "for-each-ref", "--format=%(refname:lstrip=-1) %(objectname)", "refs/exps")
        return {name: commit for name, commit in map(str.split, lines.splitlines()) if name in rates}

    def in_state(state: str) -> set[str]:
        rows = [line.split() for line in succeed(run_project, "dvc", "queue", "status").splitlines()]
        return {row[1] for row in rows if len(row) > 1 and row[-1] == state}

    def idle() -> bool:
        return commits().keys() == rates.keys() or not in_state("Running")

    try:
        for attempt in range(3):
            for name in rates.keys() - commits().keys() - (in_state("Queued") if attempt else set()):
                queue(name, rates[name])
            succeed(run_project, "dvc", "queue", "start", "-j", "2")
            time.sleep(60 if attempt else 0)
            if not attempt:
                train_and_evaluate(clone, rates["rate-b"])
            wait_until(idle, 600)
            if commits().keys() == rates.keys():
                break
    finally:
        call(run_project, "dvc", "queue", "stop", "--kill")
    assert commits().keys() == rates.keys()
    expected = files_of(clone)
    metrics = {
        name: succeed(run_project, "git", "show", f"{commit}:metrics/shallow.json")
        for name, commit in commits().items()
    }
    assert metrics["rate-a"] != metrics["rate-b"] == expected["metrics/shallow.json"].decode()
    lock = yaml.safe_load(succeed(run_project, "git", "show", f"{commits()['rate-b']}:dvc.lock"))
    assert md5_of_model(lock) == hashlib.md5(expected["data/models/shallow.keras"]).hexdigest()
    assert digests(run_project) == before  # the workspace is as it was
    assert succeed(run_project, "git", "status", "--porcelain") == ""

    queue("rate-later", 0.04)  # DVC shows it with the metrics of the commit, which its settings did not give
    study = call(run_project, sys.executable, "-m", "stages", "study", "learning_rate", "mse", "rate:shallow")
    assert study.returncode == 0, study.stderr
    assert "rate-later" in study.stderr
    table = pd.read_csv(run_project / "plots/studies/mse_by_learning_rate.csv")
    assert table["learning_rate"].tolist() == list(rates.values())
    assert table["mean"].tolist() == pytest.approx([json.loads(metrics[name])["mse"] for name in rates])
    share(run_project, tmp_path, "rate-b")


def train_and_evaluate(project: Path, rate: float) -> None:
    change_params(project, lambda params: params["models"]["shallow"].update(learning_rate=rate))
    result = stages_in_turn(project, "train shallow", "evaluate shallow")
    assert result.returncode == 0, result.stderr


def md5_of_model(lock: Any) -> str:
    outs = {out["path"]: out["md5"] for out in lock["stages"]["train@shallow"]["outs"]}
    return str(outs[str(model_files("shallow").model)])


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
    lock = yaml.safe_load((colleague / "dvc.lock").read_text())
    assert hashlib.md5((colleague / model_files("shallow").model).read_bytes()).hexdigest() == md5_of_model(lock)
    metrics = (colleague / "metrics/shallow.json").read_text()
    assert succeed(colleague, "git", "show", "winner:metrics/shallow.json") == metrics
