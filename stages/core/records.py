"""Files of records: frozen dataclasses of numbers, arrays, other records and lists of records."""

import errno
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from stages.core.errors import StageError, reason
from stages.core.files import BROKEN_ARRAY, how_to_make

Record = TypeVar("Record")


def save_record(file: BinaryIO, record: Any) -> None:
    """Write a record to an open file in NumPy's .npz format, one array a field; nested fields are named "model.mse"."""
    np.savez(file, allow_pickle=False, **dict(_flattened(record, "")))


def load_record(kind: type[Record], path: Path) -> Record:
    """Load a record of class `kind` that `save_record` wrote.

    Raises StageError if the file is missing or does not hold a complete record of that class.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _build(kind, dict(archive), "")
    except FileNotFoundError:
        raise StageError(f"{path} is missing; {how_to_make(path)}.") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a damaged archive can point to before its own start
            raise
        raise StageError(f"{path} is broken ({error.strerror}); {how_to_make(path)}.") from None
    except BROKEN_ARRAY as error:
        raise StageError(f"{path} is broken ({reason(error)}); {how_to_make(path)}.") from None


def _flattened(record: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            yield from _flattened(value, f"{prefix}{field.name}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from _flattened(item, f"{prefix}{field.name}.{index}.")
        else:
            yield prefix + field.name, value


def _build(kind: type[Record], arrays: dict[str, Any], prefix: str) -> Record:
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            values[name] = _build(hint, arrays, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif get_origin(hint) is list:
            places = {key[len(prefix) :].split(".")[1] for key in arrays if key.startswith(f"{prefix}{name}.")}
            values[name] = [
                _build(get_args(hint)[0], arrays, f"{prefix}{name}.{place}.") for place in sorted(places, key=int)
            ]
        else:
            value = arrays[prefix + name]
            values[name] = hint(value) if hint in (int, float, str) else value
    return kind(**values)
