"""What a module of the project imports, by its text."""

import ast
from collections.abc import Iterator
from pathlib import Path


def imported_files(path: Path, root: Path) -> set[Path]:
    """The file itself and those of root/stages that it imports anywhere, directly or through others."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in imported_names(path) for file in files_of(name, root)]
    return found


def imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)  # a module or something in one


def files_of(name: str, root: Path) -> Iterator[Path]:
    """What Python runs to import "stages.a.b": stages/__init__.py, stages/a/__init__.py and stages/a/b.py."""
    parts = name.split(".")
    if parts[0] == "stages":
        for length in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:length])
            yield from (file for file in (place / "__init__.py", place.with_suffix(".py")) if file.exists())


def names(files: set[Path], root: Path) -> set[str]:
    return {file.relative_to(root).as_posix() for file in files}
