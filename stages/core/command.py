"""The command line of a stage."""

import argparse


def parse_no_arguments(stage: str, description: str | None) -> None:
    """Accept --help, which prints `description`, and no other argument. Ends the process with status 2 otherwise."""
    stage_parser(stage, description).parse_args()


def parse_model(stage: str, description: str | None) -> str | None:
    """Parse a stage's only argument, the name of a model; None if it is missing."""
    parser = stage_parser(stage, description)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model of params.yaml or presets.yaml")
    name: str | None = parser.parse_args().model
    return name


def stage_parser(stage: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that knows --help. description: the docstring of the stage."""
    return argparse.ArgumentParser(
        prog=f"python -m stages.{stage}",
        description=description,
        epilog="Set everything else in params.yaml.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
