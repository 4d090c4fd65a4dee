"""The command line of a stage."""

import argparse


def parse_no_arguments(stage: str, description: str | None) -> None:
    """Take no argument but --help, which prints the stage's `description`; ends the process with status 2 otherwise."""
    _parser(stage, description).parse_args()


def parse_model(stage: str, description: str | None) -> str | None:
    """The name of a model, a stage's only argument; None if it is missing."""
    parser = _parser(stage, description)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a key of `models` or `presets` in params.yaml")
    name: str | None = parser.parse_args().model
    return name


def _parser(stage: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m stages.{stage}",
        description=description,
        epilog="Everything else is set in params.yaml.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
