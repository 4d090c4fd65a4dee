"""Tests, which compute as the stages do."""

import stages  # noqa: F401 (before NumPy loads)
