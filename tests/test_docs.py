"""The documentation against the project: its numbers, commands, files, links and examples."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml

from stages.__main__ import STAGES, tools
from stages.core.comparison import Comparison
from stages.core.params import choose_model, read_params
from stages.core.schema import Params
from stages.core.tables import MEASURES, generation_rows, interval, markdown, number
from stages.tools.gallery import gallery_table
from stages.tools.study import readable
from tests.conftest import ROOT, succeed

PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
README = PAGES["README.md"]
PARAMS = read_params(Params, ROOT / "params.yaml")
MODELS = [*PARAMS.models, *PARAMS.presets]
PLACEHOLDERS = ("NAME", "<name>")  # that stand for a model
LONGEST = 1700  # words of the README

quick = pytest.mark.quick
each_page = pytest.mark.parametrize("page", sorted(PAGES))


class Command(NamedTuple):
    """A command line that a page shows."""

    page: str
    line: str


def metrics(name: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((ROOT / f"metrics/{name}.json").read_text())
    return row


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def commands() -> Iterator[Command]:
    """Every command line in a block of shell or in backquotes, its continuation lines joined."""
    for page, text in PAGES.items():
        for language, block in code_blocks(text):
            lines = block.replace("\\\n", " ").splitlines()
            if language == "bash":
                yield from (Command(page, line) for line in lines)
            elif language == "console":
                yield from (Command(page, line[2:]) for line in lines if line.startswith("$ "))
        yield from (Command(page, line) for line in re.findall(r"`((?:python|dvc) [^`]*)`", prose(text)))


def words(line: str) -> list[str]:
    """A shell's words, with what ends a command as words of their own."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    return list(lexer)


def python_modules() -> list[tuple[str, str, list[str]]]:
    """Page, module and arguments of every `python -m …`."""
    found = []
    for page, line in commands():
        parts = words(line)
        for start in (i for i in range(len(parts) - 2) if parts[i : i + 2] == ["python", "-m"]):
            rest = parts[start + 2 :]
            end = next((i for i, word in enumerate(rest) if set(word) <= set(";&|")), len(rest))
            found.append((page, rest[0], rest[1:end]))
    return found


def tables(text: str) -> list[list[list[str]]]:
    """Every Markdown table as rows of cells, without the line below its header."""
    found = re.findall(r"(?:^\|.*\|\n)+", prose(text), re.M)
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
        for table in found
    ]


def rows_named(page: str) -> set[str]:
    """The words in backquotes in the first column of a page's tables."""
    return {name for table in tables(PAGES[page]) for row in table for name in re.findall(r"`([^`]+)`", row[0])}


# --- numbers -----------------------------------------------------------------------------


def output_of(page: str, command: str) -> list[list[str]]:
    """The table that a page shows below a command: a list of words for each line."""
    block = next(block for _, block in code_blocks(PAGES[page]) if f"$ {command}\n" in block)
    lines = block.split(f"$ {command}\n")[1].split("\n\n")[0].splitlines()
    return [line.split() for line in lines]


@quick
def test_the_metrics_shown_are_the_committed_ones() -> None:
    (_, *names), *rows = output_of("README.md", "dvc metrics show")
    assert [row[0] for row in rows] == [f"metrics/{name}.json" for name in PARAMS.models]
    for path, *cells in rows:
        shown = dict(zip(names, map(float, cells), strict=True))
        assert shown == {key: round(value, 5) for key, value in json.loads((ROOT / path).read_text()).items()}


@quick
def test_the_difference_shown_begins_at_the_committed_metrics() -> None:
    _, *rows = output_of("README.md", "dvc metrics diff")
    assert [row[1] for row in rows] == sorted(metrics("deep"))
    for path, metric, before, after, change in rows:
        assert float(before) == round(json.loads((ROOT / path).read_text())[metric], 5)
        assert float(after) - float(before) == pytest.approx(float(change), abs=1.1e-5)


@quick
def test_the_result_on_top_is_the_committed_comparison() -> None:
    table = pd.read_csv(ROOT / "plots/comparison.csv").set_index("pair")
    deep, shallow = table.loc["deep / PCA (16)"], table.loc["shallow / PCA (16)"]
    assert f"{deep['ratio']:.3f} times the squared error of PCA" in README
    assert f"{deep['ratio_low']:.3f} to {deep['ratio_high']:.3f}" in README
    assert f"makes {shallow['ratio']:.3f} times" in README


@quick
def test_the_table_of_pairs_is_the_committed_comparison() -> None:
    shown = next(table for table in tables(PAGES["docs/metrics.md"]) if "deep / shallow" in table[2])
    expected = [
        [
            row["pair"],
            *(f"{number(row[k])} ({number(row[f'{k}_low'])} to {number(row[f'{k}_high'])})" for k in shown[0][1:3]),
            number(row["wins"]),
        ]
        for _, row in pd.read_csv(ROOT / "plots/comparison.csv").iterrows()
    ]
    assert shown[2:] == expected


@quick
def test_the_gallery_has_every_preset_with_its_committed_metrics() -> None:
    """The table that the command prints, the command for each, and all pictures."""
    page = PAGES["docs/gallery.md"]
    assert gallery_table([choose_model(PARAMS, name) for name in PARAMS.presets]) in page
    for name in PARAMS.presets:
        assert f"\npython -m stages.train {name} && python -m stages.evaluate {name}" in page
    shown = set(re.findall(r"\.\./plots/gallery/([a-z0-9-]+\.png)", page))
    assert shown == {path.name for path in (ROOT / "plots/gallery").iterdir()}


@quick
@pytest.mark.parametrize("preset", ["hinton2006", "best16"])
def test_the_table_of_presets_is_the_committed_metrics(preset: str) -> None:
    m, settings = metrics(preset), PARAMS.presets[preset]
    row = next(row for table in tables(PAGES["docs/presets.md"]) for row in table if row[0] == f"`{preset}`")
    assert row[1].startswith("-".join(map(str, [784, *settings.hidden_units, settings.latent_dim])))
    expected = [str(settings.epochs), f"{784 * m['mse']:.2f}", f"{784 * m['mse_pca']:.2f}", f"{m['mse']:.5f}"]
    assert row[2:] == expected
    first_paragraph = PAGES["docs/presets.md"].split("\n\n")[1]
    assert f" {expected[1]}" in first_paragraph
    assert f"{784 * metrics('deep')['mse']:.2f}" in first_paragraph


@quick
def test_the_table_of_depths_is_the_committed_study() -> None:
    study = pd.read_csv(ROOT / "plots/studies/depth.csv")
    assert len(study) == 11
    for name, rows in study.groupby("series"):
        cells = [f"{row['mean']:.4f} ± {row['std']:.4f}" for _, row in rows.sort_values("hidden_layers").iterrows()]
        assert f"| `{name}` | {'| ' * (6 - len(cells))}{' | '.join(cells)} |\n" in PAGES["docs/experiments.md"]


@quick
def test_the_table_of_latent_sizes_is_the_committed_study() -> None:
    study = pd.read_csv(ROOT / "plots/studies/rate_distortion.csv")
    assert f"--name rate_distortion\n{readable(study)}\n```" in PAGES["docs/experiments.md"]


@quick
def test_the_table_of_denoised_images_is_the_committed_one() -> None:
    """But for its last row, which is of a preset."""
    (_, _, *rows, _) = tables(PAGES["docs/denoising.md"])[0]
    measured = pd.read_csv(ROOT / "plots/denoising.csv").groupby("method", sort=False)
    for (method, *cells), (name, group) in zip(rows, measured, strict=False):
        assert method == name
        assert cells == [interval(*row) for row in group[["psnr", "psnr_low", "psnr_high"]].to_numpy()]
    assert len(rows) == 7 == len(measured)


@quick
def test_the_tables_of_few_labels_are_the_committed_study() -> None:
    page = PAGES["docs/few-labels.md"]
    study = pd.read_csv(ROOT / "plots/studies/labels.csv")
    for method, rows in study.groupby("method"):
        for name in ("logistic", "neighbours"):
            *cells, last = (f"{mean:.3f} ± {spread:.3f}" for mean, spread in rows[[name, f"{name}_std"]].to_numpy())
            assert f"| {method} | {' | '.join(cells)} | {last.removesuffix(' ± 0.000')} |\n" in page
        value, low, high = rows[["precision", "precision_low", "precision_high"]].to_numpy()[0]
        assert f"| {method} | {value:.3f} ({low:.3f} to {high:.3f}) |\n" in page
    assert rows_named("docs/few-labels.md") >= set(study.columns) == set(pd.read_csv(ROOT / "plots/labels.csv").columns)


@quick
@pytest.mark.parametrize(("study", "first"), [("one_class", "normal class"), ("nine_classes", "anomalous class")])
def test_the_tables_of_anomalies_are_the_committed_studies(study: str, first: str) -> None:
    table = next(table for table in tables(PAGES["docs/anomalies.md"]) if table[0][0] == first)
    shown = {row[0]: row[1:] for row in table[1:]}
    measured = pd.read_csv(ROOT / f"plots/studies/{study}.csv")
    assert measured["series"].nunique() == 3
    for series, rows in measured.groupby("series"):
        name = "PCA (16)" if series == "PCA" else str(series)
        found = rows["mean"].to_list()
        by_class = found if study == "one_class" else found[::-1]  # the last set of nine lacks 0
        assert shown[name] == [f"{value:.3f}" for value in (*by_class, rows["mean"].mean())]


@quick
def test_the_tables_of_tuning_are_the_committed_studies() -> None:
    pages = {table[0][0]: table[2:] for table in tables(PAGES["docs/tuning.md"])}
    small = pd.read_csv(ROOT / "plots/studies/small-trials.csv").set_index("parameters")
    *front, default = pages["hidden units"]
    for units, parameters, rate, mse in front:
        trial = small.loc[int(parameters.replace(",", ""))]
        first = trial["hidden_units.units"]
        assert units == f"{first}, {round(first * trial['hidden_units.ratio'])}"
        assert (rate, mse) == (f"{trial['learning_rate']:.3f}", f"{trial['mse']:.5f}")
        assert not ((small.index < trial.name) & (small["mse"] <= trial["mse"])).any()  # on the front
    deep = metrics("deep")
    of_default = PARAMS.models["deep"].learning_rate
    assert default[1:] == [f"{deep['parameters']:,}", f"{of_default:.3f}", f"{deep['mse_validation']:.5f}"]
    trials = pd.read_csv(ROOT / "plots/studies/deep-trials.csv")
    for setting in ("optimizer", "hidden_activation", "loss"):
        cells = next(row[2] for row in pages["setting"] if row[0] == f"`{setting}`")
        best = trials.groupby(setting)["mse"].min().sort_values()
        assert cells == ", ".join(f"`{value}` {mse:.4f}" for value, mse in best.items())


@quick
def test_the_table_of_code_sizes_is_the_committed_study() -> None:
    table = next(table for table in tables(PAGES["docs/anomalies.md"]) if table[0][0] == "`latent_dim`")
    study = pd.read_csv(ROOT / "plots/studies/code_sizes.csv")
    assert table[0][1:] == [str(size) for size in sorted(study["latent_dim"].unique())]
    for (name, *cells), (series, rows) in zip(table[2:], study.groupby("series", sort=False), strict=True):
        assert name == series
        assert cells == [f"{mean:.3f} ± {std:.3f}" for mean, std in rows[["mean", "std"]].to_numpy()]
    assert (study["runs"] == 10).all()


@quick
def test_the_columns_of_denoised_images_are_explained() -> None:
    explained = rows_named("docs/denoising.md")
    assert explained >= set(pd.read_csv(ROOT / "plots/denoising.csv").columns)
    assert rows_named("docs/anomalies.md") >= {"error", "distance", "combined"}


@quick
def test_the_table_of_generated_digits_is_the_committed_study() -> None:
    page, study = PAGES["docs/generation.md"], pd.read_csv(ROOT / "plots/studies/generation.csv")
    assert f"\n\n{markdown(*generation_rows(study))}\n\n" in page
    assert set(re.findall(r"`(\w+)`", page)) >= set(study.columns)


@quick
def test_the_text_speaks_of_the_defaults() -> None:
    deep, shallow = PARAMS.models["deep"], PARAMS.models["shallow"]
    assert f"`hidden_units: {deep.hidden_units}`" in README
    assert f"`hidden_units: {shallow.hidden_units}`" in README
    assert f"`latent_dim: {deep.latent_dim}`" in README
    factor = metrics("deep")["parameters"] / metrics("shallow")["parameters"]
    assert f"{factor:.0f} times the parameters" in README
    assert f"{PARAMS.compare.resamples:,} times, the number being `compare.resamples`" in PAGES["docs/metrics.md"]
    validation = PARAMS.prepare.validation_images
    assert f"{60_000 - validation:,} for training and {validation:,} for validation" in PAGES["docs/metrics.md"]


@quick
def test_every_measure_is_explained() -> None:
    explained = rows_named("docs/metrics.md")
    assert explained >= set(MEASURES)
    assert explained >= set(metrics("deep"))
    assert explained >= {"pair", *Comparison._fields}


# --- commands ----------------------------------------------------------------------------


@quick
def test_ci_runs_the_test_command() -> None:
    command = re.search(r"requirements-dev\.txt && (.*)", README)
    assert command is not None
    assert f"\n{command[1]}\n" in (ROOT / ".ci/run").read_text()


@quick
@pytest.mark.parametrize(("page", "module", "arguments"), python_modules())
def test_every_program_that_is_shown_exists_and_takes_its_arguments(
    page: str, module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, _, name = module.partition(".")
    if package == "tests":
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
        assert all(f'"{word}"' in source for word in arguments if word.startswith("-")), page
    elif name:
        assert name in STAGES, page
        if name in ("train", "evaluate", "apply"):
            (model,) = arguments
            assert model in (*MODELS, *PLACEHOLDERS), page
        else:
            assert not arguments, page
    elif arguments:
        tool, *options = arguments
        assert tool in tools(), page
        check_options(tool, options, monkeypatch)


def check_options(tool: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    program = importlib.import_module(f"stages.tools.{tool}")
    if not options or not hasattr(program, "parse_arguments"):
        assert not options
        return
    monkeypatch.setattr(sys, "argv", [tool, *options])
    parsed = program.parse_arguments()  # ends the process if it does not know one
    if tool == "reconstruct":
        assert parsed.model in (*MODELS, *PLACEHOLDERS)


@quick
def test_every_option_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    program = importlib.import_module("stages.tools.reconstruct")
    monkeypatch.setattr(sys, "argv", ["reconstruct", "--help"])
    with pytest.raises(SystemExit):
        program.parse_arguments()
    options = set(re.findall(r"^  (--[\w-]+)", capsys.readouterr().out, re.M))
    explained = {name.split()[0] for name in rows_named("docs/your-own-digits.md") if name.startswith("--")}
    assert explained == options


@quick
def test_every_setting_and_stage_in_a_dvc_command_exists() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    checked = 0
    for page, line in commands():
        for key in re.findall(r"-S ['\"]?([\w.$]+)=", line):
            value = params
            for part in key.replace("$m", "deep").split("."):
                assert part in value, f"{page}: {key}"
                value = value[part]
            checked += 1
        for stage, model in re.findall(r"(\w+)@([\w$]+)", line):
            assert "foreach" in pipeline[stage], f"{page}: {stage}"
            assert model in (*PARAMS.models, "$m"), f"{page}: {model}"
            checked += 1
    assert checked > 10


@quick
@each_page
def test_every_key_of_params_that_is_named_exists(page: str) -> None:
    params = PARAMS.model_dump()
    for section, key in re.findall(
        r"`(prepare|evaluate|apply|classifier|generate|compare|figures)\.(\w+)`", PAGES[page]
    ):
        assert key in params[section], f"{section}.{key}"
    for key in re.findall(r"`(\w+): [^`]*`", PAGES[page]):
        assert key in params["models"]["deep"], key


def test_the_python_example_runs(run_template: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.S)
    assert code is not None
    out = succeed(run_template, sys.executable, "-c", code[1] + "print(codes.shape, reconstructions.shape)")
    assert out.splitlines()[-1] == "(200, 16) (200, 784)"  # of the small test set


# --- files and links ---------------------------------------------------------------------


def links(page: str) -> list[str]:
    """What a page links to within the project, pictures included."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(PAGES[page]))
    return [target for target in found if "://" not in target]


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@quick
@each_page
def test_every_link_leads_somewhere(page: str) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert target.resolve().is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


@quick
@each_page
def test_every_file_that_is_named_exists_or_is_an_output(page: str) -> None:
    for name in re.findall(r"`(\.?[\w-][\w.-]*/[\w./-]*|[\w-]+\.(?:py|yaml|lock|toml|txt))`", prose(PAGES[page])):
        ignored = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0
        assert (ROOT / name).exists() or ignored, name


@quick
def test_every_page_and_folder_is_on_the_map() -> None:
    folders = {f"stages/{path.parent.name}" for path in (ROOT / "stages").glob("*/__init__.py")}
    assert set(links("README.md")) >= folders | set(PAGES) - {"README.md"}
    in_index = {f"docs/{link}" for link in links("docs/README.md")}
    assert in_index >= set(PAGES) - {"README.md", "docs/README.md"}


@quick
@pytest.mark.parametrize(
    ("page", "name", "path"),
    [(page, *found) for page, text in PAGES.items() for found in re.findall(r"\[`(\w+)`\]\(([\w./]+\.py)\)", text)],
)
def test_every_function_that_is_named_exists(page: str, name: str, path: str) -> None:
    assert f"\ndef {name}(" in ((ROOT / page).parent / path).read_text()


@quick
@each_page
def test_a_page_begins_with_its_answer(page: str) -> None:
    title, first, *_ = PAGES[page].split("\n\n")
    assert re.fullmatch(r"# \S.*", title)
    assert re.match(r"[A-Z`]", first)  # neither a heading nor a table, list or picture


@quick
def test_the_readme_is_short() -> None:
    assert len(README.split()) <= LONGEST


@quick
def test_every_package_is_pinned_by_hash_and_no_index_is_named() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        blocks = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
        assert len(blocks) > 50
        assert all(re.match(r"\n?\S+==\S+", block) and "--hash=sha256:" in block for block in blocks)
