"""Keras on TensorFlow. `stages/__init__.py` sets the environment that both read when they load."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def use_all_cores() -> None:
    """Let one operation use all cores, before TensorFlow runs the first.

    The number changes no byte from two on; XLA cuts some products in another way for a single thread.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tf.config.threading.set_intra_op_parallelism_threads(max(2, cores))
    tf.config.threading.set_inter_op_parallelism_threads(1)


def assign(variables: list[keras.Variable], values: Sequence[Any]) -> None:
    """Give each variable a value, which may be an array or another variable."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


__all__ = ["assign", "keras", "tf", "use_all_cores"]
