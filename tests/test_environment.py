"""What you have set for other programs changes no result: libraries, Python, fonts, locale, and time zone."""

import os
import sys
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from matplotlib import get_data_path

from stages.__main__ import TOOLS
from tests.conftest import ARGUMENTS, ROOT, STAGES, call, digests, outputs, refused, succeed

SITE = "import locale; locale.setlocale(locale.LC_ALL, '')"
VARIABLES = {
    "FONTCONFIG_FILE": "none", "KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "LC_ALL": "C", "MPLBACKEND": "module://matplotlib_inline.backend_inline", "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    "MKL_NUM_THREADS": "3", "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3", "PYTHONCOERCECLOCALE": "0",
    "PYTHONHASHSEED": "5", "PYTHONIOENCODING": "ascii", "PYTHONOPTIMIZE": "1", "PYTHONSAFEPATH": "1", "PYTHONUTF8": "0",
    "TF_DETERMINISTIC_OPS": "1", "TF_ENABLE_ONEDNN_OPTS": "1", "TF_NUM_INTRAOP_THREADS": "3",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2", "TZ": "Pacific/Kiritimati", "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
}  # fmt: skip
RUN_ALL = """
import runpy, sys
for command in sys.argv[1:]:
    name, *sys.argv[1:] = command.split()
    try:
        runpy.run_module(name, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture
def hostile(run_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything at once, in a home folder, in the project's folder, and in the environment."""
    home = tmp_path / "home"
    for path, text in {
        home / ".keras/keras.json": '{"backend": "torch", "floatx": "float16", "epsilon": 0.1, '
        '"image_data_format": "channels_first"}',
        home / ".config/matplotlib/matplotlibrc": "font.size: 20\naxes.grid: True\nfigure.facecolor: yellow\n",
        home / "site/sitecustomize.py": SITE,
        run_project / "matplotlibrc": "\udcff",  # can't be read as text
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, errors="surrogateescape")
    font = TTFont(Path(get_data_path()) / "fonts/ttf/DejaVuSerif.ttf")
    for entry in font["name"].names:
        entry.string = str(entry).replace("Serif", "Sans")
    (home / ".local/share/fonts").mkdir(parents=True)
    font.save(home / ".local/share/fonts/DejaVuSans.ttf")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(home / "site"), str(run_project)]))


def on_one_core() -> None:
    """A preexec_fn, on Linux."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def test_your_settings_the_cores_and_the_way_to_start_a_stage_change_no_result(
    run_template: Path, run_project: Path, hostile: None
) -> None:
    """`python -m stages NAME` runs all on one core, where DVC ran `python -m stages.NAME` on all cores.

    Every command also explains itself. One process runs all, because loading TensorFlow takes longer than they do.
    """
    for path in outputs(run_project):
        if path.parent != run_project / "data/raw":
            path.unlink()
    ran = [name for name in STAGES if name != "generate"]  # which the run left out
    pipeline = [f"stages {name} {argument}" for name in ran for argument in ARGUMENTS.get(name, ("",))]
    helps = [f"stages.{name} --help" for name in STAGES] + [f"stages {name} --help" for name in TOOLS]
    command = (sys.executable, "-c", RUN_ALL, *pipeline, *helps)
    output = succeed(run_project, *command, preexec_fn=on_one_core)
    assert output.count("usage: python -m stages") == len(helps)
    assert digests(run_project) == digests(run_template)


@pytest.mark.quick
def test_numpy_that_python_loads_at_its_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But your own program can import the functions after it has loaded NumPy."""
    (tmp_path / "sitecustomize.py").write_text("import numpy")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = call(ROOT, sys.executable, "-m", "stages", "check")
    refused(result.returncode, result.stderr, 1, "NumPy")
    assert "sitecustomize.py" in result.stderr
    succeed(ROOT, sys.executable, "-c", "from stages.core.measures import squared_error")
