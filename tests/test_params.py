"""The schema of params.yaml: what it accepts, and that every refusal is a sentence per problem."""

import copy
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

import keras
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core.errors import ParamsError
from stages.core.params import read_params
from stages.core.schema import Optimizer, Params
from stages.tools import check
from stages.tools.check import explain
from tests import made_up
from tests.conftest import ROOT, call

pytestmark = pytest.mark.quick
DEFAULTS = yaml.safe_load((ROOT / "params.yaml").read_text())
SMALL = DEFAULTS | {"models": {"deep": DEFAULTS["models"]["deep"]}, "presets": {}}  # quicker to read


def read(tmp_path: Path, content: Any) -> Any:
    path = tmp_path / "params.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return read_params(Params, path)


def problem(tmp_path: Path, content: Any) -> str:
    with pytest.raises(ParamsError) as caught:
        read(tmp_path, content)
    return str(caught.value).replace(f"{tmp_path}/", "")


def changed(path: str, value: Any) -> Any:
    params = copy.deepcopy(DEFAULTS)
    *parents, key = path.split(".")
    section = params
    for parent in parents:
        section = section[parent]
    section[key] = value
    return params


def test_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    params = read(tmp_path, DEFAULTS)
    shallow, deep = params.models["shallow"], params.models["deep"]
    assert (shallow.hidden_units, deep.hidden_units) == ([], [500, 300, 100])
    of_depth = {"hidden_units": [], "normalization": "none", "learning_rate": shallow.learning_rate}
    assert deep.model_copy(update=of_depth) == shallow  # one recipe, but for what depth needs
    assert (deep.latent_dim, deep.loss, deep.optimizer, deep.epochs) == (16, "binary_crossentropy", "adam", 10)


def test_every_meaningless_combination_is_a_sentence(tmp_path: Path) -> None:
    params = changed("models.shallow.dropout", 0.5)
    params["models"]["shallow"] |= {"layers": "conv", "schedule": "cosine", "warmup_epochs": 60, "early_stopping": 99}
    lines = problem(tmp_path, params).splitlines()
    found = [re.fullmatch(r"params\.yaml: models\.shallow\.(\w+) is \S+, but .*\.", line) for line in lines]
    assert [match and match[1] for match in found] == ["layers", "dropout", "warmup_epochs", "early_stopping"]


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_beta_2_is_for_optimizers_that_have_it(tmp_path: Path, optimizer: str) -> None:
    """As Keras has it: the argument of that name."""
    params = changed("models.deep.optimizer", optimizer)
    params["models"]["deep"]["beta_2"] = 0.9
    kind = keras.optimizers.get({"class_name": optimizer, "config": {}}).__class__
    if "beta_2" in inspect.signature(kind.__init__).parameters:
        assert read(tmp_path, params).models["deep"].beta_2 == 0.9
    else:
        assert problem(tmp_path, params) == (
            f"params.yaml: models.deep.beta_2 is 0.9, but {optimizer} has no beta_2; it has to be 0."
        )


@pytest.mark.parametrize("key", ["warmup_epochs", "early_stopping"])
def test_a_span_of_epochs_has_to_end_before_the_last_one(tmp_path: Path, key: str) -> None:
    params = changed("models.deep.schedule", "cosine")
    params["models"]["deep"]["epochs"] = 7
    params["models"]["deep"][key] = 6
    assert getattr(read(tmp_path, params).models["deep"], key) == 6
    params["models"]["deep"][key] = 7
    assert problem(tmp_path, params) == f"params.yaml: models.deep.{key} is 7, but has to be below epochs, 7."


@pytest.mark.parametrize("written", ["1e-05", "1E-5", "0.00001", "1.0e-5"])
def test_numbers_as_dvc_writes_them(tmp_path: Path, written: str) -> None:
    text = yaml.safe_dump(changed("models.deep.learning_rate", "HERE")).replace("HERE", written)
    assert read(tmp_path, text).models["deep"].learning_rate == 1e-5


@pytest.mark.parametrize(("written", "seed"), [("010", 10), ("0o10", 8), ("0x10", 16)])
def test_whole_numbers_as_dvc_reads_them(tmp_path: Path, written: str, seed: int) -> None:
    text = yaml.safe_dump(changed("models.deep.seed", "HERE")).replace("HERE", written)
    assert read(tmp_path, text).models["deep"].seed == seed


@pytest.mark.parametrize(("key", "number"), [("learning_rate", "1e-05"), ("epochs", "50"), ("dropout", "0.5")])
def test_a_number_in_quotes_is_a_text(tmp_path: Path, key: str, number: str) -> None:
    text = yaml.safe_dump(changed(f"models.deep.{key}", "HERE")).replace("HERE", f'"{number}"')
    told = problem(tmp_path, text)
    assert told.startswith(f"params.yaml: models.deep.{key} is '{number}', but has to be a ")
    assert told.endswith(" (without quotes).")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("models.deep.learning_rate", -1, "models.deep.learning_rate is -1, but has to be a number above 0 and"),
        ("models.deep.learning_rate", float("nan"), "models.deep.learning_rate is nan, but has to be a number above"),
        ("models.deep.learning_rate", float("inf"), "models.deep.learning_rate is inf, but has to be a number above"),
        ("models.deep.epochs", 0, "models.deep.epochs is 0, but has to be a whole number from 1 to 100000."),
        ("models.deep.epochs", True, "models.deep.epochs is true, but has to be a whole number from 1 to 100000."),
        ("models.deep.epochs", None, "models.deep.epochs is empty, but has to be a whole number from 1 to 100000."),
        ("models.deep.hidden_units", 5, "models.deep.hidden_units is 5, but has to be a list of at most 64 items"),
        ("models.deep.hidden_units", [9, "x"], "models.deep.hidden_units.1 is 'x', but has to be a whole number from"),
        ("models.deep.epochs", "1" * 400, "models.deep.epochs is '11111"),
        ("models.deep.epochs", "0.5", "models.deep.epochs is '0.5', but has to be a whole number from 1 to 100000."),
        ("models.deep.optimizer", "adm", "(did you mean adam?)"),
        ("models.deep.hidden_activation", "Relu", "(did you mean relu?)"),
        ("models.deep.loss", "bce", "(did you mean binary_crossentropy?)"),
        ("models.deep.loss", "cross", "binary_crossentropy, mse, mae, huber."),
        ("models.deep.latent_dmi", 3, "models.deep.latent_dmi is not a known key (did you mean latent_dim?)"),
        ("models.pca", DEFAULTS["models"]["deep"], "models.pca is not a possible name"),
        (
            "models.shallow.layers",
            "conv",
            "models.shallow.layers is conv, but hidden_units is []; a convolutional model",
        ),
        ("models.shallow.dropout", 0.1, "models.shallow.dropout is 0.1, but there is no hidden layer to drop outputs"),
        ("models.shallow.dropout", 1, "dropout is 1, but has to be a number of at least 0 and below 1."),
        ("models.shallow.normalization", "batch", "normalization is batch, but there is no hidden layer to normalize"),
        (
            "models.deep.schedule",
            "constant",
            "models.deep.warmup_epochs is 0.5, but schedule is constant; it has to be 0, or schedule cosine or linear.",
        ),
        ("models.deep.beta_2", 1, "models.deep.beta_2 is 1, but has to be a number of at least 0 and below 1."),
        ("models.deep.ema_momentum", -1, "models.deep.ema_momentum is -1, but has to be a number of at least 0 and"),
        ("models.deep.early_stopping", 10, "models.deep.early_stopping is 10, but has to be below epochs, 10."),
        ("models.deep.noise", 10.5, "models.deep.noise is 10.5, but has to be a number from 0 to 10."),
        ("models.deep.code_l1", -1, "models.deep.code_l1 is -1, but has to be a number from 0 to 1e+06."),
        ("models.deep.kl_weight", -1, "models.deep.kl_weight is -1, but has to be a number from 0 to 1e+06."),
        (
            "models.deep.kl_warmup_epochs",
            0.5,
            "models.deep.kl_warmup_epochs is 0.5, but kl_weight is 0; it has to be 0.",
        ),
        (
            "presets.deep",
            DEFAULTS["models"]["deep"],
            "params.yaml: presets.deep has the name of a model; it needs another.",
        ),
        ("presets.best16.epochs", 0, "presets.best16.epochs is 0, but has to be a whole number from 1 to 100000."),
        ("models.Deep", DEFAULTS["models"]["deep"], "models.Deep is not a possible name"),
        ("presets.pca", DEFAULTS["models"]["deep"], "presets.pca is not a possible name"),
        ("evaluate.ridge", 0, "evaluate.ridge is 0, but has to be a number above 0 and at most 1e+12."),
        ("compare.resamples", 1, "compare.resamples is 1, but has to be a whole number from 100 to 100000."),
        ("models.../x", DEFAULTS["models"]["deep"], None),
        ("modles", {}, "modles is not a known key (did you mean models?); known here: prepare, models,"),
        (
            "prepare.classes",
            "al",
            "prepare.classes is 'al', but has to be all, or a list of at least 1 item, each a whole",
        ),
        ("prepare.classes", [], "prepare.classes is [], but has to be all, or a list of at least 1 item, each a whole"),
        ("prepare.classes", [3, 4, 3], "prepare.classes is [3, 4, 3], but has to be all, or a list of at least 1 item"),
        ("prepare.classes", [1, 256], "each a whole number from 0 to 255, none twice."),
        ("prepare.classes", [True], "prepare.classes is [True], but has to be all, or a list"),
        ("prepare.classes", 3, "prepare.classes is 3, but has to be all, or a list of at least 1 item, each a whole"),
        (
            "apply.noise",
            [],
            "apply.noise is [], but has to be a list of 1 to 16 items, each a number above 0 and at",
        ),
        ("apply.noise", [0.1, 0.1], "apply.noise is [0.1, 0.1], but has to be a list of 1 to 16 items, each a number"),
        ("apply.noise", [0.1, 0], "apply.noise.1 is 0, but has to be a number above 0 and at most 10."),
        (
            "apply.labels",
            [10, 0],
            "apply.labels.1 is 0, but has to be a whole number from 1 to 10000000.",
        ),
        (
            "apply.labels",
            [10, 10],
            "apply.labels is [10, 10], but has to be a list of 1 to 16 items, each a whole number from 1 to 10000000, "
            "none twice.",
        ),
        ("apply.draws", 1, "apply.draws is 1, but has to be a whole number from 2 to 1000."),
        ("apply.penalty", 0, "apply.penalty is 0, but has to be a number above 0 and at most 1e+12."),
        ("apply.images", 0, "apply.images is 0, but has to be a whole number from 1 to 10000."),
        ("models", {}, "models is {}, but has to be a mapping from names to settings."),
        ("prepare", {}, "prepare.raw is missing; it has to be a text that is not empty."),
        ("prepare.validation_images", -1, "is -1, but has to be a whole number of at least 0."),
        ("figures.dpi", 10**6, "figures.dpi is 1000000, but has to be a whole number from 50 to 600."),
    ],
)
def test_a_mistake_is_told_with_key_value_and_what_is_allowed(
    tmp_path: Path, path: str, value: Any, sentence: str | None
) -> None:
    if sentence is None:  # a hostile name, with dots of its own
        params = copy.deepcopy(DEFAULTS)
        params["models"]["../x"] = value
        assert "models.../x is not a possible name" in problem(tmp_path, params)
    else:
        assert sentence in problem(tmp_path, changed(path, value))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"latent_dim": 1}, "models.deep.latent_activation is softmax, but latent_dim is 1; that code would always be"),
        ({"code_l1": 0.1}, "models.deep.code_l1 is 0.1, but latent_activation is softmax; the sum of those codes"),
    ],
)
def test_softmax_codes_that_tell_nothing_are_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    params = changed("models.deep.latent_activation", "softmax")
    params["models"]["deep"].update(changes)
    assert sentence in problem(tmp_path, params)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"latent_activation": "relu"}, "latent_activation is relu, but with a kl_weight the code is the mean of a"),
        (
            {"code_l1": 0.1},
            "code_l1 is 0.1, but kl_weight is 0.5 and already draws codes to zero; one of them has to be",
        ),
        ({"kl_warmup_epochs": 10}, "kl_warmup_epochs is 10, but has to be below epochs, 10."),
    ],
)
def test_what_a_variational_model_cannot_have_is_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    params = changed("models.deep.kl_weight", 0.5)
    params["models"]["deep"]["kl_warmup_epochs"] = 9.5
    assert read(tmp_path, params).models["deep"].kl_weight == 0.5
    params["models"]["deep"].update(changes)
    assert problem(tmp_path, params).startswith(f"params.yaml: models.deep.{sentence}")


def test_test_images_choose_no_epoch(tmp_path: Path) -> None:
    """Without validation images they take their place."""
    params = changed("prepare.validation_images", 0)
    assert read(tmp_path, params).prepare.validation_images == 0
    for block in (params["models"]["deep"], params["presets"]["best16"], params["classifier"]):
        block["early_stopping"] = 2
    told = "early_stopping is 2, but prepare.validation_images is 0, so the test images would choose the epoch"
    keys = ["models.deep", "presets.best16"]
    for train in (False, True):
        params["classifier"]["train"] = train
        assert problem(tmp_path, params).splitlines() == [
            f"params.yaml: {key}.{told}; one of them has to change." for key in [*keys, *["classifier"] * train]
        ]
    params["prepare"]["validation_images"] = 1
    assert read(tmp_path, params).models["deep"].early_stopping == 2


def test_every_problem_is_told(tmp_path: Path) -> None:
    params = changed("models.deep.epochs", 0)
    params["figures"]["dpi"] = "many"
    del params["evaluate"]
    lines = problem(tmp_path, params).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("params.yaml: ") and line.endswith(".") for line in lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "",
            "the file is empty, but has to be a mapping with the keys prepare, models, presets, tune, evaluate, apply, "
            "classifier, generate, compare, figures.",
        ),
        ("- 1", "the file is [1], but"),
        ("a: b: c", "line 1, column 5: not valid YAML: a key that is indented unlike the others, or a value with a"),
        ("a: 1\n  b: 2", "line 2, column 4: not valid YAML: a key that is indented unlike the others, or a value with"),
        ("x:\n    a: 1\n   b: 2", "line 3, column 4: not valid YAML: a key that is indented unlike the others."),
        ("a: 1\nb:2\nc: 3", "line 2, column 1: not valid YAML: a key has to be followed by a colon and a space."),
        ("\tx: 1", "line 1, column 1: not valid YAML: a tab, where only spaces indent."),
        ("figures:\n  dpi: 1\n  dpi: 2", 'params.yaml, line 3, column 3: not valid YAML: duplicate key "dpi".'),
        ("!!python/object/apply:os.system [exit]", "not valid YAML: could not determine a constructor"),
        ("a: 2001-99-99", "not valid YAML: month must be in 1..12."),
        ("[" * 1000, "not valid YAML"),
        ("a: !!bool foo", "not valid YAML: a tag such as !!bool that does not suit its value."),
        ("a: !!int ''", "not valid YAML: a tag such as !!bool that does not suit its value."),
    ],
)
def test_text_that_is_no_parameter_file(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in problem(tmp_path, text)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParamsError, match="is not UTF-8 text"):
        read_params(Params, path)
    with pytest.raises(ParamsError, match="is missing; run this in the folder that holds it"):
        read_params(Params, tmp_path / "none.yaml")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(scalars, v, max_size=3), max_leaves=5
)
LEAVES: list[tuple[str, ...]] = [
    (s, k) for s in ("prepare", "evaluate", "apply", "classifier", "generate", "figures") for k in DEFAULTS[s]
]
LEAVES += [("models", "deep", k) for k in DEFAULTS["models"]["deep"]] + [("models",), ("models", "deep"), ("prepare",)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(LEAVES), value=values, key=st.none() | scalars)
def test_any_value_anywhere_is_accepted_or_told(tmp_path: Path, where: tuple[str, ...], value: Any, key: Any) -> None:
    params = copy.deepcopy(SMALL)
    section = params
    for part in where[:-1]:
        section = section[part]
    section[where[-1] if key is None else key] = value
    try:
        text = yaml.safe_dump(params)
        assert read(tmp_path, text)
    except ParamsError as error:
        assert all(line.strip().endswith(".") for line in str(error).splitlines())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_is_told(tmp_path: Path, text: str) -> None:
    assert problem(tmp_path, text).endswith(".")


@st.composite
def valid_params(draw: st.DrawFn) -> Any:
    """Parameters with most values drawn anew."""
    params = copy.deepcopy(SMALL)
    numbers = st.floats(0.001, 0.999) | st.floats(1e-12, 1e-3)
    seeds = st.integers(0, 2**32 - 1)
    printable = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"))
    params["prepare"] = {
        "raw": draw(st.sampled_from(["", " "])) + draw(st.text(printable, min_size=1, max_size=20)),
        "validation_images": draw(st.integers(0, 10**12)),
        "classes": draw(st.just("all") | st.lists(st.integers(0, 255), min_size=1, max_size=9, unique=True)),
        "seed": draw(seeds),
    }
    params["apply"]["noise"] = draw(st.lists(numbers, min_size=1, max_size=16, unique=True))
    model = params["models"].pop("deep")
    model["hidden_units"] = draw(st.lists(st.integers(1, 16384), min_size=1, max_size=8))
    model["seed"] = draw(seeds)
    for key in ("dropout", "noise", "code_l1", "learning_rate", "weight_decay"):
        model[key] = draw(numbers)
    for key in ("latent_dim", "batch_size", "epochs", "threads"):
        model[key] = draw(st.integers(1, 256))
    names = st.from_regex(r"[a-z][a-z0-9_-]{0,39}", fullmatch=True).filter(lambda name: name != "pca")
    one, other = draw(st.lists(names, min_size=2, max_size=2, unique=True))
    params["models"][one] = params["presets"][other] = model
    params["evaluate"]["ridge"] = draw(numbers)
    params["figures"]["dpi"] = draw(st.integers(50, 600))
    return params


def exact(value: Any) -> Any:
    """A value as a text in which 1 and 1.0 differ."""
    return json.dumps(value, sort_keys=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(params=valid_params())
def test_validation_changes_no_value(tmp_path: Path, params: Any) -> None:
    """Written as JSON, which is YAML too. DVC tracks the values in the file, and a stage uses what validation gives."""
    assert exact(read(tmp_path, json.dumps(params, ensure_ascii=False)).model_dump()) == exact(params)


def test_validation_changes_no_value_of_this_project() -> None:
    assert exact(read_params(Params, ROOT / "params.yaml").model_dump()) == exact(DEFAULTS)


def test_a_model_may_be_called_comparison(tmp_path: Path) -> None:
    assert "comparison" in read(tmp_path, changed("models.comparison", DEFAULTS["models"]["deep"])).models


def test_every_key_is_explained() -> None:
    table = explain()
    for path in LEAVES:
        if len(path) > 1 and path[-1] != "deep":
            assert f"`{'.'.join(path).replace('models.deep', 'models.<name>')}`" in table


def test_the_command_explains_or_exits_with_2(tmp_path: Path) -> None:
    command = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "stages", "check")
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(DEFAULTS))
    told = call(tmp_path, *command).stdout
    assert told.startswith("What the keys of params.yaml mean")
    assert told.endswith(f":\n\n{explain()}\n\nparams.yaml is valid.\n")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed("figures.dpi", 1)))
    result = call(tmp_path, *command)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: params.yaml: figures.dpi is 1, but has to be a whole number from 50 to 600.\n"


def test_check_tells_what_only_a_stage_or_the_tuner_would_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(DEFAULTS))
    ended = made_up.call_main(check.main, monkeypatch, capsys)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "error: data/raw, named by prepare.raw in params.yaml, is not a folder.\n"
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed("tune.deep.space.loss", ["mse", "mean"])))
    ended = made_up.call_main(check.main, monkeypatch, capsys)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("error: params.yaml: tune.deep.space.loss.1 is 'mean'")
