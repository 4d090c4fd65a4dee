"""The search spaces of params.yaml, and adding a model to it."""
