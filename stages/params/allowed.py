"""What a JSON schema admits, in words."""

from typing import Any

POSSIBLE_NAME = (
    "a name starts with a lower-case letter, has at most 40 of a-z, 0-9, _ and -, and is not 'pca', which names the "
    "baseline"
)


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
