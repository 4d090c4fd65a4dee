"""The pipeline: prepare -> train -> evaluate -> apply -> compare -> figures, with classical and classifier beside.

What the stages share lies in folders beside them, named after what they are about; the
map in README.md says which is which. `python -m stages` lists what can be run.

Importing this package pins what decides the order in which products are summed,
because the same commit has to give the same bytes: the instruction set that the
numerical libraries may use, the threads of one of them, and on a GPU the operations
that XLA may use. It has to happen before NumPy and TensorFlow load, hence here and
not in a function.
"""

import os
import platform

SAME_ORDER, INSTRUCTIONS = "--xla_gpu_exclude_nondeterministic_ops=true", "--xla_cpu_max_isa=AVX2"
flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag not in (SAME_ORDER, INSTRUCTIONS)]
flags.insert(0, SAME_ORDER)  # before the user's, of which the last counts
if platform.machine() in ("x86_64", "AMD64"):
    flags.append(INSTRUCTIONS)
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"  # XLA's and Eigen's matrix products
    os.environ["OPENBLAS_CORETYPE"] = "Haswell"  # NumPy's; named after the first AVX2 core
os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # more threads split, and so reorder, the sums
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # operations outside XLA: one implementation everywhere
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no notes on missing GPUs
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # else one process takes a GPU's whole memory
