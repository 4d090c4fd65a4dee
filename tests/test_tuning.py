"""Tuning: search spaces, trials, and studies that several processes share, with the real Optuna and PostgreSQL."""

import copy
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import optuna
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sklearn.linear_model import RidgeClassifier

from stages.core.autoencoder import build_autoencoder
from stages.core.checkpoint import History
from stages.core.encoder_decoder import Data
from stages.core.errors import ParamsError, StageError
from stages.core.files import Split
from stages.core.linear import Moments
from stages.core.params import parse_params, read_params
from stages.core.tables import csv
from stages.core.training import Training, build_training, resident, train
from stages.tools.tune import command
from stages.tools.tune import study as study_module
from stages.tools.tune.command import add_model, choose_trial, parse_arguments
from stages.tools.tune.objectives import measure
from stages.tools.tune.results import best_trials, importances, trial_table
from stages.tools.tune.schema import Tune, TuneParams
from stages.tools.tune.space import read_space, settings_of
from stages.tools.tune.study import (
    DIRECTIONS,
    build_sampler,
    create_study,
    ended,
    is_complete,
    load_study,
    open_storage,
    suggest,
)
from stages.tools.tune.worker import Compiled, Inputs, run_or_requeue, run_trial, training_of
from tests import made_up
from tests.conftest import ROOT, call, change_params, made_once, refused, start, succeed, wait_until

quick = pytest.mark.quick
Mnist = dict[str, tuple[np.ndarray, np.ndarray]]
PARAMS = read_params(TuneParams, ROOT / "params.yaml")
DEEP = PARAMS.models["deep"]
RATE = {"low": 0.001, "high": 0.1}
WIDTHS = {"layers": {"low": 0, "high": 3}, "units": {"low": 8, "high": 64, "step": 8}, "ratio": [0.5, 1.0]}
STUDY: dict[str, Any] = {
    "model": "deep", "space": {"learning_rate": RATE | {"log": True}}, "objectives": ["mse"],
    "trials": 4, "epochs": 2, "seconds": 0, "sampler": "random", "pruner": "none", "seed": 0,
}  # fmt: skip
TABLE = "plots/studies/deep-trials.csv"
TUNE = (sys.executable, "-m", "stages", "tune", "deep")


def study_of(**changes: Any) -> Tune:
    return Tune.model_validate(STUDY | changes)


# --- search spaces -----------------------------------------------------------------------------


@quick
@pytest.mark.parametrize(
    ("changes", "key", "found", "allowed"),
    [
        ({"space": {"learnrate": RATE}}, "space.learnrate", "", "did you mean learning_rate?"),
        ({"space": {"seed": [0, 1]}}, "space.seed", "", "latent_dim"),
        ({"space": {"learning_rate": 0.1}}, "space.learning_rate", "0.1", "choices, or a range with low and high"),
        ({"space": {"optimizer": RATE}}, "space.optimizer", "'low': 0.001", "a list of choices"),
        ({"space": {"optimizer": ["adam", "adm"]}}, "space.optimizer.1", "'adm'", "'adamw'"),
        ({"space": {"learning_rate": {"low": 0.001}}}, "space.learning_rate.high", "", "required"),
        ({"space": {"learning_rate": RATE | {"logg": True}}}, "space.learning_rate.logg", "true", "not permitted"),
        ({"space": {"learning_rate": RATE | {"high": 200}}}, "space.learning_rate.high", "200", "equal to 100"),
        ({"space": {"learning_rate": RATE | {"low": 0.2}}}, "space.learning_rate", "low=0.2", "low <= high"),
        ({"space": {"noise": {"low": 0.0, "high": 1.0, "step": 1e-310}}}, "space.noise", "1e-310", ""),
        ({"space": {"hidden_units": {"layers": [1]}}}, "space.hidden_units", "[1]", "layers, units, ratio"),
        ({"space": {"hidden_units": WIDTHS | {"ratio": [0.0]}}}, "space.hidden_units.ratio.0", "0.0", "than 0"),
        ({"model": "deeep"}, "model", "deeep", "did you mean deep?"),
        ({"objectives": ["mse", "mse"]}, "objectives", "['mse', 'mse']", "differ"),
        ({"objectives": ["mse", "parameters"], "pruner": "median"}, "pruner", "median", "none"),
        ({"sampler": "grid"}, "space.learning_rate", "no step", "a step, or a list of choices"),
        ({"sampler": "grid", "space": {"batch_size": [32, 64]}}, "grid", "2 combinations", "4 to 100000"),
        ({"sampler": "grid", "space": {"noise": RATE | {"step": 1e-9}}}, "grid", "99000001", "4 to 100000"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_run_is_refused(changes: Any, key: str, found: str, allowed: str) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"tune": {"mine": STUDY | changes}}
    with pytest.raises(ParamsError) as caught:
        parse_params(TuneParams, yaml.safe_dump(content))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("params.yaml: tune.mine.")
    assert key in line
    assert found in line
    assert allowed in line
    assert line.endswith(".")


@quick
def test_values_of_a_space_describe_a_model() -> None:
    space = read_space({"hidden_units": WIDTHS, "noise": {"low": 0, "high": 1}, "loss": ["mse"]})
    assert space == {
        "hidden_units.layers": IntDistribution(0, 3),
        "hidden_units.units": IntDistribution(8, 64, step=8),
        "hidden_units.ratio": CategoricalDistribution([0.5, 1.0]),
        "noise": FloatDistribution(0, 1),
        "loss": CategoricalDistribution(["mse"]),
    }
    values = {"hidden_units.layers": 3, "hidden_units.units": 50, "hidden_units.ratio": 0.5, "loss": "mse"}
    made = settings_of(DEEP, 7, values)
    assert made == DEEP.model_copy(update={"hidden_units": [50, 25, 12], "loss": "mse", "epochs": 7})
    (choice,) = read_space({"hidden_units": [[9, 8]]})["hidden_units"].choices  # type: ignore[union-attr]
    assert settings_of(DEEP, 7, {"epochs": 3, "hidden_units": choice}).hidden_units == [9, 8]


SPACE = {
    "hidden_units": [[], [20], [30, 20]], "noise": {"low": 0.0, "high": 0.4, "step": 0.2},
    "latent_dim": {"low": 2, "high": 3}, "loss": ["mse", "huber"],
}  # fmt: skip


def suggestions(**changes: Any) -> list[dict[str, Any]]:
    """The values that the trials of a study suggest."""
    tune = study_of(**changes)
    study = optuna.create_study(sampler=build_sampler(tune, 0))
    suggested = []

    def objective(trial: optuna.Trial) -> float:
        suggested.append(suggest(trial, tune))
        return float(sum(map(ord, str(suggested[-1]))))

    study.optimize(objective, n_trials=tune.trials)
    return suggested


@quick
def test_a_grid_has_every_combination_once() -> None:
    expected = [*itertools.product(["[]", "[20]", "[30, 20]"], [0.0, 0.2, 0.4], [2, 3], ["mse", "huber"])]
    first, other = (suggestions(sampler="grid", space=SPACE, trials=36, seed=seed) for seed in (0, 1))
    assert sorted(map(str, (tuple(values.values()) for values in first))) == sorted(map(str, expected))
    assert first != other


@quick
@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_suggestions_are_in_the_space_and_depend_on_the_seed_alone(sampler: str) -> None:
    space = SPACE | STUDY["space"]
    first, again, other = (suggestions(sampler=sampler, space=space, seed=seed, trials=30) for seed in (0, 0, 1))
    assert first == again != other
    assert {values["hidden_units"] for values in first} == {"[]", "[20]", "[30, 20]"}
    assert all(0.001 <= values["learning_rate"] <= 0.1 for values in first)
    assert len({str(values) for values in first}) > 25


# --- trials ------------------------------------------------------------------------------------


def inputs_of(mnist: Mnist, tune: Tune, **changes: Any) -> Inputs:
    """400 training and 200 validation images, and a base with these settings changed."""
    images, labels = mnist["train"][0].reshape(600, -1).copy(), mnist["train"][1]
    some, others = Split(images[:400], labels[:400]), Split(images[400:], labels[400:])
    fixed = {"hidden_units": [20], "normalization": "none", "batch_size": 200, "epochs": 2}
    small = DEEP.model_copy(update=fixed | changes)
    measured = Data(some, others, others, (28, 28), Moments(np.zeros(0), np.zeros(0)))
    return Inputs("deep", tune, small, resident(images[:400]), resident(images[400:]), measured, PARAMS.evaluate)


COMPILED: Compiled = {}  # epochs that these tests share


def run_one(study: optuna.Study, inputs: Inputs) -> optuna.trial.FrozenTrial:
    study.optimize(lambda trial: run_trial(trial, inputs, COMPILED), n_trials=1)
    return study.trials[-1]


@quick
@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_objectives_are_those_of_the_validation_images(mnist: Mnist, kl_weight: float) -> None:
    """Compared with Keras, TensorFlow and scikit-learn. The code of a variational model is the mean."""
    inputs = inputs_of(mnist, study_of())
    model = build_autoencoder(28, 28, DEEP.model_copy(update={"hidden_units": [20], "kl_weight": kl_weight}))
    x, labels = mnist["train"][0].reshape(600, -1) / np.float32(255), mnist["train"][1]
    y, codes = model.predict(x, verbose=0), model.get_layer("encoder").predict(x, verbose=0)
    codes = codes[0] if kl_weight else codes
    probe = RidgeClassifier(alpha=PARAMS.evaluate.ridge).fit(codes[:400], labels[:400])
    expected = {
        "mse": keras.losses.MeanSquaredError()(x[400:], y[400:]),
        "bce": keras.losses.BinaryCrossentropy()(x[400:], y[400:]),
        "ssim": np.mean(tf.image.ssim(*(tf.reshape(part[400:], (-1, 28, 28, 1)) for part in (x, y)), 1.0)),
        "probe": probe.score(codes[400:], labels[400:]),
        "parameters": 2 * (784 * 20 + 20 + 2 * 20 + 20 * 16) + 16 + 784 + (20 * 16 + 16 if kl_weight else 0),
        "latent_dim": 16,
    }
    assert set(expected) == set(DIRECTIONS)
    found = measure(model, list(expected), inputs.measured, inputs.evaluate)
    assert found == pytest.approx([float(value) for value in expected.values()], rel=1e-4)


def test_a_shared_epoch_trains_what_a_new_one_trains(mnist: Mnist) -> None:
    """To the byte; and only models of the same shape share one."""
    random = {"kl_weight": 0.5, "dropout": 0.3, "noise": 0.1, "schedule": "cosine"}
    inputs = inputs_of(mnist, study_of(), **random)
    changed = inputs.base.model_copy(update={"learning_rate": 0.02, "warmup_epochs": 1.0, "schedule": "linear"})
    compiled: Compiled = {}

    def result(training: Training) -> tuple[History, list[bytes]]:
        history = train(training, inputs.train, inputs.validation)
        return history, [weights.tobytes() for weights in training.model.get_weights()]

    first = result(training_of(inputs.base, inputs, compiled))
    expected = result(build_training(build_autoencoder(28, 28, changed), changed, 400, (28, 28)))
    assert result(training_of(changed, inputs, compiled)) == expected != first
    assert result(training_of(inputs.base, inputs, compiled)) == first
    assert len(compiled) == 1
    training_of(changed.model_copy(update={"latent_dim": 3}), inputs, compiled)
    assert len(compiled) == 2


@quick
@pytest.mark.parametrize(("objective", "epoch"), [("mse", 1), ("ssim", 1), ("ssim", 2)])
def test_a_trial_that_is_worse_than_others_is_pruned(tmp_path: Path, mnist: Mnist, objective: str, epoch: int) -> None:
    """After an epoch in which it is worse; not after its last one, when it is complete."""
    tune = study_of(objectives=[objective], pruner="median", trials=9)
    study = create_study(f"sqlite:///{tmp_path}/s.db", "deep", tune, {})

    def unbeatable(trial: optuna.Trial) -> float:
        trial.report(-9.0 if DIRECTIONS[objective] == "minimize" else 9.0, epoch)
        return 1.0

    study.optimize(unbeatable, n_trials=6)
    worse = run_one(study, inputs_of(mnist, tune))
    assert worse.state == (TrialState.COMPLETE if epoch == tune.epochs else TrialState.PRUNED)
    assert (worse.user_attrs["epochs_run"], worse.user_attrs["reason"]) == (epoch, "")
    assert list(worse.intermediate_values) == [1]


@quick
@pytest.mark.parametrize(
    ("space", "changes", "reason"),
    [
        ({"learning_rate": [100.0]}, {"hidden_activation": "exponential", "optimizer": "sgd"}, "diverged"),
        ({"warmup_epochs": [2.0]}, {}, "warmup_epochs is 2"),
        ({"batch_size": [401]}, {}, "tune.deep.batch_size is 401, but has to be at most 400"),
    ],
)
def test_a_trial_that_cannot_be_trained_is_pruned_with_a_reason(
    tmp_path: Path, mnist: Mnist, space: Any, changes: Any, reason: str
) -> None:
    tune = study_of(space=space)
    study = create_study(f"sqlite:///{tmp_path}/s.db", "deep", tune, {})
    trial = run_one(study, inputs_of(mnist, tune, **changes))
    assert trial.state == TrialState.PRUNED
    assert reason in trial.user_attrs["reason"]


@quick
def test_an_interrupted_trial_is_queued_again_three_times(tmp_path: Path, mnist: Mnist) -> None:
    """With the settings that it had, until it is given up and a new one takes its place."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    tune = study_of()
    study = create_study(f"sqlite:///{tmp_path}/s.db", "deep", tune, {})
    broken = inputs_of(mnist, tune)._replace(measured=None)  # type: ignore[arg-type]
    for _ in range(4):
        with pytest.raises(AttributeError):
            study.optimize(lambda trial: run_or_requeue(trial, broken, {}), n_trials=1)
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
        signal.signal(number, handler)
    new = run_one(study, inputs_of(mnist, tune))
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 4 + [TrialState.COMPLETE]
    assert len({trial.params["learning_rate"] for trial in study.trials[:4]}) == 1
    assert new.params != study.trials[0].params


HANG = """
import sys, time
from stages.tools.tune import study
study.HEARTBEAT, study.GRACE = 1, 5
found = study.load_study(sys.argv[1], "deep")
found.optimize(lambda trial: (trial.suggest_float("noise", 0, 1), print("running", flush=True), time.sleep(600)))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    return str(request.getfixturevalue("postgres")) if request.param == "postgresql" else f"sqlite:///{tmp_path}/s.db"


def test_any_number_may_open_an_empty_database_and_the_trial_of_a_dead_process_runs_again(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the grace period is over, as a new trial with the same settings; other trials run meanwhile."""
    together = threading.Barrier(8)

    def open_it(_: int) -> optuna.Study:
        together.wait(timeout=30)
        return create_study(storage, "deep", study_of(), {})

    monkeypatch.setattr(study_module, "HEARTBEAT", 1)
    monkeypatch.setattr(study_module, "GRACE", 5)
    with ThreadPoolExecutor(8) as pool:
        study, *others = pool.map(open_it, range(8))
    assert {other._study_id for other in others} == {study._study_id}
    process = start(ROOT, sys.executable, "-c", HANG, storage)
    assert process.stdout
    assert process.stdout.readline() == "running\n"
    process.kill()
    process.communicate()
    objective = lambda trial: trial.suggest_float("noise", 0, 1)  # noqa: E731
    study.optimize(objective, n_trials=1)
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "COMPLETE"]

    def run_again() -> bool:
        study.optimize(objective, n_trials=1)
        return study.trials[0].state == TrialState.FAIL

    wait_until(run_again)
    dead, *rest = study.trials
    assert [trial.params for trial in rest].count(dead.params) == 1


# --- results -----------------------------------------------------------------------------------


def ended_study(tmp_path: Path, *trials: Any, name: str = "deep", **changes: Any) -> optuna.Study:
    """A study with these trials: a list of objectives each; None if it was pruned without any."""
    study = create_study(f"sqlite:///{tmp_path}/s.db", name, study_of(**changes), {"code": "b", "data": "c"})
    values = iter(trials)

    def objective(trial: optuna.Trial) -> list[float]:
        trial.set_user_attr("epochs_run", 2)
        trial.set_user_attr("reason", "")
        trial.set_user_attr("settings", DEEP.model_dump())
        trial.suggest_float("noise", 0, 1)
        found: list[float] | None = next(values)
        if found is None:
            trial.set_user_attr("reason", "no meaning")
            raise optuna.TrialPruned
        return found

    study.optimize(objective, n_trials=len(trials))
    return study


@quick
def test_the_best_trial_and_the_table(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="deep has no complete trial"):
        best_trials(ended_study(tmp_path))
    study = ended_study(tmp_path, [0.5], [0.25], [0.25], None, [0.75])
    assert [trial.number for trial in best_trials(study)] == [1]
    table = trial_table(study)
    assert table[["trial", "state", "mse"]].dropna().to_numpy().tolist() == [
        [0, "complete", 0.5],
        [1, "complete", 0.25],
        [2, "complete", 0.25],
        [4, "complete", 0.75],
    ]
    assert table[["state", "reason"]].to_numpy()[3].tolist() == ["pruned", "no meaning"]
    assert choose_trial(study, None).number == 1
    assert choose_trial(study, 4).number == 4
    with pytest.raises(ParamsError, match="--trial is 3"):
        choose_trial(study, 3)


@quick
def test_the_front_holds_the_trials_that_no_other_betters(tmp_path: Path) -> None:
    pairs = [0.5, 0.5], [0.25, 0.25], [0.5, 0.25], [0.75, 0.75], [0.75, 0.5]
    study = ended_study(tmp_path, *pairs, objectives=["mse", "ssim"])
    assert [trial.number for trial in best_trials(study)] == [1, 0, 3]
    with pytest.raises(ParamsError, match="--apply needs --trial"):
        choose_trial(study, None)


@quick
def test_importances_are_those_of_each_setting_alone() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert importances(study) == {}

    def objective(trial: optuna.Trial) -> float:
        a, b, c = (trial.suggest_float(name, -1, 1) for name in ("shift", "noise", "dropout"))
        return a**3 + b * c

    study.optimize(objective, n_trials=80)
    found = importances(study)
    assert next(iter(found)) == "shift"
    assert sum(found.values()) < 0.9  # the product is in no share


@quick
def test_whole_numbers_are_written_to_the_last_digit(tmp_path: Path) -> None:
    study = ended_study(tmp_path, [12_345_678.0], None, objectives=["parameters"])
    lines = csv(trial_table(study)).splitlines()[1:]
    assert [line.split(b",")[:3] for line in lines] == [[b"0", b"complete", b"12345678"], [b"1", b"pruned", b""]]


@quick
@pytest.mark.parametrize("end", [None, "", "# the end\n"])
def test_a_model_is_added_and_every_other_line_stays(tmp_path: Path, end: str | None) -> None:
    """With the settings that differ from the defaults. end: what follows the models if they come last."""
    shutil.copy(ROOT / "presets.yaml", tmp_path)
    text = (ROOT / "params.yaml").read_text().replace("    model: deep ", "    model: best16 ")
    if end is not None:
        start, stop = text.index("models:"), text.index("tune:")
        text = text[:start] + text[stop:] + text[start:stop].rstrip() + "\n" + end
    path = tmp_path / "params.yaml"
    path.write_text(text)
    changes = {"hidden_units": [7, 5], "learning_rate": 1e-05}
    before, found = read_params(TuneParams, path), DEEP.model_copy(update=changes)
    add_model("found", found.model_dump(), "a comment", path)
    after = read_params(TuneParams, path)
    assert after == before.model_copy(update={"models": before.models | {"found": found}})
    old, new = (list(filter(None, lines.splitlines())) for lines in (text, path.read_text()))
    (place,) = (index for index, line in enumerate(new) if line.startswith("  found:"))
    assert new[place].endswith("# a comment")
    assert new[place + 1 : place + 3] == ["    hidden_units: [7, 5]", "    learning_rate: 1e-05"]
    assert new[:place] + new[place + 3 :] == old


@quick
@pytest.mark.parametrize("name", ["deep", "best16", "two words"])
def test_a_name_that_no_new_model_can_have_changes_nothing(tmp_path: Path, name: str) -> None:
    for file in ("params.yaml", "presets.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    path = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match=name):
        add_model(name, DEEP.model_dump(), "a comment", path)
    with pytest.raises(StageError, match="another version"):
        add_model("found", DEEP.model_dump(exclude={"seed"}), "a comment", path)
    assert path.read_bytes() == (ROOT / "params.yaml").read_bytes()


# --- storages ----------------------------------------------------------------------------------


@quick
def test_a_study_is_complete_when_its_trials_or_seconds_are_used_up(tmp_path: Path) -> None:
    study = ended_study(tmp_path, [0.5], None, [0.4])
    with pytest.raises(KeyboardInterrupt):
        study.optimize(lambda trial: signal.raise_signal(signal.SIGINT), n_trials=1)  # type: ignore[arg-type,return-value]
    assert is_complete(study, study_of(trials=3))
    assert not is_complete(study, study_of(trials=4))  # one was interrupted
    trial = optuna.create_trial(value=1.0)
    trial.datetime_start, trial.datetime_complete = datetime.fromtimestamp(0), datetime.fromtimestamp(50)
    study.add_trial(trial)
    assert is_complete(study, study_of(trials=9, seconds=50))
    assert not is_complete(study, study_of(trials=9, seconds=70))


@quick
def test_a_study_of_other_code_or_data_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    ended_study(tmp_path, [0.5])
    digests = {"code": "b", "data": "c"}
    assert len(create_study(url, "deep", study_of(), digests).trials) == 1
    with pytest.raises(StageError, match=r"the study deep in sqlite:.* has other code and other data; .*--restart"):
        create_study(url, "deep", study_of(), {"code": "x", "data": "y"})
    with pytest.raises(StageError, match="has no study lost"):
        load_study(url, "lost")


@quick
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nosuch://host/name", "nosuch"),
        ("postgresql://me:secret@127.0.0.1:1/x", "postgresql://me:***@127.0.0.1:1/x"),
        ("postgresql://127.0.0.1:1/db?user=me&password=secret", "postgresql://127.0.0.1:1/db "),
    ],
)
def test_a_storage_that_cannot_be_reached_is_named_without_its_password(url: str, shown: str) -> None:
    with pytest.raises(StageError) as caught:
        open_storage(url)
    assert shown in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@quick
def test_a_missing_driver_is_a_sentence_that_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StageError, match=r"postgresql://.* \(.*psycopg.*\); .*`pip install 'psycopg\[binary\]'`\.$"):
        open_storage("postgresql://127.0.0.1:1/x")


# --- whole studies -----------------------------------------------------------------------------


def small_study(project: Path, **changes: Any) -> None:
    """Give the project a small model and a small study of it."""

    def change(params: Any) -> None:
        params["models"]["deep"].update(hidden_units=[8], normalization="none", batch_size=250)
        params["tune"] = {"deep": copy.deepcopy(STUDY) | changes}

    change_params(project, change)


@pytest.fixture(scope="module")
def tuned(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with prepared training and validation images in which a study has ended; not to be changed."""

    def make(project: Path) -> None:
        succeed(template, "git", "clone", "-q", ".", str(project))
        succeed(project, sys.executable, "-m", "stages.prepare")
        for path in project.glob("data/prepared/test_*"):  # no trial may read them
            path.unlink()
        space = STUDY["space"] | {"warmup_epochs": [0.5, 2.0]}
        small_study(project, space=space, trials=9, sampler="tpe", pruner="median")
        succeed(project, *TUNE)

    return made_once("tuned", make, tmp_path_factory)


def table_of(project: Path) -> pd.DataFrame:
    return pd.read_csv(project / TABLE)


@pytest.fixture
def project(tuned: Path, tmp_path: Path) -> Path:
    """A copy of it to work in."""
    shutil.copytree(tuned, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to kill")
def test_a_killed_study_continues(project: Path) -> None:
    """SIGKILL, Ctrl-C, and SIGTERM that reaches only the parent; what has ended stays, and no setting is lost."""
    change_params(project, lambda params: params["tune"]["deep"].update(trials=1000))
    for number, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start(project, *TUNE)
        assert process.stdout
        seen = next(line for line in iter(process.stdout.readline, "") if " of 1000: trial " in line)
        (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
        output = seen + process.communicate(timeout=240)[0]
        assert process.returncode == status, output
        assert "Traceback" not in output
    study = load_study(f"sqlite:///{project}/.dvc/tmp/studies/deep.db", "deep")
    before = {trial.number: trial.values for trial in study.trials if trial.state.is_finished()}
    interrupted = [trial.params for trial in study.trials if trial.state == TrialState.FAIL]
    trials = len(ended(study)) + 5
    change_params(project, lambda params: params["tune"]["deep"].update(trials=trials))
    succeed(project, *TUNE)
    assert len(table_of(project)) == trials
    after = study.trials
    assert {number: after[number].values for number in before} == before
    again = [trial.params.items() for trial in after if trial.state != TrialState.FAIL]
    for params in interrupted:
        assert any(params.items() <= items for items in again)


def test_a_study_ends_with_a_table_whose_best_trial_becomes_a_model_with_its_very_numbers(project: Path) -> None:
    table = table_of(project)
    assert table["trial"].tolist() == list(range(9))
    assert set(table["state"]) == {"complete", "pruned"}
    assert (table["reason"].notna() == (table["warmup_epochs"] == 2)).all()  # of the two epochs
    complete = table[table["state"] == "complete"]
    assert (complete["epochs_run"] == 2).all()
    before = (project / "params.yaml").read_text()
    output = succeed(project, *TUNE, "--apply", "found")
    assert output.startswith("params.yaml has the model found; ")
    assert set(before.splitlines()) < set((project / "params.yaml").read_text().splitlines())
    succeed(project, "dvc", "repro", "evaluate@found")
    measured = json.loads((project / "metrics/found.json").read_text())
    assert measured["mse_validation"] == pytest.approx(complete["mse"].min(), rel=2e-6)


@quick
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["deep", "-j", "0"], "--jobs is 0, but has to be at least 1"),
        (["deep", "--trial", "1"], "--trial needs --apply"),
        (["deep", "--apply", "x", "--restart"], "--apply runs no trial"),
        (["deep", "--apply", "x", "-j", "2"], "--apply runs no trial"),
        (["deep", "--storage", "postgresql://me:secret@h:port/db"], "--storage has to be the URL of a database"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tune", *options])
    with pytest.raises(SystemExit) as ended:
        parse_arguments()
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error
    assert "secret" not in error


@quick
def test_a_study_that_cannot_begin_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(status: int, words: str, *arguments: str) -> None:
        found = made_up.call_main(command.main, monkeypatch, capsys, *arguments)
        refused(found.status, found.err, status, words)

    monkeypatch.chdir(tmp_path)
    for file in ("params.yaml", "presets.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    refuse(2, "params.yaml has no study deeep (did you mean deep?)", "deeep")
    refuse(1, "sqlite:///none.db has no study deep", "deep", "--apply", "x", "--storage", "sqlite:///none.db")
    change_params(tmp_path, lambda params: params["prepare"].update(validation_images=0))
    refuse(2, "params.yaml: prepare.validation_images is 0", "deep")


def test_a_complete_study_runs_no_further_trial_and_one_that_cannot_go_on_is_a_sentence(project: Path) -> None:
    before = (project / TABLE).read_bytes()
    (project / TABLE).unlink()
    assert "trial 0" not in succeed(project, *TUNE).partition("best: ")[0]
    assert (project / TABLE).read_bytes() == before
    change_params(project, lambda params: params["models"]["deep"].update(latent_dim=3))
    result = call(project, *TUNE)
    refused(result.returncode, result.stderr, 1, "has other settings; continue it with those, or start over with --re")
    limit = "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); sys.argv[1:] = ['tune', 'deep', '--restart']; "
    limit += "runpy.run_module('stages', run_name='__main__')"
    result = call(project, sys.executable, "-c", limit)
    refused(result.returncode, result.stderr, 1, "the storage sqlite:///.dvc/tmp/studies/deep.db failed")


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of its own, in a folder of its own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed, so no study with several machines was tested.")
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="postgres"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": folder}
    bin_folder, data = Path(found[-1]), folder / "data"
    initdb: list[str | Path] = [bin_folder / "initdb", "-D", data, "-U", "tuner", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, **user)
    settings = ["-p", str(port), "-h", "127.0.0.1", "-c", "unix_socket_directories=", "-F"]
    server = subprocess.Popen(
        [bin_folder / "postgres", "-D", data, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user
    )
    try:
        ready: list[str | Path] = [bin_folder / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: subprocess.run(ready, capture_output=True).returncode == 0)
        yield f"postgresql://tuner@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def test_processes_on_a_database_come_and_go(project: Path, postgres: str) -> None:
    """Two on one study, as two machines would be; one is killed in the middle of a trial."""
    small_study(project, trials=8, epochs=40)
    lost, kept = (start(project, *TUNE, "--storage", postgres) for _ in range(2))
    assert lost.stdout
    assert next(line for line in iter(lost.stdout.readline, "") if " of 8: trial " in line)
    os.killpg(lost.pid, signal.SIGKILL)
    lost.communicate()
    output, _ = kept.communicate(timeout=240)
    assert kept.returncode == 0, output
    table = table_of(project)
    assert len(table) in (8, 9)
    assert (table["state"] == "complete").all()


def test_two_processes_share_a_study_whose_two_objectives_give_a_front(project: Path) -> None:
    units = {"layers": [1], "units": {"low": 4, "high": 64}, "ratio": [1.0]}
    small_study(project, trials=3, objectives=["mse", "parameters"], space={"hidden_units": units}, sampler="nsga2")
    output = succeed(project, *TUNE, "-j", "2", "--restart")
    table = table_of(project)
    assert len(table) in (3, 4)  # each may begin a last one
    assert table["hidden_units.units"].nunique() == len(table)
    assert (table["parameters"] == [1602 * u + 800 for u in table["hidden_units.units"]]).all()
    assert (project / "plots/studies/deep-front.png").exists()
    best = output.partition("best: trial ")[2].partition(",")[0]
    succeed(project, *TUNE, "--apply", "found", "--trial", best)
