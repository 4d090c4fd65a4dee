"""The command line of a stage."""

import argparse


def parse_model(stage: str, description: str | None) -> str | None:
    """Parse a stage's only argument, the name of a model; None if it is missing."""
    parser = stage_parser(stage, description)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model of params.yaml or presets.yaml")
    name: str | None = parser.parse_args().model
    return name


def stage_parser(stage: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that accepts --help and no other argument. description: what --help prints."""
    return argparse.ArgumentParser(
        prog=f"python -m stages.{stage}",
        description=description,
        epilog="Set everything else in params.yaml.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
