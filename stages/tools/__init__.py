"""Tools for people, which DVC does not run: `python -m stages TOOL`."""
