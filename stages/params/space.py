"""The search spaces of params.yaml: what a study varies, and which model a choice of values describes."""

import math
import random
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from stages.core.errors import ParamsError
from stages.core.params import nearest, sentences, shown
from stages.core.schema import Model, Units
from stages.params.allowed import allowed
from stages.params.schema import Tune, TuneParams

HIDDEN = ("layers", "units", "ratio")  # what hidden_units may be made of
FIXED = {"seed": "chance is nothing to choose by"}
LARGEST_GRID = 100_000
TRIES = 64  # random combinations in which a value of the space has to make sense once
PARTS: dict[str, Any] = {  # what the values of the parts of hidden_units have to be
    "hidden_units.layers": Annotated[int, Field(ge=0, le=64)],
    "hidden_units.units": Units,
    "hidden_units.ratio": Annotated[float, Field(gt=0, le=16)],
}


class Choices(NamedTuple):
    """One of a list of values."""

    values: list[Any]


class Range(NamedTuple):
    """A number from low to high, both included; whole if whole."""

    low: float
    high: float
    log: bool  # evenly distributed in its logarithm
    step: float | None
    whole: bool


Space = dict[str, Choices | Range]  # by key of the model block, or "hidden_units.layers" and so on


def read_space(tune: Tune) -> Space:
    """The search space of a study. Raises ValueError, one line for each problem, if it is none."""
    space: Space = {}
    problems = []
    for key, value in tune.space.items():
        parts = {key: value}
        if key == "hidden_units" and isinstance(value, dict):
            if set(value) != set(HIDDEN):
                problems.append(f"space.{key} is {shown(value)}, but has to be a list or have {', '.join(HIDDEN)}")
                continue
            parts = {f"{key}.{part}": value[part] for part in HIDDEN}
        for name, given in parts.items():
            try:
                space[name] = _read_dimension(name, given)
            except ValueError as error:
                problems += [f"space.{name}{line}" for line in str(error).splitlines()]
    if problems:
        raise ValueError("\n".join(problems))
    return space


def _read_dimension(name: str, given: Any) -> Choices | Range:
    if name in FIXED:
        raise ValueError(f" must not vary: {FIXED[name]}")
    if name not in PARTS and name not in Model.model_fields:
        raise ValueError(f" is not a key of a model{nearest(name, list(Model.model_fields))}")
    adapter = _adapter(name)
    schema = adapter.json_schema()
    if isinstance(given, list):
        if not given or any(given.count(value) > 1 for value in given):
            raise ValueError(f" is {shown(given)}, but has to hold at least one choice, each once")
        for value in given:
            _check_value(value, adapter)
        return Choices(given)
    numeric = schema.get("type") in ("integer", "number")
    if not isinstance(given, dict) or not numeric:
        wanted = "a list of choices" + (" or a range with low and high" if numeric else "")
        raise ValueError(f" is {shown(given)}, but has to be {wanted}")
    if unknown := [key for key in given if key not in ("low", "high", "log", "step")]:
        raise ValueError(f".{unknown[0]} is not a known key; a range has low, high and maybe log or step")
    if missing := [key for key in ("low", "high") if key not in given]:
        raise ValueError(f".{missing[0]} is missing")
    for key in ("low", "high"):
        _check_value(given[key], adapter, f".{key}")
    low, high, log, step = given["low"], given["high"], given.get("log", False), given.get("step")
    whole = schema["type"] == "integer"
    if low >= high:
        raise ValueError(f".high is {high}, but has to be above low, {low}")
    if not isinstance(log, bool):
        raise ValueError(f".log is {shown(log)}, but has to be true or false")
    if log and low <= 0:
        raise ValueError(f".low is {low}, but has to be above 0 where log is true")
    if step is not None:
        if isinstance(step, bool) or not isinstance(step, int if whole else int | float) or not 0 < step <= high - low:
            raise ValueError(f".step is {shown(step)}, but has to be a{' whole' * whole} number up to high - low")
        if log:
            raise ValueError(f".step is {step}, but log is true; a range has only one of them")
        steps = (high - low) / step
        if not math.isfinite(steps) or not math.isclose(steps, round(steps), abs_tol=1e-9):
            raise ValueError(f".step is {step}, but does not lead from {low} to {high}")
    return Range(low, high, log, step, whole)


def _adapter(name: str) -> TypeAdapter[Any]:
    """What the values of a part of the space have to be, as the schema has it."""
    if name in PARTS:
        kind = PARTS[name]
    else:
        field = Model.model_fields[name]
        kind = Annotated[field.annotation, field]
    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def _check_value(value: Any, adapter: TypeAdapter[Any], place: str = "") -> None:
    """Raise ValueError if a part of the space cannot have this value."""
    try:
        adapter.validate_python(value)
    except ValidationError:
        verb = "is" if place else "has"
        raise ValueError(f"{place} {verb} {shown(value)}, but has to be {allowed(adapter.json_schema())}") from None


def settings_of(base: Model, epochs: int, values: dict[str, Any]) -> Model:
    """The model that values of the space describe, on top of a block. Raises ValidationError if it makes no sense."""
    settings = base.model_dump() | {"epochs": epochs} | {k: v for k, v in values.items() if k not in PARTS}
    if "hidden_units.layers" in values:
        layers, units, ratio = (values[name] for name in PARTS)
        settings["hidden_units"] = [max(1, round(units * ratio**index)) for index in range(layers)]
    return Model.model_validate(settings)


def base_of(params: TuneParams, tune: Tune) -> Model:
    """The block that a study's space changes. Raises ValueError if there is none of that name."""
    known = params.models | params.presets
    if tune.model not in known:
        hint = nearest(tune.model, list(known))
        raise ValueError(f"model is {tune.model!r}, but has to be one of {', '.join(known)}{hint}")
    return known[tune.model]


def grid_of(space: Space) -> dict[str, list[Any]]:
    """All values of each part of the space.

    Raises ValueError if a range has none to choose from, or the grid more than LARGEST_GRID combinations.
    """
    sizes = {name: grid_size(name, part) for name, part in space.items()}
    if math.prod(sizes.values()) > LARGEST_GRID:
        raise ValueError(f"space has a grid of more than {LARGEST_GRID} combinations, which are the most")
    return {
        name: part.values if isinstance(part, Choices) else grid_values(part, sizes[name])
        for name, part in space.items()
    }


def grid_size(name: str, part: Choices | Range) -> int:
    """The number of values of a part of the space. Raises ValueError if a range has none to choose from."""
    if isinstance(part, Choices):
        return len(part.values)
    if part.log:
        raise ValueError(f"space.{name} is logarithmic, but sampler is grid; it needs a list of choices")
    if part.step is None and not part.whole:
        raise ValueError(f"space.{name} is a range without a step, but sampler is grid; it needs one, or a list")
    return round((part.high - part.low) / (part.step or 1)) + 1


def grid_values(part: Range, size: int) -> list[Any]:
    """So many values of a range; the last is its end, not what rounding leaves."""
    return [*(part.low + index * (part.step or 1) for index in range(size - 1)), part.high]


def check_studies(params: TuneParams, names: Iterable[str]) -> None:
    """Raise ParamsError, one sentence for each problem, if a study of params.yaml makes no sense.

    Stages do not ask: whoever trains a model need not care what else its block is the base of.
    """
    problems = []
    for name in names:
        try:
            check_study(base_of(params, params.tune[name]), params.tune[name])
        except ValueError as error:
            problems += [f"params.yaml: tune.{name}.{line}." for line in str(error).splitlines()]
    if problems:
        raise ParamsError("\n".join(problems))


def check_study(base: Model, tune: Tune) -> None:
    """Raise ValueError, one line for each problem, if a study makes no sense."""
    space = read_space(tune)
    if len(set(tune.objectives)) < len(tune.objectives):
        raise ValueError(f"objectives has {tune.objectives[0]} twice")
    if len(tune.objectives) > 1 and tune.pruner != "none":
        raise ValueError(f"pruner is {tune.pruner}, but has to be none: two objectives cut no trial short")
    if tune.sampler == "grid":
        combinations = math.prod(map(len, grid_of(space).values()))
        if combinations < tune.trials:
            raise ValueError(f"trials is {tune.trials}, but the grid has {combinations} combinations")
    if "epochs" in space and max(extremes(space["epochs"])) != tune.epochs:
        raise ValueError(f"epochs is {tune.epochs}, but the largest in the space is {max(extremes(space['epochs']))}")
    draw = random.Random(0)  # noqa: S311 (no secret)
    for name, part in space.items():
        for value in extremes(part):
            for _ in range(TRIES):
                others = {key: draw.choice(extremes(other)) for key, other in space.items()}
                try:
                    settings_of(base, tune.epochs, others | {name: value})
                    break
                except ValidationError as error:
                    reason = sentences(error)[0].rstrip(".")
            else:
                raise ValueError(f"space.{name} can be {shown(value)}, which never makes sense here: {reason}")


def extremes(part: Choices | Range) -> list[Any]:
    """The values of a list, and the ends of a range."""
    return part.values if isinstance(part, Choices) else [part.low, part.high]
