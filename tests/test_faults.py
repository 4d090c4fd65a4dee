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
    stage: str  # and its argument
    limit: int  # bytes: smaller than one output at least
    source: str  # an input
    largest: str  # the output that the limit stops
    outputs: tuple[str, ...]


TRAIN, TEST, SHALLOW, DEEP = (
    f"data/{name}"
    for name in ("prepared/train_images.npy", "prepared/test_images.npy", "models/shallow.keras", "evaluation/deep.npz")
)
OF_EVALUATE = ("data/evaluation/shallow.npz", "metrics/shallow.json")
OF_COMPARE = ("metrics/README.md", "plots/comparison.csv", "plots/losses.csv", "plots/mse_per_class.csv")
OF_FIGURES = (
    "errors", "extremes", "interpolations", "latent_space", "reconstructions", "samples", "traversals",
)  # fmt: skip
CASES = [  # in an order that works, since each stage needs what those before it have made
    Case("prepare", 100_000, "data/raw/t10k-labels-idx1-ubyte.gz", TRAIN, ("data/prepared/*",)),
    # Keras saves to a temporary folder first
    Case("train shallow", 50_000, TRAIN, "model.keras", ("data/history/shallow.csv", SHALLOW)),
    Case("evaluate shallow", 9_000, SHALLOW, "data/evaluation/shallow.npz", OF_EVALUATE),
    Case("compare", 300, DEEP, "metrics/README.md", OF_COMPARE),
    Case("figures", 20_000, DEEP, "plots/reconstructions.png", tuple(f"plots/{name}.png" for name in OF_FIGURES)),
    Case("anomalies", 9_000, DEEP, "plots/anomalies.png", ("plots/anomalies.*", "metrics/anomalies.*")),
    Case("classical", 9_000, TEST, "data/classical/denoising.npz", ("data/classical/*",)),
    Case("denoise", 9_000, SHALLOW, "plots/denoising.png", ("plots/denoising.*", "metrics/denoising.md")),
    Case("few_labels", 9_000, SHALLOW, "plots/labels.png", ("plots/labels.*", "metrics/few_labels.md")),
]


def test_every_stage_reports_a_fault_and_the_next_run_recovers(run_project: Path) -> None:
    """Faults of the folder for outputs are tried on one stage, since all write by one function."""
    expected = digests(run_project)
    for case in CASES:  # as DVC does before it runs a stage
        for pattern in case.outputs:
            for path in run_project.glob(pattern):
                path.unlink()
    cases = [(*case[:3], "data/prepared" if case.stage == "prepare" else None) for case in CASES]
    command = (sys.executable, str(ROOT / "tests/faults.py"), json.dumps(cases))
    results = [json.loads(line) for line in succeed(run_project, *command, preexec_fn=obey_permissions).splitlines()]
    assert len(results) == 4 * len(CASES) + 2
    assert digests(run_project) == expected
    cases_by_stage = {case.stage: case for case in CASES}
    for result in results:
        case = cases_by_stage[result["stage"]]
        if result["fault"] == "none":
            assert result["status"] == 0, result
            continue
        sentences = {
            "read-only folder": "error: data/prepared/train_images.npy: cannot be written: Permission denied.",
            "file for the folder": "error: data/prepared/train_images.npy: cannot be written: Not a directory.",
            "full disk": f"{case.largest}: cannot be written: File too large.",
            "unreadable input": f"error: {case.source}",
            "folder for the input": f"error: {case.source}",
        }
        assert (result["status"], result["left"]) == (1, []), result
        assert sentences[result["fault"]] in result["error"]
        assert result["error"].count("error: ") == 1
        assert result["error"].endswith(".\n")


def test_dvc_reports_a_fault_and_loses_nothing(run_project: Path) -> None:
    """DVC itself reads inputs and removes old outputs before the stage runs."""
    expected = digests(run_project)
    for path, mode, name, options in (
        ("data/prepared", 0o555, "prepare", ["--force", "--single-item"]),
        ("data/raw/t10k-labels-idx1-ubyte.gz", 0, "prepare", []),
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
