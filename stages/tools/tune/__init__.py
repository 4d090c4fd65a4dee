"""Search for good settings, as the studies in params.yaml describe."""

import argparse


def main() -> None:
    from stages.tools.tune import command  # not above, since a worker needs none of it

    command.main()


def parse_arguments() -> argparse.Namespace:
    from stages.tools.tune import command

    return command.parse_arguments()
