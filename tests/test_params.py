"""params.yaml and presets.yaml: what the schema accepts, and that it refuses the rest in one sentence a problem."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.errors import ParamsError
from stages.core.params import choose_model, parse_params, read_params
from stages.core.schema import Model, Params
from stages.tools import check
from stages.tools.check import AllParams
from tests import made_up
from tests.conftest import ROOT

pytestmark = pytest.mark.quick
OURS = {name: yaml.safe_load((ROOT / f"{name}.yaml").read_text()) for name in ("params", "presets")}
STUDY = OURS["params"]["tune"]["deep"]
OURS["params"]["tune"] = {}  # reading less is quicker
OURS["presets"] = {name: OURS["presets"][name] for name in ("best16", "sparse")}

Check = Callable[..., made_up.Ended]


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The texts of both files after changes such as ("params.models.deep.epochs", 0)."""
    files = copy.deepcopy(OURS)
    for path, value in changes:
        *parents, key = path.split(".")
        section: Any = files
        for parent in parents:
            section = section[parent]
        section[key] = value
    return {name: yaml.safe_dump(content) for name, content in files.items()}


def read(*changes: tuple[str, Any]) -> AllParams:
    files = changed(*changes)
    return parse_params(AllParams, files["params"], presets=files["presets"])


def problems(*changes: tuple[str, Any]) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        read(*changes)
    return str(caught.value).splitlines()


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Call `python -m stages check` on both files after some changes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")

    def call_it(*changes: tuple[str, Any], arguments: tuple[str, ...] = ()) -> made_up.Ended:
        for name, text in changed(*changes).items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return made_up.call_main(check.main, monkeypatch, capsys, *arguments)

    return call_it


# --- mistakes ------------------------------------------------------------------------------

MISTAKES: list[tuple[str, Any, str, str]] = [  # the key, the value as YAML and in the sentence, what is allowed
    ("params.models.deep.learning_rate", -1, "-1", "greater than 0"),
    ("params.models.deep.learning_rate", float("nan"), "nan", "finite number"),
    ("params.models.deep.dropout", "0.5", "'0.5'", "a valid number"),
    ("params.models.deep.epochs", True, "true", "a valid integer"),
    ("params.models.deep.epochs", None, "empty", "a valid integer"),
    ("params.models.deep.epochs", "1" * 400, f"'{'1' * 50}", "a valid integer"),
    ("params.models.deep.hidden_units", 5, "5", "a valid list"),
    ("params.models.deep.hidden_units", [1] * 65, "[1, 1, 1", "at most 64 items"),
    ("params.models.deep.optimizer", "Adam", "'Adam'", "did you mean adam?"),
    ("params.models.deep.schedule", "linaer", "'linaer'", "did you mean linear?"),
    ("params.models.deep.loss", "l2", "'l2'", "'binary_crossentropy', 'mse', 'mae' or 'huber'"),
    ("params.models.deep", 3, "3", "a mapping"),
    ("params.models.pca", {}, "'pca'", "not be pca, the baseline"),
    ("params.models.anomalies", {}, "'anomalies'", "not be pca, the baseline, or anomalies"),
    ("params.models.Deep", {}, "'Deep'", "1 to 40 of a-z, 0-9, _ and -"),
    ("params.models", {}, "{}", "at least 1 item"),
    ("params.defaults", [], "[]", "a mapping"),
    ("params.prepare.raw", "", "''", "at least 1 character"),
    *(("params.prepare.classes", v, repr(v), "all or a list of different labels from 0 to 255")
      for v in ("al", [], [3, 3], [True], [256])),
    ("params.denoise.noise", [0.1, 0.1], "[0.1, 0.1]", "no value twice"),
    ("params.generate.codes", 5, "5", "components is 10, but has to be at most codes"),
    ("params.generate.classifier.batch_size", 10_001, "10001", "at most digits, 10000"),
    ("params.figures.dpi", 10**6, "1000000", "less than or equal to 600"),
    ("presets.best16.epochs", 0, "0", "greater than or equal to 1"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "found", "allowed"), MISTAKES)
def test_a_mistake_is_a_sentence_with_its_key_its_value_and_what_is_allowed(
    path: str, value: Any, found: str, allowed: str
) -> None:
    (line,) = problems((path, value))
    file, _, key = path.partition(".")
    assert line.startswith(f"{file}.yaml: {key.removesuffix('codes')}")
    assert found in line
    assert allowed in line


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("params.models.deep.latent_dmi", "latent_dim"),
        ("params.tuen", "tune"),
        ("params.generate.classifier.fliters", "filters"),
        ("presets.best16.epoch", "epochs"),
        ("params.models.deep.quite_another", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(path: str, nearest: str | None) -> None:
    (line,) = problems((path, {}))
    file, _, key = path.partition(".")
    assert line.startswith(f"{file}.yaml: {key} is not a known key")
    assert re.findall(r"did you mean (\w+)\?", line) == ([nearest] if nearest else [])


def test_each_problem_has_a_line_and_items_of_lists_have_keys() -> None:
    wrong = [("params.models.deep.hidden_units", [9, "x", 0]), ("params.figures.dpi", "many"), ("presets.sparse", 3)]
    keys = ["params.yaml: models.deep.hidden_units.1", "params.yaml: models.deep.hidden_units.2", "presets.yaml: "]
    lines = problems(*wrong)
    assert len(lines) == 4
    assert all(line.startswith(key) for line, key in zip(lines, [*keys, "params.yaml: figures.dpi"], strict=True))


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("latent_activation", {"latent_activation": "softmax", "latent_dim": 1}),
        ("code_l1", {"latent_activation": "softmax", "code_l1": 0.1}),
        ("latent_activation", {"latent_activation": "relu", "kl_weight": 0.5}),
        ("code_l1", {"code_l1": 0.1, "kl_weight": 0.5}),
        ("warmup_epochs", {"schedule": "constant", "warmup_epochs": 2}),
        ("kl_warmup_epochs", {"kl_warmup_epochs": 0.5}),
        ("layers", {"layers": "conv", "hidden_units": [], "normalization": "none"}),
        ("dropout", {"dropout": 0.1, "hidden_units": [], "normalization": "none"}),
        ("normalization", {"normalization": "batch", "hidden_units": []}),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(key: str, changes: dict[str, Any]) -> None:
    (line,) = problems(*((f"params.models.deep.{name}", value) for name, value in changes.items()))
    assert line.startswith(f"params.yaml: models.deep.{key} is {changes[key]}")


@pytest.mark.parametrize("key", ["warmup_epochs", "early_stopping", "kl_warmup_epochs"])
def test_a_span_of_epochs_has_to_end_before_the_last_one(key: str) -> None:
    changes = [("params.models.deep.epochs", 7), ("params.models.deep.kl_weight", 0.5)]
    assert getattr(read(*changes, (f"params.models.deep.{key}", 6)).models["deep"], key) == 6
    (line,) = problems(*changes, (f"params.models.deep.{key}", 7))
    assert line.startswith(f"params.yaml: models.deep.{key} is 7")


@pytest.mark.parametrize("key", ["params.defaults", "presets.best16", "params.generate.classifier"])
def test_test_images_choose_no_epoch(key: str) -> None:
    """Without validation images they would."""
    changes = [(f"{key}.early_stopping", 2), ("params.generate.seeds", [0])]
    assert read(*changes)
    lines = problems(*changes, ("params.prepare.validation_images", 0))
    file, _, section = key.partition(".")
    assert [line.partition(" is ")[0] for line in lines] == [f"{file}.yaml: {section}.early_stopping"]


# --- defaults, blocks and presets ----------------------------------------------------------


def test_a_block_overrides_the_defaults_and_nothing_else() -> None:
    params = read(("params.models.deep", {"latent_dim": 3}), ("params.models.plain", None), ("presets.best16", None))
    assert params.models["deep"] == params.defaults.model_copy(update={"latent_dim": 3})
    assert params.models["plain"] == params.presets["best16"] == params.defaults


@pytest.mark.parametrize(("key", "value"), [("epohcs", 1), ("kl_warmup_epochs", 2.0), ("hidden_units", [0])])
def test_a_problem_of_the_defaults_is_reported_once(key: str, value: Any) -> None:
    (line,) = problems((f"params.defaults.{key}", value))
    assert line.startswith(f"params.yaml: defaults.{key}")


def test_a_key_that_defaults_lack_is_missing_there() -> None:
    defaults = {key: value for key, value in OURS["params"]["defaults"].items() if key != "loss"}
    assert problems(("params.defaults", defaults)) == ["params.yaml: defaults.loss is missing."]


def test_presets_may_be_missing_or_empty(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(changed()["params"])
    assert read_params(AllParams, tmp_path / "params.yaml").presets == {}
    (tmp_path / "presets.yaml").write_text("# none\n")
    assert read_params(AllParams, tmp_path / "params.yaml").presets == {}


def test_presets_have_a_file_and_names_of_their_own() -> None:
    (line,) = problems(("presets.deep", {}))
    assert line.startswith("presets.yaml: deep has the name of a model")
    (line,) = problems(("params.presets", {"best16": {}}))
    assert line.startswith("params.yaml: presets ")
    assert "presets.yaml" in line


def test_the_check_refuses_what_no_stage_or_only_one_would(checked: Check, tmp_path: Path) -> None:
    ended = checked(("params.notes", {"by": "me"}), ("params.models.deep.epochs", 0))
    assert (ended.status, ended.out) == (2, "")
    assert re.findall(r"^error: params\.yaml: .*\nparams\.yaml: .*\n$", ended.err)
    assert "params.yaml: notes is not a known key" in ended.err
    ended = checked(("params.notes", {}))
    assert ended.status == 2
    assert read_params(Params, tmp_path / "params.yaml").models == read().models
    ended = checked(("params.tune", {"deep": STUDY | {"space": {"loss": ["mse", "mean"]}}}))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("error: params.yaml: tune.deep.space.loss.1 is 'mean'")
    (tmp_path / "data").unlink()
    ended = checked()
    assert (ended.status, ended.out) == (1, "")
    assert "data/raw" in ended.err
    assert "prepare.raw" in ended.err


def test_the_check_prints_the_settings_of_a_model(checked: Check) -> None:
    assert checked() == (0, "params.yaml is valid.\n", "")
    for name in ("deep", "best16"):
        ended = checked(arguments=(name,))
        assert (ended.status, ended.err) == (0, "")
        assert Model(**yaml.safe_load(ended.out)) == choose_model(read(), name).settings
    ended = checked(arguments=("dep",))
    assert (ended.status, ended.out) == (2, "")
    assert "'dep' (did you mean deep?)" in ended.err


# --- YAML ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [("learning_rate", number, 1e-5) for number in ("1e-05", "0.00001", "1.0e-5")]
    + [("seed", "010", 10), ("seed", "0o10", 8), ("seed", "0x10", 16)],
)
def test_numbers_are_read_as_dvc_reads_and_writes_them(key: str, written: str, value: float) -> None:
    text = changed((f"params.models.deep.{key}", "HERE"))["params"].replace("HERE", written)
    assert getattr(parse_params(Params, text).models["deep"], key) == value


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", " is empty"), ("- 1", " is [1]"), ("a: b: c", ", line 1: "), ("a: 1\n  b: 2", ", line 2: "),
        ("\tx: 1", ", line 1: "), ("figures:\n  dpi: 1\n  dpi: 2", ", line 3: "), ("[" * 1000, ": "),
        ("!!python/object/apply:os.system [exit]", ", line 1: "), ("a: 2001-99-99", ": "), ("a: !!int ''", ": "),
    ],
)  # fmt: skip
def test_text_that_is_no_parameter_file_is_refused_with_its_place(text: str, place: str) -> None:
    with pytest.raises(ParamsError) as caught:
        parse_params(Params, text)
    assert str(caught.value).startswith(f"params.yaml{place}")
    assert "\n" not in str(caught.value)
    if text:
        with pytest.raises(ParamsError, match=r"^presets\.yaml"):
            parse_params(Params, changed()["params"], presets=text)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match=re.escape(f"{path} is missing")):
        read_params(Params, path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParamsError, match=re.escape(f"{path} is not UTF-8 text")):
        read_params(Params, path)


# --- anything ------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(scalars, v, max_size=3), max_leaves=5
)
SMALL = OURS["params"]
SECTIONS = [name for name in SMALL if name not in ("models", "tune")]
PLACES: list[tuple[str, ...]] = [(section, key) for section in SECTIONS for key in SMALL[section]]
PLACES += [("models", "deep", key) for key in SMALL["defaults"]] + [(section,) for section in SMALL]
PLACES += [("models", "deep"), ("presets", "sparse"), ("presets", "sparse", "epochs")]


@settings(max_examples=300, deadline=None)
@given(where=st.sampled_from(PLACES), value=values, key=st.none() | scalars)
def test_any_value_anywhere_is_accepted_or_refused_in_a_line_a_problem(
    where: tuple[str, ...], value: Any, key: Any
) -> None:
    params, presets = copy.deepcopy(SMALL), copy.deepcopy(OURS["presets"])
    section: Any = params | {"presets": presets} if where[0] == "presets" else params
    for part in where[:-1]:
        section = section[part]
    section[where[-1] if key is None else key] = value
    try:
        assert parse_params(AllParams, yaml.safe_dump(params), presets=yaml.safe_dump(presets))
    except ParamsError as error:
        for line in str(error).splitlines():
            assert re.match(r"(params|presets)\.yaml(, line \d+)?[: ].*\.$", line), line


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(ParamsError, match=r"^params\.yaml"):
        parse_params(Params, text)


def test_validation_changes_no_value() -> None:
    """DVC tracks the values in the file, and a stage uses what validation returns."""
    settings = {"hidden_units": [9, 2], "latent_dim": 7, "learning_rate": 1e-12, "seed": 2**32 - 1}
    prepare = {"raw": " Ä\u2003/x ", "validation_images": 10**12, "classes": [3, 1], "seed": 5}
    full = SMALL["defaults"] | settings
    found = read(
        ("params.prepare", prepare),
        ("params.denoise.noise", [0.5, 0.001]),
        ("params.models", {"one": settings}),
        ("presets", {"other": settings}),
    )
    changed_sections = {"prepare": prepare, "models": {"one": full}, "presets": {"other": full}}
    expected = SMALL | changed_sections | {"denoise": SMALL["denoise"] | {"noise": [0.5, 0.001]}}
    assert json.dumps(found.model_dump(), sort_keys=True) == json.dumps(expected, sort_keys=True)  # where 1 is not 1.0
