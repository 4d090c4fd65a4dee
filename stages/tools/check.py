"""Check params.yaml and presets.yaml, and print all settings of a model."""

import argparse
from pathlib import Path

from stages.applications.schema import ApplicationParams
from stages.core.errors import run
from stages.core.params import choose_model, read_params
from stages.prepare import find_raw
from stages.tools.tune.schema import TuneParams


class AllParams(ApplicationParams, TuneParams, extra="forbid"):
    """Every section of params.yaml, and no other."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages check", description=__doc__)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="print all settings of this model")
    name = parser.parse_args().model
    params = read_params(AllParams)
    find_raw(Path(params.prepare.raw))
    if name:
        for key, value in choose_model(params, name).settings.model_dump().items():
            print(f"{key}: {value}")
    else:
        print("params.yaml is valid.")


if __name__ == "__main__":
    run(main)
