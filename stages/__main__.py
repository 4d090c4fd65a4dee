"""List the stages and the tools, or run one of them.

python -m stages
python -m stages check
"""

import ast
import importlib
import sys
from pathlib import Path

from stages.core.errors import ParamsError, run
from stages.core.params import nearest

# in an order that works
STAGES = (
    "prepare", "train", "evaluate", "compare", "figures",
    "anomalies", "classical", "denoise", "few_labels", "generate",
)  # fmt: skip
TOOLS = ("check", "explore", "gallery", "reconstruct", "study", "tune")
FOLDER = Path(__file__).parent


def summary(path: Path) -> str:
    """Return the first line of a module's docstring without importing the module, which can load TensorFlow."""
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n")[0]


def listing() -> str:
    """List what you can run, one line each."""
    lines = ["Stages of the pipeline. `dvc repro` runs those that are out of date:\n"]
    lines += [f"  python -m stages.{name:<12} {summary(FOLDER / name)}" for name in STAGES]
    lines += ["\nTools. `python -m stages TOOL --help` explains one:\n"]
    lines += [f"  python -m stages {name:<12} {summary(FOLDER / 'tools' / name)}" for name in TOOLS]
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help"):
        print(listing())
        return
    name = sys.argv.pop(1)
    modules = {name: f"stages.{name}" for name in STAGES} | {name: f"stages.tools.{name}" for name in TOOLS}
    if name not in modules:
        known = ", ".join(modules)
        raise ParamsError(f"there is no stage or tool {name!r}{nearest(name, list(modules))}; there are {known}.")
    importlib.import_module(modules[name]).main()


if __name__ == "__main__":
    run(main)
