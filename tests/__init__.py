"""Tests of the pipeline; `pytest` runs them all."""
