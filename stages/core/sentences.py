"""What is wrong with a params.yaml, and what is allowed instead, in words."""

import difflib
import math
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from stages.core.schema import Params

POSSIBLE_NAME = (
    "a name starts with a lower-case letter, has at most 40 of a-z, 0-9, _ and -, and is not 'pca', which names the "
    "baseline"
)


def sentences(error: ValidationError) -> list[str]:
    """A sentence for each problem that validation found."""
    # A misspelt key is missing, too, but "did you mean" says more.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] == "missing")
    return [line for problem in problems for line in sentence(problem).splitlines()]


def sentence(error: Any) -> str:
    """One pydantic error as a sentence: key, value found, what is allowed."""
    location = [part for part in error["loc"] if part != "[key]"]
    key = ".".join(str(p) if str(p).isprintable() else repr(p) for p in location) or "the file"
    if error["type"] in ("extra_forbidden", "invalid_key"):
        known = list(schema_at(location[:-1])["properties"])
        return f"{key} is not a known key{nearest(str(location[-1]), known)}; known here: {', '.join(known)}."
    if error["loc"][-1:] == ("[key]",):
        return f"{key} is not a possible name; {POSSIBLE_NAME}."
    if error["type"] == "value_error":  # settings that are possible, but not together
        prefix = f"{key}." if location else ""
        return "\n".join(f"{prefix}{problem}." for problem in str(error["ctx"]["error"]).splitlines())
    schema = schema_at(location)
    if error["type"] == "missing":
        return f"{key} is missing; it has to be {allowed(schema)}."
    hint = nearest(str(error["input"]), schema.get("enum", [])) or without_quotes(error["input"], schema)
    return f"{key} is {shown(error['input'])}, but has to be {allowed(schema)}{hint}."


def without_quotes(value: Any, schema: dict[str, Any]) -> str:
    """`" (without quotes)"` if a text holds the kind of number that is wanted, else nothing."""
    kind = {"integer": int, "number": float}.get(schema.get("type", ""))
    if kind and isinstance(value, str):
        with suppress(ValueError, OverflowError):
            return " (without quotes)" if math.isfinite(kind(value)) else ""
    return ""


def schema_at(location: list[Any]) -> dict[str, Any]:
    """The JSON schema of the key at `location`, a path of keys and list positions."""
    root = Params.model_json_schema()
    schema: dict[str, Any] = root
    for part in location:
        if "items" in schema:
            schema = schema["items"]
        elif "properties" in schema:
            schema = schema["properties"][part]
        else:
            schema = next(iter(schema["patternProperties"].values()))
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def allowed(schema: dict[str, Any]) -> str:
    """What a JSON schema admits, in words: "a whole number from 1 to 256"."""
    if "enum" in schema:
        return "one of " * (len(schema["enum"]) > 1) + ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return ", or ".join(map(allowed, schema["anyOf"]))
    match schema["type"]:
        case "integer" | "number":
            return allowed_number(schema)
        case "array":
            return f"a list{allowed_length(schema)}, each {allowed(schema['items'])}" + (
                ", none twice" if schema.get("uniqueItems") else ""
            )
        case "object":
            keys = schema.get("properties")
            return f"a mapping with the keys {', '.join(keys)}" if keys else "a mapping from names to settings"
        case "boolean":
            return "true or false"
        case kind:
            return "a text that is not empty" if kind == "string" else f"a value of the type {kind}"


def allowed_length(schema: dict[str, Any]) -> str:
    """How many items a JSON schema of a list admits, in words."""
    fewest, most = schema.get("minItems", 0), schema.get("maxItems")
    if fewest:
        return f" of {fewest} to {most} items" if most else f" of at least {fewest} item{'s' * (fewest > 1)}"
    return f" of at most {most} items" if most else ""


def allowed_number(schema: dict[str, Any]) -> str:
    """The same of a number."""
    whole = schema["type"] == "integer"
    bounds = {
        "minimum": "of at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
    }
    if "minimum" in schema and "maximum" in schema:
        limits = [f"from {shortest(schema['minimum'])} to {shortest(schema['maximum'])}"]
    else:
        limits = [words.format(shortest(schema[bound])) for bound, words in bounds.items() if bound in schema]
    return " ".join(["a whole number" if whole else "a number", " and ".join(limits)]).strip()


def shortest(number: float) -> str:
    """Whole numbers in full, others as short as possible."""
    return str(number) if isinstance(number, int) else f"{number:g}"


def nearest(name: str, names: list[str]) -> str:
    """`" (did you mean adam?)"` if one of `names` is spelt much like `name` or may be what it is short for."""
    matches = difflib.get_close_matches(name.lower(), names, n=1)
    matches = matches or [full for full in names if len(name) > 2 and abbreviates(name.lower(), full)]
    return f" (did you mean {matches[0]}?)" if matches else ""


def abbreviates(short: str, full: str) -> bool:
    """Whether all letters of `short` stand in `full` in this order, as those of bce in binary_crossentropy."""
    letters = iter(full)  # `in` goes on behind the letter that it has found
    return short[:1] == full[:1] and all(letter in letters for letter in short)


def shown(value: Any) -> str:
    """A value as the reader of params.yaml would write it, cut where it is long."""
    if value is None:
        return "empty"
    text = repr(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
