"""Let a trained autoencoder encode and reconstruct your own digits."""

from stages.tools.reconstruct.command import main, parse_arguments

__all__ = ["main", "parse_arguments"]
