"""Full disks, read-only folders and inputs that cannot be read: told in a sentence, and mended by the next run."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, STAGES, call, digests, obey_permissions, succeed

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has neither permission bits nor a limit on what a process writes"
)
OUTPUTS = {
    "prepare": ["data/prepared/*"],
    "train": ["data/models/shallow.keras", "data/history/shallow.csv"],
    "evaluate": ["data/evaluation/shallow.npz", "metrics/shallow.json"],
    "classical": ["data/classical/*"],
    "classifier": ["data/classifier/*"],
    "apply": ["data/applications/shallow.npz", "data/generation/shallow.npz"],
    "compare": ["metrics/README.md", "plots/*.csv"],
    "figures": ["plots/*.png"],
}


@pytest.mark.parametrize(
    ("arguments", "limit", "largest", "folder", "source"),
    [
        (["prepare"], 100_000, "data/prepared/train_images.npy", "data/prepared", "data/raw/t10k-labels-idx1-ubyte.gz"),
        # Keras saves to a temporary folder first
        (["train", "shallow"], 50_000, "model.keras", "data/history", "data/prepared/train_images.npy"),
        (["evaluate", "shallow"], 9_000, "data/evaluation/shallow.npz", "data/evaluation", "data/models/shallow.keras"),
        (
            ["classical"],
            9_000,
            "data/classical/denoising.npz",
            "data/classical",
            "data/prepared/validation_images.npy",
        ),
        (
            ["classifier"],
            300,
            "data/classifier/floor.npz",
            "data/classifier",
            "data/prepared/test_images.npy",
        ),
        (
            ["apply", "shallow"],
            9_000,
            "data/applications/shallow.npz",
            "data/applications",
            "data/models/shallow.keras",
        ),
        (["compare"], 300, "metrics/README.md", "metrics", "data/evaluation/deep.npz"),
        (["figures"], 20_000, "plots/reconstructions.png", "plots", "data/evaluation/deep.npz"),
    ],
    ids=STAGES,
)
def test_a_stage_tells_a_fault_and_the_next_run_mends_it(
    run_project: Path, arguments: list[str], limit: int, largest: str, folder: str, source: str
) -> None:
    expected = digests(run_project)
    for pattern in OUTPUTS[arguments[0]]:  # as DVC does before it runs a stage
        for path in run_project.glob(pattern):
            path.unlink()
    command = (sys.executable, str(ROOT / "tests/faults.py"), json.dumps(arguments), str(limit), folder, source)
    results = [json.loads(line) for line in succeed(run_project, *command, preexec_fn=obey_permissions).splitlines()]
    sentences = {
        "full disk": f"{largest}: cannot be written: File too large.",
        "read-only folder": f"error: {folder}/",
        "file for the folder": f"error: {folder}/",
        "unreadable input": f"error: {source}",
        "folder for the input": f"error: {source}",
    }
    assert [result["fault"] for result in results] == list(sentences)
    for result in results:
        assert result["status"] == 1
        assert sentences[result["fault"]] in result["error"]
        assert result["error"].count("error: ") == 1
        assert result["error"].endswith(".\n")
        assert result["left"] == []
    assert results[1]["error"].endswith("cannot be written: Permission denied.\n")
    doing = "" if arguments == ["figures"] else "cannot be written: "  # that reads tables there first
    assert results[2]["error"].endswith(f": {doing}Not a directory.\n")
    succeed(run_project, "dvc", "repro", "--force", "--single-item", "@".join(arguments))
    assert digests(run_project) == expected


def test_dvc_tells_a_fault_and_loses_nothing(run_project: Path) -> None:
    """It looks at inputs and removes old outputs itself, before the stage runs."""
    expected = digests(run_project)
    for path, mode, name, options in (
        ("data/prepared", 0o555, "prepare", ["--force", "--single-item"]),
        ("data/raw/t10k-labels-idx1-ubyte.gz", 0, "prepare", []),
        ("plots", 0o555, "figures", ["--force", "--single-item"]),
    ):
        place = run_project / path
        before = place.stat().st_mode
        place.chmod(mode)
        place.touch()  # or DVC would take the file to be the one it knows
        result = call(run_project, "dvc", "repro", *options, name, preexec_fn=obey_permissions)
        place.chmod(before)
        assert result.returncode == 255
        assert f"ERROR: failed to reproduce '{name}': [Errno 13] Permission denied: '{place}" in result.stderr
        assert "Traceback" not in result.stderr
        assert digests(run_project) == expected
    assert "up to date" in succeed(run_project, "dvc", "repro")
    assert digests(run_project) == expected
