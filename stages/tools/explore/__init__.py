"""Explore the models in a browser: draw digits and move their codes."""

from stages.tools.explore.command import main

__all__ = ["main"]
