"""What the tests share: a small part of the real MNIST, and temporary clones of this project."""

import ctypes
import gzip
import hashlib
import importlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock

from stages import __main__ as package
from stages.core.idx import read_idx

ROOT = Path(__file__).parent.parent
RAW = ROOT / "data/raw"
NAMES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
TINY = {"train": 600, "test": 200}
CORE = ("prepare", "train", "evaluate", "compare", "figures")
STAGES = package.STAGES
APPLICATIONS = tuple(name for name in STAGES if name not in CORE)
MODELS = ("shallow", "deep")
ARGUMENTS = {"train": MODELS, "evaluate": MODELS, "generate": ("0",)}  # of the stages that take one

Stage = Callable[..., Any]  # called with a stage and its arguments; returns made_up.Ended

# The recipe of most tutorials, so that a test of one setting does not depend on params.yaml.
TUTORIAL = {
    "hidden_activation": "relu", "normalization": "none", "loss": "binary_crossentropy", "optimizer": "adam",
    "learning_rate": 0.001, "schedule": "constant", "warmup_epochs": 0.0, "beta_2": 0.0, "ema_momentum": 0.0,
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run quick tests first, since those that clone the project run whole stages and load TensorFlow each time.

    The browser's tests run one after another, so they start at once, and the first of them makes the run that all
    others copy. Other groups come first among the rest, so that none is left over at the end.
    """

    def turn(item: pytest.Item) -> tuple[bool, bool, bool]:
        group = item.get_closest_marker("xdist_group")
        of_browser = group is not None and group.args == ("browser",)
        return not of_browser, "template" in getattr(item, "fixturenames", ()), group is None

    items.sort(key=turn)


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background processes inherit it ignored


def pictures(*stages: str) -> list[str]:
    """The names of the pictures that dvc.yaml lists for these stages."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    paths = [Path(path) for name in stages for plot in content[name]["plots"] for path in plot]
    return [path.stem for path in paths if path.suffix == ".png"]


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes, as the description of the format defines it."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_raw(folder: Path, arrays: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, pair in arrays.items():
        for name, array in zip(NAMES[split], pair, strict=True):
            (folder / name).write_bytes(gzip.compress(idx_bytes(array), 1, mtime=0))


def change_params(project: Path, change: Callable[[Any], object]) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    change(params)
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def ask_for_generation(params: Any) -> None:
    """For `change_params`: measure generated digits, quickly."""
    params["generate"].update(seeds=[0], digits=100, draws=2, components=3, codes=300)
    params["generate"]["classifier"].update(filters=[4], features=8, batch_size=50, epochs=2)


def environment() -> dict[str, str]:
    """The process environment with this interpreter's programs first, as in an activated virtual environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    user = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t"}
    return os.environ | user | {"PATH": path}


def own_lines(errors: str) -> str:
    """Standard error without the lines that TensorFlow logs while it loads."""
    logged = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} ")
    return "".join(line for line in errors.splitlines(keepends=True) if not logged.match(line))


def call(project: Path, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in `project`, its output captured as text, without what TensorFlow logs while it loads."""
    result = subprocess.run(
        command, cwd=project, env=environment(), text=True, capture_output=True, timeout=600, **options
    )
    result.stderr = own_lines(result.stderr)
    return result


def succeed(project: Path, *command: str, **options: Any) -> str:
    """As `call`, but the command has to succeed; returns its standard output."""
    result = call(project, *command, **options)
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def start(project: Path, *command: str, **options: Any) -> subprocess.Popen[str]:
    """As `call`, but in the background, as a process group of its own and with errors among the output."""
    return subprocess.Popen(
        command,
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing happened for {seconds} s"
        time.sleep(0.05)


def obey_permissions() -> None:
    """A preexec_fn that makes a program obey permission bits even if root starts it (on Linux)."""
    if os.geteuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond `limit` bytes: the nearest thing to a full disk."""
    import resource  # Windows has none

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def stages_in_turn(project: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run stages such as "train deep" in one process, because loading TensorFlow takes longer than the stages."""
    code = """
import runpy, sys
for command in sys.argv[1:]:
    name, *sys.argv[1:] = command.split()
    runpy.run_module(f"stages.{name}", run_name="__main__")
"""
    return call(project, sys.executable, "-c", code, *commands)


def stages_run(output: str) -> set[str]:
    """The stages that ran, by what `dvc repro` printed."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def refused(status: int, error: str, expected: int, sentence: str) -> str:
    """What ended with this status and standard error did so as expected; returns the standard error."""
    assert status == expected, error
    assert "Traceback" not in error
    errors = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    return error


def outputs(project: Path) -> dict[Path, bytes]:
    """Every file in the folders that stages write to."""
    return {
        p: p.read_bytes() for kind in ("data", "metrics", "plots") for p in (project / kind).rglob("*") if p.is_file()
    }


def digests(project: Path) -> dict[str, str]:
    """SHA-256 of every file that the pipeline writes, models included, and of any left next to them.

    The long model's evaluation has to be there; what comes after it may be missing.
    """
    folders = ("prepared", "models", "history", "evaluation", "classical", "generation")
    kinds = ("metrics", "plots", *(f"data/{folder}" for folder in folders))
    paths = [project / "dvc.lock"] + [path for kind in kinds for path in sorted((project / kind).glob("*"))]
    found = {str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert {"data/prepared/train_images.npy", "metrics/deep.json"} <= found.keys()
    return found


@pytest.fixture(scope="session")
def mnist() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The first few real images and labels of each split."""
    return {
        split: (
            read_idx(RAW / names[0], 3)[: TINY[split]],
            read_idx(RAW / names[1], 1)[: TINY[split]],
        )
        for split, names in NAMES.items()
    }


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """This project, as git sees the working tree, with the small data and two epochs; not to be changed."""
    project = tmp_path_factory.mktemp("template") / "project"
    listed = succeed(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard")
    for name in listed.splitlines():
        wanted = not name.startswith(("data/raw/", "tests/", "metrics/", "plots/")) and name != "dvc.lock"
        if wanted and (ROOT / name).exists():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
    write_raw(project / "data/raw", mnist)

    def small(params: Any) -> None:
        params["prepare"]["validation_images"] = 100
        params["defaults"]["epochs"] = 2
        params["models"]["shallow"]["batch_size"] = 64
        # no partial batch, which takes as long to compile as a whole one
        params["models"]["deep"].update(batch_size=50, hidden_units=[32])
        params["tune"] = {}
        params["denoise"].update(noise=[0.2, 0.5], images=40, validation_images=10)
        params["few_labels"].update(labels=[10, 100], draws=3, training_images=300, queries=100)

    change_params(project, small)
    succeed(project, "git", "init", "-q")
    succeed(project, "git", "add", "-A")
    succeed(project, "git", "commit", "-qm", "small data")
    return project


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A clone of the template to work in."""
    succeed(tmp_path, "git", "clone", "-q", str(template), "project")
    return tmp_path / "project"


def made_once(name: str, make: Callable[[Path], None], factory: pytest.TempPathFactory) -> Path:
    """A project that the first process of the test run to need it makes in a new folder, while others wait for it.

    Each process gets a copy of its own, since DVC locks a project even where it only reads.
    """
    base = factory.getbasetemp()
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"made-{name}"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            unfinished = factory.mktemp(name) / "unfinished"
            make(unfinished)
            unfinished.rename(made)
    own = factory.mktemp(name) / "project"
    shutil.copytree(made, own, symlinks=True)
    return own


@pytest.fixture(scope="session")
def run_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which `dvc repro` has run and been committed; not to be changed."""

    def make(project: Path) -> None:
        succeed(template, "git", "clone", "-q", ".", str(project))
        succeed(project, "dvc", "repro")
        succeed(project, "git", "add", "-A")
        succeed(project, "git", "commit", "-qm", "results")

    return made_once("run", make, tmp_path_factory)


OF_VAE: dict[str, Any] = {
    "kl_weight": 2.0,
    "kl_warmup_epochs": 0.5,
    "hidden_units": [30],
    "latent_dim": 4,
    "batch_size": 50,
}


@pytest.fixture(scope="session")
def extended_template(run_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that clone with one more model, a variational one, coarser figures and other resamples.

    It has run again, but nothing is committed; not to be changed. What `dvc repro` printed is in .dvc/tmp/repro.log.
    """

    def change(params: Any) -> None:
        params["models"]["vae"] = OF_VAE
        params["figures"].update(dpi=60)
        params["compare"].update(resamples=100)

    def make(project: Path) -> None:
        shutil.copytree(run_template, project, symlinks=True)
        change_params(project, change)
        (project / ".dvc/tmp/repro.log").write_text(succeed(project, "dvc", "repro"))

    return made_once("extended", make, tmp_path_factory)


@pytest.fixture(scope="session")
def one_missing(run_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that clone after an experiment without the class 3, which generates digits; not to be changed.

    What the stages after `prepare` printed is in .dvc/tmp/repro.log.
    """

    def make(project: Path) -> None:
        shutil.copytree(run_template, project, symlinks=True)
        change_params(project, ask_for_generation)
        change_params(project, lambda p: p["generate"]["classifier"].update(epochs=40))
        succeed(project, "dvc", "exp", "run", "-n", "odd", "-S", "prepare.classes=[0,1,2,4,5,6,7,8,9]", "prepare")
        of_models = [f"{name} {model}" for name in ("train", "evaluate") for model in MODELS]
        result = stages_in_turn(project, *of_models, "anomalies", "generate 0")
        assert result.returncode == 0, result.stderr
        (project / ".dvc/tmp/repro.log").write_text(result.stdout)
        succeed(project, "dvc", "commit", "-f", "generate@0")  # which fails if dvc.yaml lists other files

    return made_once("one-missing", make, tmp_path_factory)


@pytest.fixture
def run_project(run_template: Path, tmp_path: Path) -> Path:
    """A copy of that clone, DVC's cache included, to work in."""
    shutil.copytree(run_template, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


@pytest.fixture
def here(run_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stage:
    """Call a stage in the clone, in this process, where TensorFlow is loaded already: `here("train", "deep")`."""
    from tests import made_up  # which loads much

    monkeypatch.chdir(run_project)

    def call_it(name: str, *arguments: str) -> made_up.Ended:
        module = importlib.import_module(f"stages.{name}")
        # TensorFlow fixes the number of its threads when it first runs, perhaps in another test
        monkeypatch.setattr(module, "use_all_cores", lambda: None, raising=False)
        return made_up.call_main(module.main, monkeypatch, capsys, *arguments)

    return call_it
