"""Search for good settings, as the studies in params.yaml describe."""

import argparse
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from stages.core.errors import ParamsError, StageError, run
from stages.core.files import write_all
from stages.core.params import nearest, parse_params, read_params, read_presets
from stages.tools.tune.results import best_trials, complete, objectives, write_report
from stages.tools.tune.schema import Tune, TuneParams
from stages.tools.tune.study import default_storage, is_complete, load_study, open_storage, storage_errors

DESCRIPTION = """\
Search for good settings, as a study under `tune` in params.yaml describes.

Every trial trains a model as `dvc repro` does with the same settings, and measures it on the
validation images. You can stop at any time; the same command continues. It writes
plots/studies/<study>-*.png and <study>-trials.csv. --apply adds the best trial's settings
to params.yaml as a model, which `dvc repro` trains and measures on the test images.

examples:
  python -m stages tune deep
  python -m stages tune deep --storage postgresql://server/studies   # on each machine
  python -m stages tune deep --apply tuned
"""


def main() -> None:
    options = parse_arguments()
    params = read_params(TuneParams)
    if options.study not in params.tune:
        hint, known = nearest(options.study, list(params.tune)), ", ".join(params.tune) or "none"
        raise ParamsError(f"params.yaml has no study {options.study}{hint}; it has {known}.")
    with storage_errors(options.storage):
        if options.apply:
            apply(load_study(options.storage, options.study), options.trial, options.apply)
            return
        if not params.prepare.validation_images:
            raise ParamsError("params.yaml: prepare.validation_images is 0, but a study needs validation images.")
        storage = open_storage(options.storage)  # creates its tables before several processes would
        if options.restart and options.study in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=options.study, storage=storage)
        study = run_workers(options.study, options.storage, params.tune[options.study], options.jobs)
        print(f"wrote {', '.join(write_report(study, params.figures.dpi))}")
        for trial in best_trials(study):
            print(f"best: trial {trial.number}, {objectives(study, trial)}: {trial.params}")


def parse_arguments() -> argparse.Namespace:
    """The options. Ends the process with status 2 if the arguments make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m stages tune",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("study", help="a key of `tune` in params.yaml")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes on this machine")
    parser.add_argument("--storage", help="the URL of a database (default: an SQLite file in .dvc/tmp)")
    parser.add_argument("--restart", action="store_true", help="delete the study's trials first")
    parser.add_argument("--apply", metavar="NAME", help="add the best trial's settings to params.yaml as a model")
    parser.add_argument("--trial", type=int, help="the trial that --apply takes instead of the best one")
    options = parser.parse_args()
    options.storage = options.storage or default_storage(options.study)
    try:
        sqlalchemy.make_url(options.storage)
    except (ValueError, sqlalchemy.exc.ArgumentError):  # whose text may hold a password
        parser.error("--storage has to be the URL of a database such as postgresql://user@host/name")
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}, but has to be at least 1")
    if options.trial is not None and not options.apply:
        parser.error("--trial needs --apply")
    if options.apply and (options.restart or options.jobs > 1):
        parser.error("--apply runs no trial, so it takes neither --restart nor --jobs")
    return options


def run_workers(name: str, url: str, tune: Tune, jobs: int) -> optuna.Study:
    """Run trials in `jobs` processes until the study is complete, and return it.

    Raises StageError if all processes are killed. If one fails, this process ends with its status.
    """
    command = [sys.executable, "-m", "stages.tools.tune.worker", name, url]
    while True:
        workers = [subprocess.Popen(command) for _ in range(jobs)]  # noqa: S603 (no shell)
        try:
            statuses = [worker.wait() for worker in workers]
        except KeyboardInterrupt:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
            raise
        if max(statuses) > 0:
            sys.exit(max(statuses))  # the worker has printed why
        if max(statuses) < 0:
            raise StageError(f"the study {name} is not complete: its process was killed; run the same command again.")
        study = load_study(url, name)
        if is_complete(study, tune):
            return study


def apply(study: optuna.Study, number: int | None, name: str) -> None:
    """Add the settings of the trial of this number, or of the best one, to params.yaml as a model."""
    trial = choose_trial(study, number)
    comment = f"trial {trial.number} of the study {study.study_name}: {objectives(study, trial)} on validation images"
    add_model(name, trial.user_attrs["settings"], comment)
    print(f"params.yaml has the model {name}; `dvc repro` trains it and measures it on the test images")


def add_model(name: str, settings: dict[str, Any], comment: str, path: Path = Path("params.yaml")) -> None:
    """Add a model to params.yaml, and keep all other lines as they are.

    settings: of every key; the block holds those that differ from the section `defaults`.
    Raises ParamsError if the name is taken or params.yaml would not be valid; then the file stays as it is.
    """
    params = read_params(TuneParams, path)
    if name in params.models | params.presets:
        raise ParamsError(f"--apply is {name}, but {path} has a model of that name; choose another name.")
    yaml, text = YAML(), io.StringIO()
    yaml.width, yaml.default_flow_style = 4096, None  # never break a line; lists in brackets
    content: Any = yaml.load(path)
    if settings.keys() != content["defaults"].keys():
        raise StageError("the trial is from another version of this project, which has other settings.")
    block = CommentedMap({key: settings[key] for key, v in content["defaults"].items() if settings[key] != v})
    block.fa.set_block_style()
    content["models"][name] = block or None
    content["models"].yaml_add_eol_comment(comment, name)
    yaml.dump(content, text)
    parse_params(TuneParams, text.getvalue(), path, read_presets(path))
    write_all({path: text.getvalue().encode()})


def choose_trial(study: optuna.Study, number: int | None) -> FrozenTrial:
    """The trial of this number, or the best one.

    Raises ParamsError if there is no such trial or no single best one, and StageError if no trial is complete.
    """
    best = best_trials(study)
    if number is not None:
        for trial in complete(study):
            if trial.number == number:
                return trial
        raise ParamsError(f"--trial is {number}, but that is no complete trial of the study {study.study_name}.")
    if len(best) > 1:
        front = "; ".join(f"{trial.number} ({objectives(study, trial)})" for trial in best)
        raise ParamsError(f"--apply needs --trial, because none is best in both objectives: {front}.")
    return best[0]


if __name__ == "__main__":
    run(main)
