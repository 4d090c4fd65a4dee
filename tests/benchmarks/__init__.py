"""Benchmarks: run by hand, never part of the test suite, and never asserting a time."""
