"""Adding a model to params.yaml."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml import YAML

from stages.core.errors import ParamsError
from stages.core.files import replacing
from stages.core.params import parse_params, shown
from stages.core.schema import Model, ModelName, Params
from stages.params.allowed import POSSIBLE_NAME


def check_new_name(params: Params, name: str) -> None:
    """Raise ParamsError if no new model can have this name."""
    if name in params.models | params.presets:
        raise ParamsError(f"params.yaml has a model called {name} already; --apply needs another name.")
    try:
        TypeAdapter(ModelName, config=ConfigDict(regex_engine="python-re")).validate_python(name)
    except ValidationError:
        raise ParamsError(f"--apply is {shown(name)}, but {POSSIBLE_NAME}.") from None


def add_model(name: str, settings: Model, comment: str, path: Path = Path("params.yaml")) -> None:
    """Add a block at the end of `models`; all other lines of the file stay as they are.

    Raises ParamsError if the file is not made of blocks, so that there is no place for one.
    """
    text = path.read_bytes().decode()
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    place = end_of_section("models", text)
    if not lines[place - 1].endswith("\n"):
        lines[place - 1] += end
    block = [f"  {name}:  # {comment}", *(f"    {key}: {written(v)}" for key, v in settings.model_dump().items())]
    changed = "".join([*lines[:place], *(line + end for line in block), *lines[place:]])
    try:
        fine = parse_params(Params, changed, path).models.get(name) == settings
    except ParamsError:
        fine = False
    if not fine:
        raise ParamsError(f"{path} has no place for a new block: `models` has to be a mapping indented by two spaces.")
    with replacing(path) as file:
        file.write(changed.encode())


def end_of_section(name: str, text: str) -> int:
    """The number of lines up to the end of a top-level section, without the blank lines and comments that follow it."""
    root = YAML().load(text)
    names = list(root)
    after = names[names.index(name) + 1 :]
    lines = text.splitlines()
    end = root.lc.key(after[0])[0] if after else len(lines)
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):
        end -= 1
    return end


def written(value: Any) -> str:
    """A setting as params.yaml has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return repr(value) if isinstance(value, float) else str(value)
