"""The documentation against the project: its tables, commands, files, links and examples."""

import gzip
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from stages.__main__ import STAGES, TOOLS
from stages.core.comparison import Comparison
from stages.core.errors import ParamsError
from stages.core.idx import read_idx
from stages.core.params import choose_model, parse_params, read_params
from stages.core.schema import Params
from stages.core.tables import MEASURES, interval, number
from stages.tools.gallery import gallery_table
from tests.conftest import ROOT, idx_bytes, succeed

PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}
README = PAGES["README.md"]
PARAMS = read_params(Params, ROOT / "params.yaml")
SETTINGS = yaml.safe_load((ROOT / "params.yaml").read_text())
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

pytestmark = pytest.mark.quick
each_page = pytest.mark.parametrize("page", sorted(PAGES))


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def tables(page: str) -> list[dict[str, list[str]]]:
    """Every Markdown table of a page, its header included: the cells of each row by the first one."""
    found = [table.splitlines() for table in re.findall(r"(?:^\|.*\|\n)+", prose(PAGES[page]), re.M)]
    rows = [[[cell.strip() for cell in line[1:-1].split("|")] for line in (t[0], *t[2:])] for t in found]
    return [{first: cells for first, *cells in table} for table in rows]


def table(page: str, first: str) -> dict[str, list[str]]:
    """The rows below the header of the table whose first cell is `first`."""
    found = next(one for one in tables(page) if next(iter(one)) == first)
    return {name: cells for name, cells in found.items() if name != first}


def explained(page: str) -> set[str]:
    """The words in backquotes in the first column of a page's tables."""
    return {name for one in tables(page) for first in one for name in re.findall(r"`([^`]+)`", first)}


def study(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / f"plots/studies/{name}.csv")


def measured(name: str) -> dict[str, float]:
    row: dict[str, float] = json.loads((ROOT / f"metrics/{name}.json").read_text())
    return row


def between(row: "pd.Series[float]", name: str) -> str:
    return interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def spreads(rows: pd.DataFrame, mean: str = "mean", std: str = "std", digits: int = 3) -> list[str]:
    return [f"{m:.{digits}f} ± {s:.{digits}f}" for m, s in rows[[mean, std]].to_numpy()]


def test_the_metrics_in_the_readme_are_the_committed_ones() -> None:
    block = next(block for _, block in blocks(README) if block.startswith("$ dvc metrics show\n"))
    (_, *columns), *rows, last = (line.split() for line in block.splitlines()[1:])
    assert last == ["metrics/anomalies.json", *"-" * len(columns)]
    assert not any(measured("anomalies").values())
    shown = {row[0]: dict(zip(columns, map(float, row[1:]), strict=True)) for row in rows}
    committed = {name: {key: round(value, 5) for key, value in measured(name).items()} for name in PARAMS.models}
    assert shown == {f"metrics/{name}.json": row for name, row in committed.items()}
    ratio = measured("deep")["parameters"] / measured("shallow")["parameters"]
    assert f"{ratio:.0f} times the parameters" in README


def test_every_measure_is_explained_and_the_table_of_pairs_is_the_committed_comparison() -> None:
    assert explained("docs/metrics.md") >= {*MEASURES, *measured("deep"), *Comparison._fields}
    assert table("docs/metrics.md", "pair") == {
        f"{row['model']} / {row['opponent']}": [between(row, "ratio"), between(row, "difference"), number(row["wins"])]
        for _, row in pd.read_csv(ROOT / "plots/comparison.csv").iterrows()
    }


def test_the_tables_and_pictures_of_presets_are_the_committed_ones() -> None:
    assert gallery_table([choose_model(PARAMS, name) for name in PARAMS.presets]) in PAGES["docs/gallery.md"]
    shown = set(re.findall(r"\.\./plots/gallery/([a-z0-9-]+\.(?:png|csv))", "".join(PAGES.values())))
    assert shown == {path.name for path in (ROOT / "plots/gallery").iterdir()}
    for name, (_, epochs, *errors) in table("docs/presets.md", "preset").items():
        row = measured(name.strip("`"))
        assert errors == [f"{784 * row['mse']:.2f}", f"{784 * row['mse_pca']:.2f}", f"{row['mse']:.5f}"]
        assert epochs == str(PARAMS.presets[name.strip("`")].epochs)


def test_the_table_of_depths_is_the_committed_study() -> None:
    shown = table("docs/experiments.md", "hidden layers")
    for series, rows in study("depth").groupby("series"):
        assert [cell for cell in shown[f"`{series}`"] if cell] == spreads(rows.sort_values("hidden_layers"), digits=4)


def test_the_table_of_denoised_images_is_the_committed_one() -> None:
    """The stage's, and that of the gallery, which adds the preset."""
    committed = pd.read_csv(ROOT / "plots/denoising.csv")
    of_gallery = pd.read_csv(ROOT / "plots/gallery/denoising-noisy.csv")
    pd.testing.assert_frame_equal(of_gallery[of_gallery["method"] != "denoising"].reset_index(drop=True), committed)
    shown = {method.strip("`"): cells for method, cells in table("docs/denoising.md", "noise").items()}
    assert shown == {
        method: [between(row, "psnr") for _, row in rows.iterrows()] for method, rows in of_gallery.groupby("method")
    }
    assert explained("docs/denoising.md") >= set(committed.columns)


def test_the_table_of_few_labels_is_the_committed_one() -> None:
    committed = pd.read_csv(ROOT / "plots/labels.csv")
    for method, rows in committed.groupby("method"):
        cells = [cell for name in ("logistic", "spreading") for cell in spreads(rows, name, f"{name}_std")]
        assert table("docs/few-labels.md", "labels")[str(method)] == cells
    assert explained("docs/few-labels.md") >= set(committed.columns)


def test_the_tables_of_anomalies_are_the_committed_studies() -> None:
    for first, name, order in (("normal class", "one_class", 1), ("anomalous class", "nine_classes", -1)):
        for series, rows in study(name).groupby("series"):
            means = [*rows["mean"][::order], rows["mean"].mean()]  # the last set of nine classes lacks 0
            row = "PCA (16)" if series == "PCA" else str(series)
            assert table("docs/anomalies.md", first)[row] == [f"{value:.3f}" for value in means]
    on_validation = study("anomaly_scores").groupby(["score", "method"])["auroc"].mean().unstack()
    shown = table("docs/anomalies.md", "AUROC of")
    of_each = ["error", "distance", "error / ink", *(f"error / ink, {w} log distance" for w in (0.25, 0.5, 0.75, 1.0))]
    expected = on_validation.loc[of_each, ["PCA (16)", "shallow", "deep"]].to_numpy()
    assert [[cell.strip("*") for cell in cells] for cells in shown.values()] == np.char.mod("%.4f", expected).tolist()
    sizes = study("code_sizes").groupby("series", sort=False)
    assert table("docs/anomalies.md", "`latent_dim`") == {series: spreads(rows) for series, rows in sizes}


def test_the_table_of_generated_digits_is_the_committed_study() -> None:
    for _, row in study("generation").iterrows():
        cells = table("docs/generation.md", "")[f"{row['model']}: {row['method']}"]
        for cell, name in zip(cells, ("frechet", "accuracy"), strict=True):
            decimals = len(cell.split(".")[-1])
            assert cell == f"{row[name]:.{decimals}f} ± {row[f'{name}_std']:.{decimals}f}"


def test_the_best_values_in_tuning_are_those_of_the_committed_study() -> None:
    for setting, (_, best) in table("docs/tuning.md", "setting").items():
        errors = study("deep-trials").groupby(setting.strip("`"))["mse"].min().sort_values()
        assert best == ", ".join(f"`{value}` {mse:.4f}" for value, mse in errors.items())


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every command in a block of shell or in backquotes."""
    for page, text in PAGES.items():
        lines = re.findall(r"`((?:python|dvc) [^`]*)`", prose(text))
        for language, block in blocks(text):
            found = block.replace("\\\n", " ").splitlines()
            lines += found if language == "bash" else [line[2:] for line in found if line.startswith("$ ")]
        for line in lines:
            words = " ".join(shlex.split(line, comments=True))
            yield from ((page, command.split()) for command in re.split(r"[;&|]+", words))


@pytest.mark.parametrize(
    ("page", "module", "arguments"),
    [(page, words[2], words[3:]) for page, words in commands() if words[:2] == ["python", "-m"]],
)
def test_every_program_that_is_shown_exists_and_takes_its_arguments(
    page: str, module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, _, stage = module.partition(".")
    if package == "tests":
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert all(f'"{word}"' in source for word in arguments if word.startswith("-"))
    elif stage:
        assert stage in STAGES
        assert len(arguments) == ("foreach" in PIPELINE[stage])
        assert {*PARAMS.models, *PARAMS.presets, "NAME", "$m"} >= set(arguments)
    elif package == "stages" and set(arguments) & set(TOOLS):
        program = importlib.import_module(f"stages.tools.{arguments[0]}")
        monkeypatch.setattr(sys, "argv", arguments)
        if arguments[1:] and hasattr(program, "parse_arguments"):
            program.parse_arguments()  # ends the process if it does not know one
    else:
        assert (package, arguments[:1]) in [("stages", []), ("stages", ["TOOL"]), ("venv", [".venv"])]


def test_every_setting_and_stage_that_is_named_exists() -> None:
    sections = "|".join(SETTINGS.keys() - {"models", "tune"})
    for section, key in re.findall(rf"`({sections})\.(\w+)`", "".join(PAGES.values())):
        assert key in SETTINGS[section]
    for page, words in commands():
        for sign, key in re.findall(r"-S (\+?)([\w.$]+)=", " ".join(words)):
            *path, last = key.replace("$m", "deep").split(".")
            section = SETTINGS
            for name in path:
                section = section[name]
            assert last in (SETTINGS["defaults"] if sign else section), f"{page}: {key}"
        for stage, model in re.findall(r"(\w+)@([\w$]+)", " ".join(words)):
            assert "foreach" in PIPELINE[stage]
            assert model in (*PARAMS.models, "$m"), page


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.core.autoencoder import build_autoencoder  # loads TensorFlow

    monkeypatch.chdir(tmp_path)
    Path("data/models").mkdir(parents=True)
    Path("data/prepared").mkdir()
    build_autoencoder(28, 28, PARAMS.models["deep"]).save("data/models/deep.keras")
    np.save("data/prepared/test_images.npy", np.eye(28, dtype=np.uint8)[None].repeat(5, axis=0))
    found: dict[str, np.ndarray] = {}
    exec(next(block for language, block in blocks(README) if language == "python"), found)
    assert (found["codes"].shape, found["reconstructions"].shape) == ((5, 16), (5, 784))


def test_the_example_turns_the_images_of_emnist(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    path = tmp_path / "data/emnist/emnist-letters-train-images-idx3-ubyte.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(idx_bytes(images.swapaxes(1, 2))))
    code = next(block for language, block in blocks(PAGES["docs/your-own-digits.md"]) if language == "python")
    succeed(tmp_path, sys.executable, "-c", code)
    np.testing.assert_array_equal(read_idx(path, 3), images)


@pytest.mark.parametrize("page", ["README.md", "docs/reliability.md"])
def test_the_mistake_that_is_shown_makes_this_error(page: str) -> None:
    ((message, key, found),) = re.findall(r"^error: (params\.yaml: defaults\.(\w+) is '(\w+)'.*)$", PAGES[page], re.M)
    text = re.sub(rf"^  {key}: \w+", f"  {key}: {found}", (ROOT / "params.yaml").read_text(), count=1, flags=re.M)
    with pytest.raises(ParamsError) as caught:
        parse_params(Params, text, Path("params.yaml"))
    assert str(caught.value) == message


@each_page
def test_every_link_leads_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(((?!\w+://)[^)\s]+)\)", prose(PAGES[page])):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", prose(target.read_text()), re.M) if anchor else [""]
        assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, link
    for function, path in re.findall(r"\[`(\w+)`\]\(([\w./]+\.py)\)", PAGES[page]):
        assert f"\ndef {function}(" in ((ROOT / page).parent / path).read_text()


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"CHANGELOG.md"}))
def test_every_file_that_is_named_exists_or_is_an_output(page: str) -> None:
    for name in re.findall(r"`(\.?[\w-][\w.-]*/[\w./-]*|[\w-]+\.(?:yaml|lock|toml|txt))`", prose(PAGES[page])):
        ignored = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0
        assert (ROOT / name).exists() or ignored or "NAME" in name, name


def test_no_package_index_is_named_and_every_package_has_a_hash() -> None:
    for path in ROOT.glob("requirements*.txt"):
        packages = re.split(r"\n(?=\S)", re.sub(r"^(#|--).*\n", "", path.read_text(), flags=re.M))
        assert all("--hash=sha256:" in package and "://" not in package for package in packages), path
