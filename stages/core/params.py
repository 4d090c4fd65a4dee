"""Reading params.yaml."""

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stages.core.errors import ParamsError
from stages.core.files import ModelFiles, model_files
from stages.core.schema import Model, Params
from stages.core.sentences import nearest, sentences, shown

# What YAML's parser says of the commonest slips, and what to look for instead.
PLAIN = {
    "could not find expected ':'": "a key has to be followed by a colon and a space",
    "mapping values are not allowed here": "a key that is indented unlike the others, or a value with a colon in it",
    "expected <block end>, but found '<block mapping start>'": "a key that is indented unlike the others",
    "found character '\\t' that cannot start any token": "a tab, where only spaces indent",
}


class Choice(NamedTuple):
    """The model that a command line names."""

    name: str
    key: str  # its place in params.yaml, such as "models.deep"
    settings: Model
    files: ModelFiles


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate the whole parameter file.

    Raises ParamsError with one sentence per problem: the key's full path, the value
    found, what is allowed, and the nearest known name where one is near.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; run this in the folder that holds it.") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    return parse_params(text, path)


def parse_params(text: str, path: Path) -> Params:
    """The parameters in the text of the file `path`. Raises ParamsError as read_params does."""
    try:
        return Params.model_validate(_parse_yaml(text, path))
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {line}" for line in sentences(error))) from None


def _parse_yaml(text: str, path: Path) -> Any:
    try:
        # YAML 1.2, as DVC reads and writes it: 1e-05 is a number, and a duplicate key an error
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        problem, mark = " ".join(str(error.problem or error).split()), error.problem_mark
        if isinstance(error, DuplicateKeyError):
            problem = problem.removeprefix("found ").partition(" with value")[0]
        if "expected ':'" in problem:
            mark = error.context_mark  # the key; the parser notices at the next one
        problem = PLAIN.get(problem, problem)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ParamsError(f"{path}{place}: not valid YAML: {problem}.") from None
    except LookupError:
        raise ParamsError(f"{path}: not valid YAML: a tag such as !!bool that does not suit its value.") from None
    except (YAMLError, RecursionError, ValueError, TypeError) as error:  # bad characters, depth, dates, odd keys
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from None


def choose_model(params: Params, name: str | None) -> Choice:
    """The model called `name` in `models` or `presets`.

    Raises ParamsError if there is no such model, or no name.
    """
    known = ", ".join(params.models | params.presets)
    if name is None:
        raise ParamsError(f"the name of a model is missing; params.yaml has {known}.")
    if name in params.models:
        return Choice(name, f"models.{name}", params.models[name], model_files(name))
    if name in params.presets:
        return Choice(name, f"presets.{name}", params.presets[name], model_files(name, preset=True))
    hint = nearest(name, list(params.models | params.presets))
    raise ParamsError(f"params.yaml has no model {shown(name)}{hint}; it has {known}.")


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
