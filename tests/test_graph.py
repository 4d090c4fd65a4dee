"""What dvc.yaml lists: the files, settings and models on which each stage depends, no more and no less."""

import ast
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo  # type: ignore[import-untyped]

from stages.applications.schema import ApplicationParams
from tests.conftest import (
    APPLICATIONS,
    CORE,
    MODELS,
    ROOT,
    STAGES,
    ask_for_generation,
    change_params,
    outputs,
    stages_in_turn,
    succeed,
)
from tests.imports import files_of, imported_files, imported_names, names

quick = pytest.mark.quick
EVALUATIONS = {f"evaluate@{model}" for model in MODELS}
TRAININGS = {f"train@{model}" for model in MODELS}


def stages_of_dvc_yaml() -> dict[str, Any]:
    """Each stage of dvc.yaml, the body of `do` for those that `foreach` makes."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in content.items()}


# --- code ----------------------------------------------------------------------------------


# They check settings, report errors or progress, or name types; so they change no output.
HARMLESS = {f"stages/core/{name}.py" for name in ("__init__", "arrays", "command", "errors", "params", "progress")}
HARMLESS |= {"stages/core/schema.py", "stages/applications/__init__.py", "stages/applications/schema.py"}


HARMLESS_EDITS = (
    "stages/core/schema.py",
    "stages/core/a_new_module.py",
    "stages/core/__pycache__/files.cpython-311.pyc",
    "stages/tools/check.py",
    "stages/__main__.py",
    "data/evaluation/.deep.npz.0123456789abcdef.tmp",  # an unfinished file
    "data/models/.deep.keras.0123456789abcdef.tmp",
    "data/evaluation/.gitignore",  # DVC's own, where a user's git ignores nothing
    "data/presets/other.npz",
)


@quick
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_exactly_the_files_that_it_imports(name: str) -> None:
    listed = [dep for dep in stages_of_dvc_yaml()[name]["deps"] if dep.startswith("stages")]
    used = names(imported_files(ROOT / f"stages/{name}.py", ROOT), ROOT)
    assert sorted(listed) == sorted(used - HARMLESS)


@quick
def test_the_core_needs_no_application_and_nothing_needs_a_tool() -> None:
    for path in sorted((ROOT / "stages").rglob("*.py")):
        name = path.relative_to(ROOT / "stages").as_posix()
        room = name.split("/")[0] if "/" in name else "stage"
        room = "core" if room.removesuffix(".py") in CORE or name.removesuffix(".py") in CORE else room
        forbidden = {"core": ("stages.applications", "stages.tools"), "tools": ()}.get(room, ("stages.tools",))
        found = [imported for imported in imported_names(path) if imported.startswith(forbidden)] if forbidden else []
        assert not found, name
        if room in ("core", "applications"):
            stages = tuple(f"stages.{stage}" for stage in STAGES)
            assert not [i for i in imported_names(path) if i.startswith(stages) and name.count("/")], name


@quick
@quick
def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    """Or the test before could not fail."""
    contents = {
        "train": "import os\nif os:\n    from stages import a, b\nfrom stages.c import deep",
        "b/__init__": "import stages.e.leaf as leaf",
        "c/deep": "def f():\n    from stages.d import x",
        "d": "x = 1",
        "e/leaf": "import stages.train",
    } | dict.fromkeys(["__init__", "a/__init__", "c/__init__", "e/__init__", "f/__init__", "unused"], "")
    for name, text in contents.items():
        path = tmp_path / f"stages/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = names(imported_files(tmp_path / "stages/train.py", tmp_path), tmp_path)
    files = ("__init__", "a/__init__", "b/__init__", "c/__init__", "c/deep", "d", "e/__init__", "e/leaf", "train")
    assert found == {f"stages/{name}.py" for name in files}


@quick
def test_dvc_yaml_names_no_model() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    models = {*yaml.safe_load((ROOT / "params.yaml").read_text())["models"]}
    presets = {*yaml.safe_load((ROOT / "presets.yaml").read_text())}
    of_applications = r"(plots|metrics|data/classical|stages/applications)/\w+\.\w+|template: \w+"
    assert not {*re.findall(r"[\w-]+", re.sub(of_applications, "", text))} & (models | presets)


def test_stages_without_tensorflow_load_only_what_was_found() -> None:
    names = ("prepare", "classical", "anomalies", "compare", "figures")
    code = f"import sys, {', '.join(f'stages.{name}' for name in names)}; print(*sys.modules)"
    loaded = succeed(ROOT, sys.executable, "-c", code).split()
    assert not {"tensorflow", "keras"} & set(loaded)
    paths = {ROOT / f"stages/{name}.py" for name in names}
    files = {file for module in loaded for file in files_of(module, ROOT)}
    assert paths <= files <= {file for path in paths for file in imported_files(path, ROOT)}


def test_an_edit_changes_the_stages_that_depend_on_it(run_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits: list[tuple[tuple[str, ...], set[str]]] = [
        (("stages/core/autoencoder.py",), TRAININGS | EVALUATIONS | {"denoise", "few_labels"}),
        (("stages/core/tables.py",), {"compare", "classical", "anomalies", "denoise", "few_labels"}),
        (("stages/applications/labels.py", "stages/core/pictures.py"), {"few_labels", "figures"}),
        (HARMLESS_EDITS, set()),
    ]
    monkeypatch.chdir(run_project)
    for edited, expected in edits:
        for name in edited:
            path = run_project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((path.read_bytes() if path.exists() else b"") + b"# edited\n")
        with Repo() as repo:
            assert set(repo.status()) == expected, edited
        succeed(run_project, "git", "checkout", "-q", "stages")


def without_applications(project: Path) -> None:
    """Delete the applications and the tools, and what dvc.yaml and params.yaml say of them."""
    shutil.rmtree(project / "stages/applications")
    shutil.rmtree(project / "stages/tools")
    for name in APPLICATIONS:
        (project / f"stages/{name}.py").unlink()
    path = project / "dvc.yaml"
    content = yaml.safe_load(path.read_text())
    content["stages"] = {name: content["stages"][name] for name in CORE}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    change_params(project, lambda params: [params.pop(key) for key in ("denoise", "few_labels", "generate", "tune")])


def test_the_core_alone_gives_the_same_bytes(run_project: Path) -> None:
    without_applications(run_project)
    expected = outputs(run_project)
    for path in expected.keys() - set(run_project.glob("data/raw/*")):
        path.unlink()
    of_models = [f"{name} {model}" for name in ("train", "evaluate") for model in MODELS]
    result = stages_in_turn(run_project, "prepare", *of_models, "compare", "figures")
    assert result.returncode == 0, result.stderr
    written = outputs(run_project)
    assert written.items() <= expected.items()
    assert {path.name for path in expected.keys() - written.keys()} == {
        "anomalies.json", "anomalies.md", "anomalies.png", "denoising.csv", "denoising.md", "denoising.npz",
        "denoising.png", "few_labels.md", "labels.csv", "labels.png",
    }  # fmt: skip
    assert "up to date" in succeed(run_project, "dvc", "status")


# --- settings ------------------------------------------------------------------------------


OF_STAGES = ("prepare", "evaluate", "compare", "figures", "denoise", "few_labels", "generate")  # sections
RECORDER = """
import sys, runpy
import stages.core.params
from stages.core.schema import Section
read = set()
plain = Section.__getattribute__
def noting(self, key):
    if key in type(self).model_fields:
        read.add((type(self).__name__, key))
    return plain(self, key)
Section.__getattribute__ = noting
for method in ("model_dump", "model_dump_json"):  # which do not look keys up one by one
    def dump(self, *arguments, plain_dump=getattr(Section, method), **named):
        read.update((type(self).__name__, key) for key in type(self).model_fields)
        return plain_dump(self, *arguments, **named)
    setattr(Section, method, dump)
plain_read = stages.core.params.read_params
def read_params(kind):
    params = plain_read(kind)
    read.clear()
    return params
stages.core.params.read_params = read_params
for command in sys.argv[1:]:
    name, *sys.argv[1:] = command.split()
    runpy.run_module(f"stages.{name}", run_name="__main__")
    print("READ", name, sorted(read))
"""


def in_a_hurry(params: Any) -> None:
    """For `change_params`: nothing takes long."""
    params["figures"].update(dpi=50, classes=2)
    params["compare"].update(resamples=100)
    params["denoise"].update(noise=[0.2], images=20, validation_images=2)
    params["few_labels"].update(labels=[10], draws=2, training_images=100, queries=20)
    params["generate"]["classifier"].update(epochs=1)


def test_a_stage_lists_exactly_the_parameters_that_it_reads(run_project: Path) -> None:
    """Run the stages in a process that notes which settings each of them looks up after validation."""
    recording = (sys.executable, "-c", RECORDER)
    others = [name for name in STAGES if name not in ("prepare", "train", "evaluate", "generate")]
    change_params(run_project, ask_for_generation)
    change_params(run_project, in_a_hurry)
    out = succeed(run_project, *recording, "prepare", "train shallow", "evaluate shallow", *others, "generate 0")
    recorded = dict(line.split(maxsplit=2)[1:] for line in out.splitlines() if line.startswith("READ "))
    assert recorded.keys() == set(STAGES)
    sections = {key: field.annotation for key, field in ApplicationParams.model_fields.items() if key in OF_STAGES}
    classes: dict[str, Any] = {kind.__name__: key for key, kind in sections.items() if kind}
    for name, read in recorded.items():
        found = ast.literal_eval(read)
        keys = {f"{classes[kind]}.{key}" for kind, key in found if kind in classes}
        if "Model" in {kind for kind, _ in found}:  # the blocks and what they override are listed as a whole
            keys |= {"defaults", "models" if name == "compare" else "models.${key}"}
        if name in ("figures", "anomalies", "denoise", "few_labels", "generate"):
            keys |= {"models"}  # they read the names
        listed = set()
        for param in stages_of_dvc_yaml()[name]["params"]:
            fields = getattr(sections.get(param), "model_fields", None)
            listed |= {f"{param}.{key}" for key in fields} if fields else {param}
        assert keys == listed, name


# --- charts and figures --------------------------------------------------------------------


@quick
@pytest.mark.parametrize("name", [name for name in STAGES if name != "generate"])  # which has run nowhere
def test_every_plot_has_a_template_and_columns_that_exist(name: str) -> None:
    for plot in stages_of_dvc_yaml()[name].get("plots", []):
        ((path, options),) = plot.items()
        assert (ROOT / path).exists()
        assert options.pop("cache") is False  # git has it, so that people see it without DVC
        if path.endswith(".csv"):
            template = (ROOT / f".dvc/plots/{options['template']}.json").read_text()
            assert "<DVC_METRIC_DATA>" in template
            header = (ROOT / path).read_text().splitlines()[0].split(",")
            assert {options["x"], options["y"]} <= set(header)
