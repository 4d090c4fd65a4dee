"""Full disks, read-only folders, unreadable inputs: a stage reports them in one sentence, and the next run recovers."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, call, digests, obey_permissions, succeed

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has neither permission bits nor a limit on the size of files"
)


class Case(NamedTuple):
    command: str
    limit: int  # bytes: smaller than one output at least
    largest: str  # the output that the limit stops
    source: str  # an input
    outputs: tuple[str, ...]


TRAIN, TEST, DEEP = (
    f"data/{name}" for name in ("prepared/train_images.npy", "prepared/test_images.npy", "evaluation/deep.npz")
)
OF_FIGURES = (
    "errors", "extremes", "interpolations", "latent_space", "reconstructions", "samples", "traversals",
)  # fmt: skip
CASES = [
    Case("prepare", 100_000, TRAIN, "data/raw/t10k-labels-idx1-ubyte.gz", ("data/prepared/*",)),
    # Keras saves to a temporary folder first
    Case("train shallow", 50_000, "model.keras", TRAIN, ("data/history/shallow.csv", "data/models/shallow.keras")),
    Case("evaluate shallow", 9_000, "data/evaluation/shallow.npz", "data/models/shallow.keras",
         ("data/evaluation/shallow.npz", "metrics/shallow.json")),
    Case("compare", 300, "metrics/README.md", DEEP,
         ("metrics/README.md", "plots/comparison.csv", "plots/losses.csv", "plots/mse_per_class.csv")),
    Case("figures", 20_000, "plots/reconstructions.png", DEEP, tuple(f"plots/{name}.png" for name in OF_FIGURES)),
    Case("anomalies", 9_000, "plots/anomalies.png", DEEP,
         ("plots/anomalies.png", "metrics/anomalies.json", "metrics/anomalies.md")),
    Case("classical", 9_000, "data/classical/denoising.npz", TEST, ("data/classical/*",)),
    Case("denoise", 9_000, "plots/denoising.png", "data/models/shallow.keras",
         ("plots/denoising.*", "metrics/denoising.md")),
    Case("few_labels", 9_000, "plots/labels.png", "data/models/shallow.keras",
         ("plots/labels.*", "metrics/few_labels.md")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.command.split()[0] for case in CASES])
def test_a_stage_reports_a_fault_and_the_next_run_recovers(run_project: Path, case: Case) -> None:
    expected = digests(run_project)
    for pattern in case.outputs:  # as DVC does before it runs a stage
        for path in run_project.glob(pattern):
            path.unlink()
    folder = str(Path(case.outputs[0]).parent)
    arguments = (json.dumps(case.command.split()), str(case.limit), folder, case.source)
    command = (sys.executable, str(ROOT / "tests/faults.py"), *arguments)
    results = [json.loads(line) for line in succeed(run_project, *command, preexec_fn=obey_permissions).splitlines()]
    sentences = {
        "full disk": f"{case.largest}: cannot be written: File too large.",
        "read-only folder": f"error: {folder}/",
        "file for the folder": f"error: {folder}/",
        "unreadable input": f"error: {case.source}",
        "folder for the input": f"error: {case.source}",
    }
    assert [result["fault"] for result in results] == [*sentences, "none"]
    assert results.pop()["status"] == 0
    assert digests(run_project) == expected
    for result in results:
        assert (result["status"], result["left"]) == (1, [])
        assert sentences[result["fault"]] in result["error"]
        assert result["error"].count("error: ") == 1
        assert result["error"].endswith(".\n")
    assert "Permission denied" in results[1]["error"]
    assert "Not a directory" in results[2]["error"]


def test_dvc_reports_a_fault_and_loses_nothing(run_project: Path) -> None:
    """DVC itself reads inputs and removes old outputs before the stage runs."""
    expected = digests(run_project)
    for path, mode, name, options in (
        ("data/prepared", 0o555, "prepare", ["--force", "--single-item"]),
        ("data/raw/t10k-labels-idx1-ubyte.gz", 0, "prepare", []),
        ("plots", 0o555, "figures", ["--force", "--single-item"]),
    ):
        place = run_project / path
        before = place.stat().st_mode
        place.chmod(mode)
        place.touch()  # so that DVC does not take it for unchanged
        result = call(run_project, "dvc", "repro", *options, name, preexec_fn=obey_permissions)
        place.chmod(before)
        assert result.returncode == 255
        assert f"ERROR: failed to reproduce '{name}': [Errno 13] Permission denied: '{place}" in result.stderr
        assert "Traceback" not in result.stderr
        assert digests(run_project) == expected
    assert "up to date" in succeed(run_project, "dvc", "repro")
    assert digests(run_project) == expected
