"""The search space of a study: which values it tries, and which model they describe."""

import json
import math
from typing import Annotated, Any, Generic, TypeVar, get_args

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from stages.core.params import nearest, shown
from stages.core.schema import Model, Section, Units

Number = TypeVar("Number")
Distribution = CategoricalDistribution | IntDistribution | FloatDistribution
Space = dict[str, Distribution]  # by key of a model, or "hidden_units.layers" and so on

LARGEST_GRID = 100_000
PARTS: dict[str, Any] = {
    "hidden_units.layers": Annotated[int, Field(ge=0, le=64)],
    "hidden_units.units": Units,  # of the first hidden layer
    "hidden_units.ratio": Annotated[float, Field(gt=0, le=16)],  # of each further layer's width to the one before
}
KINDS: dict[str, Any] = PARTS | {
    name: Annotated[field.annotation, field] for name, field in Model.model_fields.items() if name != "seed"
}


class Range(Section, Generic[Number]):
    """A range of numbers in params.yaml; both ends are included."""

    low: Number
    high: Number
    log: bool = False  # sample the logarithm uniformly
    step: Number | None = None


def read_space(given_space: dict[str, Any]) -> Space:
    """The search space that params.yaml describes.

    Raises ValueError with a line for each key that does not vary or whose values are not allowed.
    """
    space: Space = {}
    problems = []
    for name, given in split_hidden_units(given_space).items():
        try:
            space[name] = read_distribution(name, given)
        except ValidationError as error:
            for problem in error.errors():
                place = ".".join(map(str, ["space", name, *problem["loc"]]))
                problems.append(f"{place} is {shown(problem['input'])}: {problem['msg'].lower()}")
        except (ValueError, ArithmeticError) as error:  # the latter from a step that is much too small
            problems.append(f"space.{name} is {shown(given)}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return space


def split_hidden_units(space: dict[str, Any]) -> dict[str, Any]:
    """The space with a mapping under hidden_units replaced by its parts."""
    parts = space.get("hidden_units")
    if not isinstance(parts, dict):
        return space
    names = [name.removeprefix("hidden_units.") for name in PARTS]
    if set(parts) != set(names):
        raise ValueError(f"space.hidden_units is {shown(parts)}, but needs a list, or exactly {', '.join(names)}")
    others = {name: given for name, given in space.items() if name != "hidden_units"}
    return {f"hidden_units.{name}": parts[name] for name in names} | others


def read_distribution(name: str, given: Any) -> Distribution:
    """Optuna's distribution for a list of choices or a range. Raises ValueError if it is neither."""
    if name not in KINDS:
        raise ValueError(f"no such key varies{nearest(name, list(KINDS))}; these do: {', '.join(KINDS)}")
    kind = KINDS[name]
    if isinstance(given, list):
        config = ConfigDict(strict=True, allow_inf_nan=False)
        TypeAdapter(list[kind], config=config).validate_python(given)  # type: ignore[valid-type]
        # Optuna stores no lists
        return CategoricalDistribution([json.dumps(v) if isinstance(v, list) else v for v in given])
    if get_args(kind)[0] not in (int, float):
        raise ValueError("it has to be a list of choices")
    if not isinstance(given, dict):
        raise ValueError("it has to be a list of choices, or a range with low and high")
    numbers = Range[kind].model_validate(given)  # type: ignore[valid-type]
    if isinstance(numbers.low, int):
        return IntDistribution(numbers.low, numbers.high, numbers.log, numbers.step or 1)
    return FloatDistribution(numbers.low, numbers.high, numbers.log, numbers.step)


def settings_of(base: Model, epochs: int, values: dict[str, Any]) -> Model:
    """The model that values from a space describe, with all other settings from `base`.

    epochs: used unless the space varies them. Raises ValidationError if the settings do not go together.
    """
    settings = base.model_dump() | {"epochs": epochs} | {k: v for k, v in values.items() if k not in PARTS}
    if isinstance(settings["hidden_units"], str):
        settings["hidden_units"] = json.loads(settings["hidden_units"])
    if "hidden_units.layers" in values:
        layers, units, ratio = (values[name] for name in PARTS)
        settings["hidden_units"] = [max(1, round(units * ratio**index)) for index in range(layers)]
    return Model.model_validate(settings)


def check_grid(space: Space, trials: int) -> None:
    """Raise ValueError unless the space has from `trials` to LARGEST_GRID combinations."""
    for name, part in space.items():
        if isinstance(part, FloatDistribution) and part.step is None:
            raise ValueError(f"space.{name} has no step, but sampler is grid; it needs a step, or a list of choices")
    size = math.prod(map(size_of, space.values()))
    if not trials <= size <= LARGEST_GRID:
        raise ValueError(f"the grid has {size} combinations, but has to have {trials} to {LARGEST_GRID}")


def size_of(part: Distribution) -> int:
    """The number of values in a part of the space that has a step."""
    if isinstance(part, CategoricalDistribution):
        return len(part.choices)
    return round((part.high - part.low) / (part.step or 1)) + 1
