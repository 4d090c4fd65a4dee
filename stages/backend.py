"""Keras and TensorFlow, loaded without TensorFlow's notes on GPUs that are not there.

TF_CPP_MIN_LOG_LEVEL does not reach what TensorFlow logs while it loads (its issue 100442),
so standard error is closed to it for that long; a failing import still raises.
"""

import os

_stderr = os.dup(2)
with open(os.devnull, "wb") as _nothing:
    os.dup2(_nothing.fileno(), 2)
try:
    import keras
    import tensorflow as tf
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)

__all__ = ["keras", "tf"]
