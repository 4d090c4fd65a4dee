"""Read the runs of a model in DVC's experiments."""

import json
import subprocess
import sys
from typing import Any, NamedTuple

from stages.applications.anomalies import METRICS
from stages.core.errors import StageError
from stages.core.files import model_files
from stages.core.params import merged


class Experiment(NamedTuple):
    """An experiment as DVC lists it; until its state is "success", its metrics are those of its base commit."""

    name: str
    state: str  # queued, running, failed or success
    data: dict[str, Any]  # params, metrics, and hashes of the stages' deps and outs, by file


class Run(NamedTuple):
    """One model in one experiment; lists are Texts."""

    settings: dict[str, Any]  # everything that may affect its metrics
    results: dict[str, Any]  # its metrics, and the number of its hidden layers


class Text(str):
    """A list of params.yaml as text, such as "0 1 2"."""


def read_experiments(all_commits: bool) -> list[Experiment]:
    """The experiments of the current commit, or of all commits. Raises StageError if DVC fails."""
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", *(["--all-commits"] if all_commits else [])]
    result = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 (no shell, no user input)
    if result.returncode:
        reason = " ".join(result.stderr.split())
        raise StageError(f"`dvc exp show` failed: {reason}; it may fail while experiments run, so try again.")
    found = []
    for baseline in json.loads(result.stdout):
        for experiment in baseline.get("experiments") or []:
            state = (experiment["executor"] or {}).get("state", "success")  # a pulled experiment has no executor
            last = experiment["revs"][0]
            if last.get("name"):
                found.append(Experiment(last["name"], state, last.get("data") or {}))
    return found


def in_series(experiments: list[Experiment], prefix: str) -> list[Experiment]:
    """The experiments named `prefix` or `prefix-...`."""
    return [e for e in experiments if e.name == prefix or e.name.startswith(f"{prefix}-")]


def shortcoming(experiment: Experiment, model: str) -> str:
    """Why the metrics of a model are not a result of this experiment; empty if they are."""
    if experiment.state != "success":
        return experiment.state
    if not experiment.data:
        return "unreadable"  # DVC could not load its commit
    path = str(model_files(model).history)  # only evaluate reads it
    evaluated, trained = (experiment.data.get(kind, {}).get(path, {}).get("hash") for kind in ("deps", "outs"))
    return "" if evaluated == trained else "trained, but not evaluated"


def model_run(experiment: Experiment, model: str) -> Run | None:
    """The run of a model in an experiment; None if the experiment has no result or no such model."""
    if shortcoming(experiment, model):
        return None
    params = experiment.data["params"].get("params.yaml", {}).get("data", {})
    metrics = experiment.data["metrics"].get(str(model_files(model).metrics), {}).get("data")
    if model not in params.get("models", {}) or not metrics:
        return None
    settings = dict(merged(params.get("defaults", {}), params["models"][model]))
    layers = len(settings["hidden_units"])
    settings |= {f"{part}.{key}": v for part in ("prepare", "evaluate") for key, v in params.get(part, {}).items()}
    results = {"hidden_layers": layers, **metrics, **aurocs(experiment, model, settings.get("latent_dim"))}
    plain = {k: Text(" ".join(map(str, v)) or "none") if isinstance(v, list) else v for k, v in settings.items()}
    return Run(plain, results)


def aurocs(experiment: Experiment, model: str, latent_dim: int | None) -> dict[str, float]:
    """The `auroc` of a model and the `auroc_pca` of its latent size; empty where training lacked no class."""
    found = experiment.data["metrics"].get(str(METRICS), {}).get("data", {}).get("auroc", {})
    by_name = {name.removesuffix(" (overcomplete)"): value for name, value in found.items()}
    names = {"auroc": model, "auroc_pca": f"PCA ({latent_dim})"}
    return {key: by_name[name] for key, name in names.items() if name in by_name}


def collect(experiments: list[Experiment], prefix: str, model: str) -> list[Run]:
    """The distinct runs of the experiments named `prefix` or `prefix-...`.

    Raises StageError if there is none, or if several experiments contain the same run.
    """
    runs = [found for experiment in in_series(experiments, prefix) if (found := model_run(experiment, model))]
    if not runs:
        known = ", ".join(sorted(f"{e.name} ({e.state})" for e in experiments)) or "none"
        raise StageError(
            f"no finished experiment is named {prefix} or {prefix}-... and has metrics of the model {model}; "
            f"experiments here: {known}. --all-commits includes those of other commits."
        )
    distinct = [one for position, one in enumerate(runs) if one not in runs[:position]]
    if len(runs) > 1 == len(distinct):
        raise StageError(f"the {len(runs)} experiments {prefix}-... do not differ in the model {model}.")
    return distinct
