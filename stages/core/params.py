"""Read params.yaml, and choose a model in it."""

import difflib
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stages.core.errors import ParamsError
from stages.core.files import ModelFiles, model_files
from stages.core.schema import Defaults, Model, Params, Section

PARAMS, PRESETS = Path("params.yaml"), Path("presets.yaml")

P = TypeVar("P", bound=Params)


class Choice(NamedTuple):
    """The model that a command line names."""

    name: str
    key: str  # its place in params.yaml, such as "models.deep"
    settings: Model
    files: ModelFiles


def read_params(kind: type[P], path: Path = PARAMS) -> P:
    """Read and validate params.yaml, and presets.yaml next to it. kind: what of it to read, `Params` or more.

    Raises ParamsError with a sentence per problem: the key's full path, the value found, and what is allowed.
    """
    presets = path.with_name(PRESETS.name)
    return parse_params(kind, read_text(path), path, read_text(presets) if presets.exists() else "{}")


def parse_params(kind: type[P], text: str, path: Path = PARAMS, presets: str = "{}") -> P:
    """The parameters in the text of params.yaml and of presets.yaml. Raises ParamsError as `read_params` does."""
    content = parse_yaml(text, path)
    if not isinstance(content, dict):
        raise ParamsError(f"{path} is {shown(content)}, but has to be a mapping from sections to settings.")
    content["presets"] = parse_yaml(presets, path.with_name(PRESETS.name))
    defaults: Any = content.get("defaults")
    try:
        Defaults.model_validate(defaults)
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {line}" for line in sentences(error, "defaults"))) from None
    for section in ("models", "presets"):
        if isinstance(content.get(section), dict):
            content[section] = {name: merged(defaults, block) for name, block in content[section].items()}
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {line}" for line in sentences(error))) from None


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


def sentences(error: ValidationError, *section: str) -> list[str]:
    """A sentence for each problem that validation found in a section of params.yaml, or in all of it."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in (*section, *problem["loc"]) if part != "[key]")
        lines += [
            f"{key}.{line}" if key and problem["type"] == "value_error" else line for line in sentence(key, problem)
        ]
    return lines


def sentence(key: str, problem: Any) -> list[str]:
    """One problem in words; several if settings clash."""
    if problem["type"] == "value_error":
        return [f"{line}." for line in str(problem["ctx"]["error"]).splitlines()]
    if problem["type"] == "extra_forbidden":
        return [f"{key} is not a known key{nearest(key.rpartition('.')[2], known_keys())}."]
    if problem["type"] == "missing":
        return [f"{key} is missing."]
    hint = nearest(problem["input"], str(problem.get("ctx", {}).get("expected", "")).replace("'", "").split(", "))
    return [f"{key} is {shown(problem['input'])}: {problem['msg'].lower()}{hint}."]


def known_keys() -> list[str]:
    """The names of all settings."""
    sections: list[type[Section]] = [Defaults, *Section.__subclasses__()]
    return [name for section in sections for name in section.model_fields]


def nearest(found: Any, names: list[str]) -> str:
    """`" (did you mean adam?)"` if one of `names` is spelt much like a text that was found."""
    matches = difflib.get_close_matches(found.lower(), names, n=1) if isinstance(found, str) else []
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
        raise ParamsError("\n".join(f"params.yaml: {key}.{problem}." for problem in problems))
