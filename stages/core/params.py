"""Read params.yaml, and choose a model in it."""

import difflib
import re
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stages.core.errors import ParamsError
from stages.core.files import ModelFiles, model_files
from stages.core.schema import Model, Params, Section

PARAMS, PRESETS = Path("params.yaml"), Path("presets.yaml")
BLOCKS = ("models.", "presets.")
WORDS = {  # for types of problems that pydantic describes to programmers
    "dict_type": "be a mapping from keys to values",
    "invalid_key": "have a text as its key",
    "model_type": "be a mapping from keys to values",
    "string_pattern_mismatch": "be 1 to 40 of a-z, 0-9, _ and -, start with a letter, and not be pca, the baseline, "
    "or anomalies, a stage",
}

P = TypeVar("P", bound=Params)


class Choice(NamedTuple):
    """The model that a command line names."""

    name: str
    key: str  # its place in params.yaml or presets.yaml, such as "models.deep"
    settings: Model
    files: ModelFiles


def read_params(kind: type[P], path: Path = PARAMS) -> P:
    """Read and validate params.yaml, and presets.yaml next to it. kind: what of it to read, `Params` or more.

    Raises ParamsError with a sentence per problem: the key's full path, the value found, and what is allowed.
    """
    return parse_params(kind, read_text(path), path, read_presets(path))


def read_presets(path: Path) -> str:
    """The text of presets.yaml next to params.yaml; empty if there is none."""
    presets = path.with_name(PRESETS.name)
    return read_text(presets) if presets.exists() else ""


def parse_params(kind: type[P], text: str, path: Path = PARAMS, presets: str = "") -> P:
    """The parameters in the text of params.yaml and of presets.yaml. Raises ParamsError as `read_params` does."""
    content = mapping(parse_yaml(text, path), str(path))
    if "presets" in content:
        raise ParamsError(f"{path}: presets is not a section of this file; move its blocks to {PRESETS}.")
    defaults = mapping(content.get("defaults"), f"{path}: defaults")
    presets_path = path.with_name(PRESETS.name)
    content["presets"] = mapping(parse_yaml(presets, presets_path) or {}, str(presets_path))
    for section in ("models", "presets"):
        if isinstance(content.get(section), dict):
            content[section] = {name: merged(defaults, block) for name, block in content[section].items()}
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ParamsError("\n".join(located(line, path) for line in without_inherited(sentences(error)))) from None


def mapping(value: Any, name: str) -> dict[Any, Any]:
    """The value itself. Raises ParamsError if it is not a mapping."""
    if not isinstance(value, dict):
        raise ParamsError(f"{name} is {shown(value)}, but has to be a mapping from keys to values.")
    return value


def merged(defaults: dict[str, Any], block: Any) -> Any:
    """A model's block over the settings that all models share; an empty block changes none."""
    if block is None:
        return defaults
    return defaults | block if isinstance(block, dict) else block


def read_text(path: Path) -> str:
    """The text of a file. Raises ParamsError if it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; run this in the folder that holds it.") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None


def parse_yaml(text: str, path: Path) -> Any:
    """YAML 1.2, as DVC reads and writes it: 1e-05 is a number, and a duplicate key an error."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = " ".join(str(error.problem or error).split())
        raise ParamsError(f"{path}{place}: not valid YAML: {problem}.") from None
    except (YAMLError, LookupError, RecursionError, ValueError, TypeError) as error:  # characters, tags, depth, dates
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from None


def without_inherited(lines: list[str]) -> list[str]:
    """The sentences, without those about models that only inherit a problem of `defaults`."""
    shared = {line.removeprefix("defaults.") for line in lines if line.startswith("defaults.")}
    return [line for line in lines if not (line.startswith(BLOCKS) and line.split(".", 2)[-1] in shared)]


def located(line: str, path: Path = PARAMS) -> str:
    """A sentence about a key, after the file that holds the key."""
    if line.startswith("presets."):
        return f"{path.with_name(PRESETS.name)}: {line.removeprefix('presets.')}"
    return f"{path}: {line}"


def sentences(error: ValidationError) -> list[str]:
    """A sentence for each problem that validation found: the key, the value, and what is allowed."""
    lines = []
    for problem in error.errors():
        names = [str(part) for part in problem["loc"] if part != "[key]"]
        key = ".".join(name if name.isprintable() else repr(name) for name in names)
        lines += sentence(key, problem)
    return lines


def sentence(key: str, problem: Any) -> list[str]:
    """One problem in words; a sentence per clash if settings do not suit each other."""
    match problem["type"]:
        case "value_error":
            return [f"{key}.{line}.".lstrip(".") for line in str(problem["ctx"]["error"]).splitlines()]
        case "extra_forbidden":
            return [f"{key} is not a known key{nearest(key.rpartition('.')[2], known_keys())}."]
        case "missing":
            return [f"{key} is missing."]
        case "literal_error":
            hint = nearest(problem["input"], re.findall("'(.*?)'", problem["ctx"]["expected"]))
        case _:
            hint = ""
    allowed = WORDS.get(problem["type"]) or problem["msg"].partition("should ")[2].partition(" after validation")[0]
    return [f"{key} is {shown(problem['input'])}, but has to {allowed}{hint}."]


def known_keys(section: type[Section] = Section) -> list[str]:
    """The keys of a section and of all that extend it."""
    return [*section.model_fields, *(key for kind in section.__subclasses__() for key in known_keys(kind))]


def nearest(found: Any, names: list[str]) -> str:
    """`" (did you mean adam?)"` if one of `names` is spelt much like a text that was found."""
    others = [name for name in names if name != found]
    matches = difflib.get_close_matches(found.lower(), others, n=1) if isinstance(found, str) else []
    return f" (did you mean {matches[0]}?)" if matches else ""


def shown(value: Any) -> str:
    """A value as it may be written in params.yaml, cut where it is long."""
    if value is None:
        return "empty"
    text = repr(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def choose_model(params: Params, name: str | None) -> Choice:
    """The model called `name` in `models` or in presets.yaml. Raises ParamsError if there is none, or no name."""
    known = [*params.models, *params.presets]
    if name is None:
        raise ParamsError(f"the name of a model is missing; known are {', '.join(known)}.")
    if name in params.models:
        return Choice(name, f"models.{name}", params.models[name], model_files(name))
    if name in params.presets:
        return Choice(name, f"presets.{name}", params.presets[name], model_files(name, preset=True))
    raise ParamsError(f"no model is called {shown(name)}{nearest(name, known)}; known are {', '.join(known)}.")


def check_fit(key: str, settings: Model, count: int, height: int, width: int) -> None:
    """Raise ParamsError if a model's settings do not suit the number or the size of the training images."""
    problems = [
        f"{size} is {getattr(settings, size)}, but has to be at most {count}, the number of training images"
        for size in ("batch_size", "latent_dim")
        if getattr(settings, size) > count
    ]
    halvings = (max(height, width) - 1).bit_length()
    if settings.layers == "conv" and len(settings.hidden_units) > halvings:
        problems.append(
            f"hidden_units has {len(settings.hidden_units)} convolutional layers, but images of {height}×{width} "
            f"can be halved {halvings} times"
        )
    if problems:
        raise ParamsError("\n".join(located(f"{key}.{problem}.") for problem in problems))
