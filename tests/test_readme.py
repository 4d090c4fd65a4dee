"""The README against the repository: its table, its commands, its links."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from stages.params import read_params
from tests.conftest import ROOT, succeed

README = (ROOT / "README.md").read_text()


def markdown(table: pd.DataFrame) -> str:
    """Rows by name, numbers right-aligned with four significant digits, as in the README."""
    lines = [["", *map(str, table.columns)], ["---", *["---:"] * len(table.columns)]]
    for name, row in table.iterrows():
        cells = [f"{v:,.0f}" if float(v).is_integer() else f"{v:#.4g}" for v in row]
        lines.append([f"`{name}`", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def test_the_tables_of_results_are_the_committed_metrics() -> None:
    models = {name: json.loads((ROOT / f"metrics/{name}.json").read_text()) for name in ("shallow", "deep")}
    assert markdown(pd.DataFrame(models, dtype=object)) in README
    pairs = json.loads((ROOT / "metrics/comparison.json").read_text())
    assert markdown(pd.DataFrame(pairs).T) in README


@pytest.mark.parametrize("preset", read_params(ROOT / "params.yaml").presets)
def test_the_table_of_presets_is_the_committed_metrics(preset: str) -> None:
    m = json.loads((ROOT / f"metrics/{preset}.json").read_text())
    row = next(line for line in README.splitlines() if line.startswith(f"| `{preset}`"))
    assert row.endswith(f"| {m['squared_error_per_image']:.2f} | {784 * m['mse_pca']:.2f} | {m['mse']:.5f} |")


def test_the_table_of_depths_is_the_committed_study() -> None:
    study = pd.read_csv(ROOT / "plots/studies/depth.csv")
    assert len(study) == 11
    for name, rows in study.groupby("series"):
        cells = [f"{row['mean']:.4f} ± {row['std']:.4f}" for _, row in rows.sort_values("hidden_layers").iterrows()]
        assert f"| `{name}` | {'| ' * (6 - len(cells))}{' | '.join(cells)} |\n" in README


def test_ci_runs_the_test_command() -> None:
    command = re.search(r"requirements-dev\.txt && (.*)", README)
    assert command is not None
    assert f"\n{command[1]}\n" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./]+)\)|^\| `(\.?\w+[./][\w./]*)`", README, re.M))))
def test_every_file_that_is_named_exists(path: tuple[str, str]) -> None:
    assert (ROOT / (path[0] or path[1])).exists()


@pytest.mark.parametrize(("name", "path"), re.findall(r"\[`(\w+)`\]\(([\w./]+\.py)\)", README))
def test_every_function_that_is_named_exists(name: str, path: str) -> None:
    assert f"\ndef {name}(" in (ROOT / path).read_text()


def test_the_text_speaks_of_the_defaults() -> None:
    models = read_params(ROOT / "params.yaml").models
    assert f"`hidden_units: {models['deep'].hidden_units}`" in README
    assert f"`latent_dim: {models['deep'].latent_dim}`" in README


def test_the_python_example_runs(run_template: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.S)
    assert code is not None
    out = succeed(run_template, sys.executable, "-c", code[1] + "print(codes.shape, reconstructions.shape)")
    assert out.splitlines()[-1] == "(200, 16) (200, 784)"  # of the small test set


def test_every_package_is_pinned_by_hash_and_no_index_is_named() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        blocks = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
        assert len(blocks) > 50
        assert all(re.match(r"\n?\S+==\S+", block) and "--hash=sha256:" in block for block in blocks)
