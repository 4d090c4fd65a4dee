"""The pipeline: prepare -> train -> evaluate -> compare, figures, and the applications of its models.

`core` is what the stages share, `applications` what autoencoders are good for, and `tools` what a person
starts. `python -m stages` lists what can be run.

Importing this package sets what the libraries read when they load, so that the same commit gives the
same bytes on every x86-64 processor and under every configuration of the user's own.
"""

import os
import platform
import sys
from contextlib import chdir
from pathlib import Path

NUMPY_CAME_FIRST = "numpy" in sys.modules  # and so ignores what is set below

XLA_FLAGS = [
    "--xla_gpu_exclude_nondeterministic_ops=true",
    "--xla_cpu_enable_platform_dependent_math=false",  # YNNPACK's products and sums
    "--xla_backend_extra_options=xla_cpu_disable_platform_dependent_math",  # reciprocal square roots
    "--xla_disable_hlo_passes=transpose-folding",  # YNNPACK takes no transposed factor
]
if platform.machine() in ("x86_64", "AMD64"):
    XLA_FLAGS.append("--xla_cpu_max_isa=AVX2")  # else LLVM rounds some fused operations in another way
# What you have set for other programs counts for nothing here.
for name in [name for name in os.environ if name.startswith(("KERAS_", "NPY_", "TF_XLA_", "TF_DETERMINISTIC_"))]:
    del os.environ[name]

os.environ["XLA_FLAGS"] = " ".join(XLA_FLAGS)
os.environ["NPY_DISABLE_CPU_FEATURES"] = "X86_V4 AVX512_ICL AVX512_SPR"  # its exp and log differ with AVX-512
os.environ["OPENBLAS_CORETYPE"] = "Haswell"  # NumPy's products; named after the first AVX2 core
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # more threads split, and so reorder, the sums
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # operations outside XLA: one implementation everywhere
os.environ["MPLBACKEND"] = "agg"
os.environ["MATPLOTLIBRC"] = os.devnull
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_HOME"] = os.devnull  # no keras.json: float32, 1e-7, channels_last
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors that end the process, and a few lines at the start
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # else one process takes a GPU's whole memory
if Path("matplotlibrc").exists():  # in the working folder it counts more than MATPLOTLIBRC, and it can be broken
    with chdir(Path(__file__).parent):
        import matplotlib  # noqa: F401
