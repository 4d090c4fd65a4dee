"""Tuning: spaces, trials, and studies that several processes share, with the real Optuna and a real PostgreSQL."""

import copy
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import optuna
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from optuna.trial import TrialState
from sklearn.linear_model import RidgeClassifier
from stages.core.images import resident

from stages.core.autoencoder import build_autoencoder
from stages.core.checkpoint import History
from stages.core.errors import ParamsError, StageError
from stages.core.files import Split
from stages.core.params import read_params
from stages.core.schema import Model
from stages.core.tables import csv
from stages.core.training import Training, build_training, train
from stages.params.schema import Tune, TuneParams
from stages.params.space import Choices, Range, Space, check_studies, grid_of, read_space, settings_of
from stages.params.writing import add_model, check_new_name
from stages.tools.tune import choose, settings_tried
from stages.tuning import storage as storage_module
from stages.tuning import worker
from stages.tuning.objectives import Measured, measure
from stages.tuning.report import write_report
from stages.tuning.results import best_trials, importances, trial_table
from stages.tuning.sampling import DIRECTIONS, build_pruner, draw, suggest
from stages.tuning.storage import Liveness, default_storage, open_storage, open_study, printable, whoami
from stages.tuning.worker import Data, training_of
from tests.conftest import ROOT, call, change_params, environment, made_once, start, succeed, wait_until

quick = pytest.mark.quick
PARAMS = read_params(TuneParams, ROOT / "params.yaml")
DEEP = PARAMS.models["deep"]
MODELS = ", ".join(PARAMS.models | PARAMS.presets)
STUDY: dict[str, Any] = {
    "model": "deep", "space": {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}}, "objectives": ["mse"],
    "trials": 4, "epochs": 2, "seconds": 0, "sampler": "random", "pruner": "none", "seed": 0,
}  # fmt: skip
TRIALS = "plots/studies/deep-trials.csv"


def study_of(**changes: Any) -> Tune:
    return Tune.model_validate(STUDY | changes)


# --- spaces ------------------------------------------------------------------------------------


def problems(tmp_path: Path, **changes: Any) -> list[str]:
    """What is wrong with params.yaml if its study `deep` is changed."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["tune"] = {"deep": copy.deepcopy(STUDY) | changes}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ParamsError) as caught:
        check_studies(read_params(TuneParams, path), ["deep"])
    return str(caught.value).replace(f"{path}: tune.deep.", "").replace("params.yaml: tune.deep.", "").splitlines()


RATE = {"low": 0.001, "high": 0.1}
WIDTHS = {"layers": {"low": 0, "high": 3}, "units": {"low": 8, "high": 64, "step": 8}, "ratio": [0.5, 1.0]}


@quick
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"space": {}}, "space is {}, but has to be a mapping from names to settings."),
        ({"space": {"learnrate": RATE}}, "space.learnrate is not a key of a model (did you mean learning_rate?)."),
        ({"space": {"learning_rate": 0.1}},
         "space.learning_rate is 0.1, but has to be a list of choices or a range with low and high."),
        ({"space": {"optimizer": RATE}},
         "space.optimizer is {'low': 0.001, 'high': 0.1}, but has to be a list of choices."),
        ({"space": {"optimizer": ["adam", "adm"]}},
         "space.optimizer has 'adm', but has to be one of adadelta, adagrad, adam, adamax, adamw, ftrl, lion, muon, "
         "nadam, rmsprop, sgd."),
        ({"space": {"optimizer": []}}, "space.optimizer is [], but has to hold at least one choice, each once."),
        ({"space": {"batch_size": [64, 64]}},
         "space.batch_size is [64, 64], but has to hold at least one choice, each once."),
        ({"space": {"learning_rate": {"low": 0.001}}}, "space.learning_rate.high is missing."),
        ({"space": {"learning_rate": RATE | {"logg": True}}},
         "space.learning_rate.logg is not a known key; a range has low, high and maybe log or step."),
        ({"space": {"learning_rate": RATE | {"high": 200}}},
         "space.learning_rate.high is 200, but has to be a number above 0 and at most 100."),
        ({"space": {"batch_size": {"low": 1.5, "high": 3}}},
         "space.batch_size.low is 1.5, but has to be a whole number from 1 to 1048576."),
        ({"space": {"learning_rate": RATE | {"low": 0.1}}},
         "space.learning_rate.high is 0.1, but has to be above low, 0.1."),
        ({"space": {"noise": {"low": 0, "high": 1, "log": True}}},
         "space.noise.low is 0, but has to be above 0 where log is true."),
        ({"space": {"noise": {"low": 0, "high": 1, "step": 0.3}}},
         "space.noise.step is 0.3, but does not lead from 0 to 1."),
        ({"space": {"noise": {"low": 0.5, "high": 1, "step": 0.1, "log": True}}},
         "space.noise.step is 0.1, but log is true; a range has only one of them."),
        ({"space": {"batch_size": {"low": 1, "high": 9, "step": 0.5}}},
         "space.batch_size.step is 0.5, but has to be a whole number up to high - low."),
        ({"space": {"seed": [0, 1]}}, "space.seed must not vary: chance is nothing to choose by."),
        ({"space": {"hidden_units": {"layers": [1]}}},
         "space.hidden_units is {'layers': [1]}, but has to be a list or have layers, units, ratio."),
        ({"space": {"hidden_units": WIDTHS | {"ratio": [0.0]}}},
         "space.hidden_units.ratio has 0.0, but has to be a number above 0 and at most 16."),
        ({"space": {"warmup_epochs": [0.0, 2.0]}},
         "space.warmup_epochs can be 2.0, which never makes sense here: warmup_epochs is 2, but has to be below "
         "epochs, 2."),
        ({"space": {"epochs": {"low": 1, "high": 3}}}, "epochs is 2, but the largest in the space is 3."),
        ({"model": "deeep"}, f"model is 'deeep', but has to be one of {MODELS} (did you mean deep?)."),
        ({"objectives": ["mse", "mse"]}, "objectives has mse twice."),
        ({"objectives": ["mse", "parameters"], "pruner": "median"},
         "pruner is median, but has to be none: two objectives cut no trial short."),
        ({"sampler": "grid", "space": {"learning_rate": {"low": 0.01, "high": 0.1}}},
         "space.learning_rate is a range without a step, but sampler is grid; it needs one, or a list."),
        ({"sampler": "grid"},
         "space.learning_rate is logarithmic, but sampler is grid; it needs a list of choices."),
        ({"sampler": "grid", "space": {"batch_size": [32, 64]}}, "trials is 4, but the grid has 2 combinations."),
        ({"sampler": "grid", "space": {"noise": {"low": 0.0, "high": 1.0, "step": 1e-9}, "shift": [0, 1]}},
         "space has a grid of more than 100000 combinations, which are the most."),
        ({"space": {"noise": {"low": 0.0, "high": 1.0, "step": 1e-310}}},
         "space.noise.step is 1e-310, but does not lead from 0.0 to 1.0."),
        ({"objectives": ["mse", "ssim", "bce"]},
         "objectives is ['mse', 'ssim', 'bce'], but has to be a list of 1 to 2 items, each one of mse, bce, ssim, "
         "probe, parameters, latent_dim."),
    ],
)  # fmt: skip
def test_a_study_that_makes_no_sense_is_a_sentence(tmp_path: Path, changes: Any, sentence: str) -> None:
    assert problems(tmp_path, **changes) == [sentence]


@quick
def test_a_study_keeps_no_model_from_being_trained(tmp_path: Path) -> None:
    """What a study would refuse is for whoever tunes; a block that it is based on may change, or go."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["models"]["deep"]["warmup_epochs"] = 9
    content["tune"] = {"deep": STUDY, "lost": STUDY | {"model": "lost"}}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    params = read_params(TuneParams, path)
    with pytest.raises(ParamsError) as caught:
        check_studies(params, params.tune)
    assert [line[:30] for line in str(caught.value).splitlines()] == [
        "params.yaml: tune.deep.space.l",
        "params.yaml: tune.lost.model i",
    ]


@quick
def test_the_studies_of_this_project_make_sense() -> None:
    check_studies(PARAMS, PARAMS.tune)


@quick
def test_values_of_a_space_describe_a_model() -> None:
    space = read_space(study_of(space={"hidden_units": WIDTHS, "noise": RATE, "loss": ["mse"]}))
    assert space == {
        "hidden_units.layers": Range(0, 3, False, None, True),
        "hidden_units.units": Range(8, 64, False, 8, True),
        "hidden_units.ratio": Choices([0.5, 1.0]),
        "noise": Range(0.001, 0.1, False, None, False),
        "loss": Choices(["mse"]),
    }
    values = {"hidden_units.layers": 3, "hidden_units.units": 50, "hidden_units.ratio": 0.5, "loss": "mse"}
    made = settings_of(DEEP, 7, values)
    assert made == DEEP.model_copy(update={"hidden_units": [50, 25, 12], "loss": "mse", "epochs": 7})
    assert settings_of(DEEP, 7, {"epochs": 3, "hidden_units": [9, 8]}).epochs == 3


def draw_many(tune: Tune, count: int) -> list[dict[str, Any]]:
    study = optuna.create_study()
    drawn = []
    for _ in range(count):
        trial = study.ask()
        drawn.append(draw(trial, tune))
        study.tell(trial, float(sum(map(ord, str(drawn[-1])))))
    return drawn


SPACE = {
    "hidden_units": [[], [20], [30, 20]], "noise": {"low": 0.0, "high": 0.4, "step": 0.2},
    "latent_dim": {"low": 2, "high": 3}, "loss": ["mse", "huber"],
}  # fmt: skip


@quick
def test_a_grid_has_every_combination_once() -> None:
    tune = study_of(sampler="grid", space=SPACE, trials=36)
    expected = itertools.product([[], [20], [30, 20]], [0.0, 0.2, 0.4], [2, 3], ["mse", "huber"])
    drawn = [tuple(values.values()) for values in draw_many(tune, 36)]
    assert sorted(map(str, drawn)) == sorted(map(str, expected))
    seeded = study_of(sampler="grid", space=SPACE, trials=36, seed=1)
    other = [tuple(values.values()) for values in draw_many(seeded, 36)]
    assert drawn != other


@quick
def test_a_grid_ends_where_its_range_does() -> None:
    """Not where rounding leaves it: 0.1 + 2 · 0.1 is above 0.3."""
    space: Space = {"noise": Range(0.1, 0.3, False, 0.1, False), "shift": Range(0, 2, False, None, True)}
    assert grid_of(space) == {"noise": [0.1, 0.2, 0.3], "shift": [0, 1, 2]}


@quick
@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_draws_are_in_the_space_and_depend_on_the_seed_alone(sampler: str) -> None:
    space = SPACE | {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    first, again, other = (draw_many(study_of(sampler=sampler, space=space, seed=seed), 30) for seed in (0, 0, 1))
    assert first == again != other
    assert {str(values["hidden_units"]) for values in first} == {"[]", "[20]", "[30, 20]"}
    assert all(0.001 <= values["learning_rate"] <= 0.1 for values in first)
    below = sum(values["learning_rate"] < 0.01 for values in draw_many(study_of(space=space), 200))
    assert 70 < below < 130  # half of them, since the range is logarithmic
    assert len({str(values) for values in first}) > 25


@quick
@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
@pytest.mark.parametrize("number", [2, 14])  # TPE leaves the first ten to chance
def test_a_process_killed_while_it_draws_changes_nothing(
    sampler: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one finds the trial with some values, and draws the others as the first would have."""
    tune, results = study_of(sampler=sampler, space=SPACE, trials=36), []
    for stop in (None, 0, 1, 3):
        study = optuna.create_study()
        for earlier in range(number):
            trial = study.ask()
            study.tell(trial, float(len(str(draw(trial, tune)))) + earlier)
        trial = study.ask()
        if stop is not None:
            left = iter([suggest] * stop)
            with monkeypatch.context() as killed:
                killed.setattr("stages.tuning.sampling.suggest", lambda *arguments: next(left)(*arguments))  # noqa: B023
                with pytest.raises(StopIteration):
                    draw(trial, tune)
            trial = optuna.trial.Trial(study, trial._trial_id)
        results.append(draw(trial, tune))
    assert results == [results[0]] * 4


# --- objectives --------------------------------------------------------------------------------


@quick
def test_objectives_are_those_of_the_validation_images(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Against Keras, TensorFlow and scikit-learn."""
    images, labels = mnist["train"][0].reshape(600, -1), mnist["train"][1]
    measured = Measured(Split(images[:400], labels[:400]), Split(images[400:], labels[400:]), (28, 28), PARAMS.evaluate)
    model = build_autoencoder(28, 28, DEEP.model_copy(update={"hidden_units": [20]}))
    x = images / np.float32(255)
    y, codes = model.predict(x, verbose=0), model.get_layer("encoder").predict(x, verbose=0)
    probe = RidgeClassifier(alpha=PARAMS.evaluate.ridge).fit(codes[:400], labels[:400])
    similarity = tf.image.ssim(*(tf.reshape(part[400:], (-1, 28, 28, 1)) for part in (x, y)), 1.0)
    expected = {
        "mse": keras.losses.MeanSquaredError()(x[400:], y[400:]),
        "bce": keras.losses.BinaryCrossentropy()(x[400:], y[400:]),
        "ssim": np.mean(similarity),
        "probe": probe.score(codes[400:], labels[400:]),
        "parameters": 784 * 20 + 20 + 2 * 20 + 20 * 16 + 16 + 16 * 20 + 20 + 2 * 20 + 20 * 784 + 784,
        "latent_dim": 16,
    }
    assert measure(model, list(expected), measured) == pytest.approx([float(v) for v in expected.values()], rel=1e-4)


# --- trials ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "unshaped"),
    [
        ({"normalization": "layer", "batch_size": 250}, {"schedule": "cosine", "seed": 3}),
        ({"dropout": 0.3, "noise": 0.1, "optimizer": "nadam", "schedule": "cosine"}, {"schedule": "linear"}),
        ({"kl_weight": 0.5}, {"schedule": "cosine"}),
    ],
)
def test_a_shared_epoch_trains_what_a_new_one_trains(
    mnist: dict[str, tuple[np.ndarray, np.ndarray]], changes: dict[str, Any], unshaped: dict[str, Any]
) -> None:
    """To the byte; and it is shared where only the learning rate, its schedule or the seed of the weights differs."""
    images = mnist["train"][0].reshape(600, -1).copy()
    empty = Split(images, mnist["train"][1])
    data = Data(resident(images), resident(images[:100]), Measured(empty, empty, (28, 28), PARAMS.evaluate))
    plain = {"hidden_units": [20], "normalization": "none", "epochs": 2, "batch_size": 300}
    small = DEEP.model_copy(update=plain | changes)
    changed = small.model_copy(update={"learning_rate": 0.02, "warmup_epochs": 1.0} | unshaped)

    def result(training: Training, one: Model) -> tuple[History, list[bytes]]:
        history = train("x", training, one, data.train, data.validation, None)
        return history, [weights.tobytes() for weights in training.model.get_weights()]

    first, second = (
        result(build_training(build_autoencoder(28, 28, one), one, 600, (28, 28)), one) for one in (small, changed)
    )
    compiled: dict[str, Any] = {}
    for one, expected in ((small, first), (changed, second), (small, first)):
        assert result(training_of(one, data, compiled), one) == expected
    assert len(compiled) == 1
    training_of(small.model_copy(update={"latent_dim": 3}), data, compiled)
    assert len(compiled) == 2


def complete(study: optuna.Study, values: list[float], *, pruned: bool = False, **params: Any) -> None:
    trial = study.ask({name: optuna.distributions.FloatDistribution(0, 1) for name in params})
    for name, value in (("epochs_run", 2), ("seconds", 1.26), ("reason", "")):
        trial.set_user_attr(name, value)
    if pruned:
        trial.report(values[0], 2)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, values)


@quick
def test_the_best_trial_and_the_table() -> None:
    study = optuna.create_study()
    with pytest.raises(StageError, match="has no complete trial yet"):
        best_trials(study)
    for value in (0.5, 0.25, 0.25, 0.75):
        complete(study, [value], noise=0.5)
    complete(study, [0.125], pruned=True, noise=0.5)
    assert [trial.number for trial in best_trials(study)] == [1]
    table = trial_table(study, study_of())
    assert table[["trial", "state", "mse", "epochs_run", "seconds"]].to_numpy().tolist() == [
        [0, "complete", 0.5, 2, 1.3],
        [1, "complete", 0.25, 2, 1.3],
        [2, "complete", 0.25, 2, 1.3],
        [3, "complete", 0.75, 2, 1.3],
        [4, "pruned", 0.125, 2, 1.3],
    ]


@quick
def test_the_front_holds_the_trials_that_no_other_betters() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    for pair in ([0.5, 0.5], [0.25, 0.25], [0.5, 0.25], [0.75, 0.75], [0.75, 0.5]):
        complete(study, pair)
    assert [trial.number for trial in best_trials(study)] == [1, 0, 3]


@quick
def test_importances_find_the_setting_that_decides() -> None:
    study, random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), np.random.default_rng(0)
    assert importances(study) == {}
    for _ in range(40):
        trial = study.ask({name: optuna.distributions.FloatDistribution(0, 1) for name in ("noise", "dropout")})
        study.tell(trial, trial.params["dropout"] ** 2 + 0.01 * random.normal())
    found = importances(study)
    assert list(found) == ["dropout", "noise"]
    assert found["dropout"].mean > 0.9
    assert 0 < found["dropout"].std < 0.1


@quick
def test_what_settings_explain_together_is_nobodys_share() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        trial = study.ask({name: optuna.distributions.FloatDistribution(-1, 1) for name in ("noise", "dropout")})
        study.tell(trial, trial.params["noise"] * trial.params["dropout"])
    assert sum(found.mean for found in importances(study).values()) < 0.6


@quick
def test_parameters_are_counted_to_the_last_one() -> None:
    study, tune = optuna.create_study(), study_of(objectives=["parameters"])
    complete(study, [12_345_678.0])
    nothing = study.ask()  # pruned before it had a value
    for name in ("epochs_run", "seconds"):
        nothing.set_user_attr(name, 0)
    nothing.set_user_attr("reason", "no meaning")
    study.tell(nothing, state=TrialState.PRUNED)
    assert csv(trial_table(study, tune)).splitlines()[1:] == [
        b"0,complete,12345678,2,1.3,",
        b"1,pruned,,0,0,no meaning",
    ]


# --- params.yaml -------------------------------------------------------------------------------


@quick
@settings(deadline=None)
@given(st.sampled_from(["", "\n", "# the end\n", "\n\n# the end"]), st.booleans(), st.booleans())
def test_a_model_is_added_and_every_other_line_stays(end: str, last: bool, newline: bool) -> None:
    text = (ROOT / "params.yaml").read_text()
    if last:  # the models stand at the end of the file
        start, stop = text.index("models:"), text.index("presets:")
        text = text[:start] + text[stop:] + text[start:stop].rstrip() + ("\n" + end if newline or end else "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(text)
        before, found = (
            read_params(TuneParams, path),
            DEEP.model_copy(update={"hidden_units": [7, 5], "learning_rate": 1e-05}),
        )
        add_model("found", found, "a comment", path)
        after = read_params(TuneParams, path)
        assert after.models == before.models | {"found": found}
        assert list(after.models)[-1] == "found"
        assert after.model_copy(update={"models": before.models}) == before
        old, new = text.splitlines(), path.read_text().splitlines()
        place = new.index("  found:  # a comment")
        assert new[:place] + new[place + 1 + len(Model.model_fields) :] == old


@quick
def test_a_name_that_no_model_can_have() -> None:
    for name, sentence in {
        "deep": "params.yaml has a model called deep already; --apply needs another name.",
        "Deep": "--apply is 'Deep', but a name starts with a lower-case letter, has at most 40 of a-z, 0-9, _ and -, "
        "and is not 'pca', which names the baseline.",
    }.items():
        with pytest.raises(ParamsError) as caught:
            check_new_name(PARAMS, name)
        assert str(caught.value) == sentence


@quick
def test_a_file_without_a_place_for_a_block_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load((ROOT / "params.yaml").read_text()), default_flow_style=True))
    before = path.read_text()
    with pytest.raises(ParamsError, match="has no place for a new block"):
        add_model("found", DEEP, "a comment", path)
    assert path.read_text() == before


# --- storages ----------------------------------------------------------------------------------


@quick
def test_a_trial_without_a_process_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()

    def trial(*worker: Any, beat: str = "1") -> Any:
        asked = study.ask()
        asked.set_user_attr("worker", list(worker))
        asked.set_user_attr("beat", beat)
        return study.trials[asked.number]

    host, process, began = whoami()
    assert host.startswith(socket.gethostname())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    wait_until(lambda: os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    liveness = Liveness()
    assert not liveness.is_dead(trial(host, process, began))
    assert liveness.is_dead(trial(host, process, began - 100))  # another process had this number
    assert liveness.is_dead(trial(host, ended.pid, began))  # a zombie
    ended.wait()
    assert liveness.is_dead(trial(host, ended.pid, began))

    now = [1000.0]
    monkeypatch.setattr("stages.tuning.storage.time.monotonic", lambda: now[0])
    far = trial("elsewhere", 1, 0.0)
    assert not liveness.is_dead(far)
    now[0] += storage_module.PATIENCE - 1
    assert not liveness.is_dead(far)
    now[0] += 2
    assert liveness.is_dead(far)
    study._storage.set_trial_user_attr(far._trial_id, "worker", ["a third machine", 1, 0.0])
    assert not liveness.is_dead(study.trials[far.number])  # it has put the trial back, and taken it
    now[0] += storage_module.PATIENCE + 1
    study._storage.set_trial_user_attr(far._trial_id, "beat", "2")
    assert not liveness.is_dead(study.trials[far.number])
    number = study.ask().number
    unknown = study.trials[number]
    assert not liveness.is_dead(unknown)
    now[0] += storage_module.GRACE + 1
    assert liveness.is_dead(unknown)


@quick
def test_only_a_trial_that_is_still_the_dead_ones_is_put_back() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("worker", ["a", 1, 0.0])
    judged = study.trials[0]
    trial.set_user_attr("worker", ["b", 2, 0.0])
    storage_module.put_back(study._storage, judged)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    storage_module.put_back(study._storage, study.trials[0])
    assert [trial.state for trial in study.trials] == [TrialState.WAITING]


# --- the loop over trials ----------------------------------------------------------------------


def run_loop(monkeypatch: pytest.MonkeyPatch, study: optuna.Study, tune: Tune, stop_at: int | None = None) -> list[int]:
    """The numbers of the trials that a process runs, each in no time; it dies of the trial `stop_at`."""
    ran = []

    def run_trial(trial: optuna.Trial, *arguments: Any) -> bool:
        ran.append(trial.number)
        if trial.number == stop_at:
            raise MemoryError
        return worker.end(trial, study, [float(trial.number)], {"epochs_run": 1, "seconds": 10.0, "reason": ""})

    monkeypatch.setattr(worker, "run_trial", run_trial)
    with pytest.raises(MemoryError) if stop_at is not None else nullcontext():
        while not worker.run_trials(study, study._storage, tune, DEEP, None):  # type: ignore[arg-type]
            ran.append(-1)
    return ran


@quick
def test_the_budget_counts_for_the_study_and_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    assert run_loop(monkeypatch, study, study_of(trials=3)) == [0, 1, 2]
    assert run_loop(monkeypatch, study, study_of(trials=3)) == []
    assert run_loop(monkeypatch, study, study_of(trials=5)) == [3, 4]
    assert run_loop(monkeypatch, study, study_of(trials=9), stop_at=6) == [5, 6]
    assert run_loop(monkeypatch, study, study_of(trials=6)) == []  # the interrupted trial is beyond this budget
    assert run_loop(monkeypatch, study, study_of(trials=8)) == [6, 7]
    assert run_loop(monkeypatch, study, study_of(trials=20, seconds=100)) == [8, 9]
    assert [trial.number for trial in study.trials if trial.state != TrialState.COMPLETE] == []


@quick
def test_a_process_runs_only_so_many_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run_loop(monkeypatch, optuna.create_study(), study_of(trials=60))
    assert ran == [*range(25), -1, *range(25, 50), -1, *range(50, 60)]


@quick
def test_a_trial_that_processes_die_of_is_given_up(
    monkeypatch: pytest.MonkeyPatch, mnist: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    study, real = optuna.create_study(), worker.run_trial
    for _ in range(worker.ATTEMPTS):
        assert run_loop(monkeypatch, study, study_of(trials=2), stop_at=0) == [0]
    monkeypatch.setattr(worker, "run_trial", real)
    (trial,) = itertools.islice(worker.trials_to_run(study, study._storage, study_of()), 1)
    assert trial.number == 0
    assert worker.run_trial(trial, study, study_of(), DEEP, None, {})  # type: ignore[arg-type]
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].user_attrs["reason"] == "3 processes died of it"


@quick
def test_a_trial_that_another_process_has_ended_is_left_alone() -> None:
    study = optuna.create_study()
    told = {"epochs_run": 1, "seconds": 1.0, "reason": ""}
    for state in (TrialState.COMPLETE, TrialState.WAITING):
        trial = study.ask()
        study._storage.set_trial_state_values(trial._trial_id, state, [1.0])
        assert not worker.end(trial, study, [2.0], told)
        assert study.trials[trial.number].state == state


@quick
@pytest.mark.parametrize(("objective", "epochs", "expected"), [("mse", 3, [1]), ("ssim", 3, [1]), ("ssim", 1, [])])
def test_a_trial_that_is_worse_than_others_is_cut_short(
    mnist: dict[str, tuple[np.ndarray, np.ndarray]], objective: str, epochs: int, expected: list[int]
) -> None:
    """Those that are worse than others after an epoch; never after the last, since they have their value by then."""
    split = Split(mnist["train"][0].reshape(600, -1).copy(), mnist["train"][1])
    data = Data(resident(split.images), resident(split.images), Measured(split, split, (28, 28), PARAMS.evaluate))
    base = DEEP.model_copy(
        update={"hidden_units": [8], "batch_size": 300, "schedule": "constant", "warmup_epochs": 0.0}
    )
    tune = study_of(space={"learning_rate": [0.01]}, epochs=epochs, objectives=[objective], pruner="median", trials=9)
    better = DIRECTIONS[objective]
    study = optuna.create_study(direction=better, pruner=build_pruner(tune))
    for _ in range(6):  # that are better than any can be after an epoch
        trial = study.ask()
        trial.report(-9.0 if better == "minimize" else 9.0, 1)
        study.tell(trial, 1.0)

    def run(base: Model) -> optuna.trial.FrozenTrial:
        trial = study.ask()
        trial.set_user_attr("attempts", 1)
        assert worker.run_trial(trial, study, tune, base, data, {})
        return study.trials[-1]

    worse = run(base)
    assert worse.state == (TrialState.PRUNED if epochs > 1 else TrialState.COMPLETE)
    assert (worse.user_attrs["epochs_run"], worse.user_attrs["reason"]) == (1, "")
    assert list(worse.intermediate_values) == expected


@quick
def test_a_trial_that_diverges_is_pruned(mnist: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    split = Split(mnist["train"][0].reshape(600, -1).copy(), mnist["train"][1])
    data = Data(resident(split.images), resident(split.images), Measured(split, split, (28, 28), PARAMS.evaluate))
    changes: dict[str, Any] = {"hidden_units": [8], "normalization": "none", "batch_size": 60}
    changes |= {"hidden_activation": "exponential", "optimizer": "sgd"}
    study, tune = optuna.create_study(), study_of(space={"learning_rate": [100.0]})
    trial = study.ask()
    trial.set_user_attr("attempts", 1)
    assert worker.run_trial(trial, study, tune, DEEP.model_copy(update=changes), data, {})
    assert study.trials[0].state == TrialState.PRUNED
    assert re.fullmatch(
        r"trial 0: the loss became nan \(validation nan\) in epoch 1 of 2 at learning_rate 100",
        study.trials[0].user_attrs["reason"],
    )


@quick
def test_pictures_of_a_study_have_the_resolution_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/s.db"
    study = open_study(open_storage(url), url, "deep", study_of(), {"settings": "a"})
    for value in (0.5, 0.4, 0.3):
        complete(study, [value], learning_rate=value)
    widths = []
    for dpi in (50, 100):
        assert "plots/studies/deep-slices.png" in write_report(study, study_of(), dpi)
        widths.append(imread("plots/studies/deep-slices.png").shape[1])
    assert widths[1] == pytest.approx(2 * widths[0], abs=4)


@quick
def test_a_trial_that_was_best_in_another_objective_is_not_chosen(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = open_study(open_storage(url), url, "deep", study_of(), {"settings": "a"})
    complete(study, [0.5])
    complete(study, [0.4])
    assert choose(study, study_of(), None).number == 1
    with pytest.raises(
        StageError, match=r"the study deep was begun with other objectives than params\.yaml has; change"
    ):
        choose(study, study_of(objectives=["ssim"]), None)


@quick
def test_a_study_of_other_code_or_data_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    storage, digests = open_storage(url), {"settings": "a", "code": "b", "data": "c"}
    study = open_study(storage, url, "deep", study_of(), digests)
    complete(study, [0.5])
    assert len(open_study(storage, url, "deep", study_of(), digests).trials) == 1
    with pytest.raises(StageError) as caught:
        open_study(storage, url, "deep", study_of(), digests | {"code": "x", "data": "y"})
    assert str(caught.value) == (
        f"the study deep in {url} was begun with other code and other data; continue it with those, or begin it anew "
        "with --restart, which deletes its trials."
    )
    assert open_study(storage, url, "deep", study_of(), digests | {"code": "x"}, restart=True).trials == []


@quick
@pytest.mark.parametrize(
    ("url", "kind", "sentence"),
    [
        ("nosuch://host/name", ParamsError, "--storage is nosuch://host/name, but has to be a database such as"),
        ("postgresql://me:secret@127.0.0.1:1/x", StageError, "the storage postgresql://me:***@127.0.0.1:1/x failed: "),
        ("mysql://me:secret@127.0.0.1:1/x", StageError,
         "the storage mysql://me:***@127.0.0.1:1/x needs a package that is not installed"),
        ("sqlite:////proc/x/s.db", OSError, "/proc/x"),
        ("postgres://me:secret@h/db", ParamsError, "--storage is postgres://me:***@h/db, but has to be a database"),
        ("postgresql://127.0.0.1:1/db?user=me&password=secret", StageError, "the storage postgresql://127.0.0.1:1/db "),
        ("postgresql://me:secret@h:port/db", ParamsError, "--storage is postgresql://..., but has to be"),
    ],
)  # fmt: skip
def test_a_storage_that_cannot_be_reached_is_a_sentence(url: str, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind) as caught:
        open_storage(url)
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value) + printable(url)
    assert "\n" not in str(caught.value)


# --- whole studies -----------------------------------------------------------------------------


def small_study(project: Path, **changes: Any) -> None:
    """Give the project a small model and a small study of it; without the test images, which no trial may read."""

    def change(params: Any) -> None:
        params["models"]["deep"].update(hidden_units=[8], normalization="none", batch_size=250)
        params["tune"] = {"deep": STUDY | changes}

    change_params(project, change)


@pytest.fixture(scope="module")
def tuned(run_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with prepared data, but without test images, in which a study has ended; not to be changed."""

    def make(project: Path) -> None:
        shutil.copytree(run_template, project, symlinks=True)
        for path in [*project.glob("data/prepared/test_*"), *project.glob("data/raw/t10k*")]:
            path.unlink()
        space = STUDY["space"] | {"hidden_activation": ["relu", "silu"], "warmup_epochs": [0.5, 2.0], "epochs": [2, 3]}
        small_study(project, space=space, trials=9, epochs=3, sampler="tpe", pruner="median")
        succeed(project, "python", "-m", "stages", "tune", "deep")

    return made_once("tuned", make, tmp_path_factory)


def rows(project: Path) -> list[list[Any]]:
    """The table of trials without their seconds, sorted by number."""
    table = pd.read_csv(project / TRIALS, keep_default_na=False).drop(columns="seconds")
    return table.sort_values("trial").to_numpy().tolist()


def test_a_study_ends_with_a_table_and_pictures(tuned: Path) -> None:
    table = pd.read_csv(tuned / TRIALS)
    assert table["trial"].tolist() == list(range(9))
    assert set(table["state"]) == {"complete", "pruned"}
    meaningless = table[table["reason"].notna()]
    assert (meaningless["warmup_epochs"] == 2).all()
    assert (meaningless["epochs"] == 2).all()
    assert meaningless["reason"].tolist() == ["warmup_epochs is 2, but has to be below epochs, 2."] * len(meaningless)
    done = table[table["state"] == "complete"]
    assert (done["epochs_run"] == done["epochs"]).all()
    for kind in ("history", "importances", "slices"):  # what they show is tested with the other pictures
        assert (tuned / f"plots/studies/deep-{kind}.png").stat().st_size > 10_000


def test_a_complete_study_is_drawn_again_without_training(tuned: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(tuned, project, symlinks=True)
    names = sorted(path.name for path in (project / "plots/studies").glob("deep-*"))
    for name in names:
        (project / "plots/studies" / name).unlink()
    output = succeed(project, "python", "-m", "stages", "tune", "deep")
    assert "trial 0:" not in output
    for name in names:
        assert (project / "plots/studies" / name).read_bytes() == (tuned / "plots/studies" / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to kill")
def test_a_killed_study_continues_to_the_same_trials(tuned: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(tuned, project, symlinks=True)
    shutil.rmtree(project / ".dvc/tmp/studies")
    (project / TRIALS).unlink()
    for number, seen in ((signal.SIGKILL, "trial 0:"), (signal.SIGINT, "trial 3:"), (signal.SIGTERM, "trial 5:")):
        process = start(
            project,
            "python",
            "-m",
            "stages",
            "tune",
            "deep",
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        output = next(line for line in lines if seen in line)
        os.killpg(process.pid, number)
        output += process.communicate(timeout=60)[0]
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number], output
        assert "Traceback" not in output
    output = succeed(project, "python", "-m", "stages", "tune", "deep")
    assert "trial 0:" not in output
    assert rows(project) == rows(tuned)


def test_the_best_trial_becomes_a_model_with_its_very_numbers(tuned: Path, tmp_path: Path) -> None:
    """`dvc repro` trains it, and its validation error is the trial's; raw test images are back by then."""
    project = tmp_path / "project"
    shutil.copytree(tuned, project, symlinks=True)
    succeed(project, "git", "checkout", "-q", "data/raw")
    before = (project / "params.yaml").read_text()
    output = succeed(project, "python", "-m", "stages", "tune", "deep", "--apply", "found")
    assert output == ("params.yaml has the model found; `dvc repro` trains it and measures it on the test images\n")
    assert set(before.splitlines()) < set((project / "params.yaml").read_text().splitlines())
    succeed(project, "dvc", "repro", "evaluate@found")
    measured = yaml.safe_load((project / "metrics/found.json").read_text())
    table = pd.read_csv(project / TRIALS)
    best = table[table["state"] == "complete"]["mse"].min()
    assert measured["mse_validation"] == pytest.approx(best, rel=2e-6)
    for arguments, sentence in (
        (["--apply", "found"], "params.yaml has a model called found already; --apply needs another name."),
        (["--apply", "other", "--trial", "99"], "--trial is 99, but that is no complete trial of the study deep."),
    ):
        refused = call(project, "python", "-m", "stages", "tune", "deep", *arguments)
        assert (refused.returncode, refused.stderr) == (2, f"error: {sentence}\n")


@quick
def test_a_trial_of_another_version_is_said() -> None:
    settings = DEEP.model_dump()
    trial = optuna.trial.create_trial(value=0.1, user_attrs={"settings": settings})
    assert settings_tried(trial, "deep") == DEEP
    del settings["beta_2"]
    with pytest.raises(StageError) as said:
        settings_tried(optuna.trial.create_trial(value=0.1, user_attrs={"settings": settings}), "deep")
    assert str(said.value).endswith(
        "of the study deep has settings of another version of this project (beta_2: Field required); begin the study "
        "again with --restart, which deletes its trials."
    )
    clash = optuna.trial.create_trial(value=0.1, user_attrs={"settings": DEEP.model_dump() | {"early_stopping": 99}})
    with pytest.raises(StageError, match=r"project \(Value error, early_stopping is 99, but has to be below epochs"):
        settings_tried(clash, "deep")


def test_what_cannot_be_tuned_is_a_sentence(tuned: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(tuned, project, symlinks=True)

    def told(*arguments: str) -> tuple[int, str]:
        result = call(project, "python", "-m", "stages", "tune", *arguments)
        assert "Traceback" not in result.stderr
        return result.returncode, result.stderr

    assert told("deeep") == (2, "error: params.yaml has no study 'deeep' (did you mean deep?); it has deep.\n")
    assert "--jobs is 0, but has to be from 1 to" in told("deep", "-j", "0")[1]
    for options in (["--restart"], ["--worker"], ["-j", "2"]):
        status, text = told("deep", "--apply", "x", *options)
        assert (status, "--apply runs no trial, so it goes with --storage and --trial alone" in text) == (2, True)
    assert told("deep", "--apply", "x", "--storage", "none.journal") == (
        1,
        "error: none.journal has no study deep; run `python -m stages tune deep`.\n",
    )
    change_params(project, lambda p: p["prepare"].update(validation_images=0))
    status, text = told("deep")
    assert (status, "so the test images would choose the settings; a study needs validation images." in text) == (
        2,
        True,
    )
    change_params(project, lambda p: p["prepare"].update(validation_images=100))
    change_params(project, lambda p: p["models"]["deep"].update(latent_dim=3))
    status, text = told("deep")
    assert status == 1
    assert "was begun with other settings; continue it with those" in text
    limited = "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); sys.argv[1:] = ['tune', 'deep', '--restart']; "
    )
    limited += "runpy.run_module('stages', run_name='__main__')"
    result = call(project, sys.executable, "-c", limited)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: the storage sqlite:///.dvc/tmp/studies/deep.db failed: ")


@pytest.mark.parametrize("storage", [None, "shared/study.journal"])
def test_two_processes_share_a_study(run_project: Path, storage: str | None) -> None:
    small_study(run_project, trials=5)
    options = ["--storage", storage] if storage else []
    jobs = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    succeed(run_project, "python", "-m", "stages", "tune", "deep", "-j", str(jobs), *options)
    table = pd.read_csv(run_project / TRIALS)
    assert table["trial"].tolist() == list(range(5))
    assert table["learning_rate"].nunique() == 5
    assert (table["state"] == "complete").all()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """The address of a PostgreSQL server of its own, in a folder of its own."""
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


def test_workers_on_a_database_come_and_go(run_project: Path, postgres: str) -> None:
    """Three on one study, as three machines would be; one is killed in the middle of a trial, which runs again."""
    small_study(run_project, trials=8, epochs=40, space=STUDY["space"] | {"hidden_activation": ["relu", "silu"]})
    command = ("python", "-m", "stages", "tune", "deep", "--storage", postgres, "--worker")
    workers = [start(run_project, *command) for _ in range(3)]
    storage = None

    def running() -> list[optuna.trial.FrozenTrial]:
        nonlocal storage
        storage = storage or open_storage(postgres)
        if "deep" not in optuna.get_all_study_names(storage):
            return []
        trials = optuna.load_study(study_name="deep", storage=storage).trials
        of_first = [t for t in trials if t.user_attrs.get("worker", [0, 0])[1] == workers[0].pid]
        return [t for t in of_first if t.state == TrialState.RUNNING]

    wait_until(running)
    (interrupted,) = running()
    workers[0].send_signal(signal.SIGKILL)
    for process in workers[1:]:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    workers[0].communicate()
    succeed(run_project, *command[:-1])  # writes the table
    table = pd.read_csv(run_project / TRIALS)
    assert table["trial"].tolist() == list(range(8))
    assert (table["state"] == "complete").all()
    again = optuna.load_study(study_name="deep", storage=open_storage(postgres)).trials[interrupted.number]
    assert again.params["learning_rate"] == interrupted.params.get("learning_rate", again.params["learning_rate"])
    assert again.user_attrs["worker"][1] != workers[0].pid


def test_two_objectives_give_a_front(run_project: Path) -> None:
    units = {"layers": [1], "units": {"low": 4, "high": 64}, "ratio": [1.0]}
    small_study(run_project, objectives=["mse", "parameters"], space={"hidden_units": units}, sampler="nsga2", epochs=2)
    output = succeed(run_project, "python", "-m", "stages", "tune", "deep")
    table = pd.read_csv(run_project / TRIALS)
    assert (table["parameters"] == [1602 * u + 800 for u in table["hidden_units.units"]]).all()
    assert output.count("best: trial") >= 1
    assert (run_project / "plots/studies/deep-front.png").exists()
    refused = call(run_project, "python", "-m", "stages", "tune", "deep", "--apply", "found")
    if output.count("best: trial") > 1:
        assert refused.returncode == 2
        assert "error: --apply needs --trial, since none is best in both objectives: " in refused.stderr
    best = output.partition("best: trial ")[2].partition(",")[0]
    succeed(run_project, "python", "-m", "stages", "tune", "deep", "--apply", "found", "--trial", best)


@quick
def test_the_default_storage_is_ignored() -> None:
    path = default_storage("deep").removeprefix("sqlite:///")
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, env=environment()).returncode == 0
