"""Look for better settings, as the studies of params.yaml describe."""

import argparse
import os
import subprocess
import sys
from typing import NoReturn

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from stages.core.errors import ParamsError, StageError, run
from stages.core.params import nearest, read_params
from stages.core.schema import Model
from stages.params.schema import Tune, TuneParams
from stages.params.space import check_studies
from stages.params.writing import add_model, check_new_name
from stages.tuning.report import write_report
from stages.tuning.results import achieved, best_trials
from stages.tuning.storage import default_storage, delete_study, find_study, open_storage, reaching

DESCRIPTION = """\
Look for better settings, as a study under `tune` in params.yaml describes.

Every trial is a training that `dvc repro` would do with the same settings, judged on the
validation images. Stop it at any time; the same command continues. Writes
plots/studies/<study>-*.png and <study>-trials.csv. --apply adds the best trial's settings
to params.yaml as a model, which `dvc repro` then trains and measures on the test images.

examples:
  python -m stages tune deep
  python -m stages tune deep --storage postgresql://server/studies   # on each machine
  python -m stages tune deep --apply tuned
"""


def main() -> None:
    options = parse_arguments()
    params = read_params(TuneParams)
    name, url = options.study, options.storage
    if name not in params.tune:
        known = ", ".join(params.tune) or "none"
        raise ParamsError(f"params.yaml has no study {name!r}{nearest(name, list(params.tune))}; it has {known}.")
    if not params.prepare.validation_images and not options.apply:
        raise ParamsError(
            "params.yaml: prepare.validation_images is 0, so the test images would choose the settings; a study needs "
            "validation images."
        )
    check_studies(params, [name])
    tune = params.tune[name]
    if options.apply:
        check_new_name(params, options.apply)
        with reaching(url):
            chosen = choose(find_study(url, name), tune, options.trial)
        settings = settings_tried(chosen, name)
        comment = f"trial {chosen.number} of the study {name}: {achieved(chosen, tune)} on validation images"
        add_model(options.apply, settings, comment)
        print(f"params.yaml has the model {options.apply}; `dvc repro` trains it and measures it on the test images")
        return
    if options.jobs > 1:
        run_workers(options)
    else:
        from stages.tuning.worker import work  # loads TensorFlow

        if not work(params, name, url, options.restart):
            sys.stdout.flush()
            again = [argument for argument in sys.argv[1:] if argument != "--restart"]
            go_on([sys.executable, "-m", "stages", "tune", *again])
    if not options.worker:
        with reaching(url):
            study = find_study(url, name)
            print(f"wrote {', '.join(write_report(study, tune, params.figures.dpi))}")
            for trial in best_trials(study):
                print(f"best: trial {trial.number}, {achieved(trial, tune)}: {described(trial)}")


def settings_tried(trial: FrozenTrial, name: str) -> Model:
    """The settings of a trial of the study `name`. Raises StageError if they are none of a model of this version."""
    try:
        return Model.model_validate(trial.user_attrs["settings"])
    except ValidationError as error:
        problems = [": ".join(map(str, [*problem["loc"], problem["msg"]])) for problem in error.errors()]
        raise StageError(
            f"trial {trial.number} of the study {name} has settings of another version of this project "
            f"({'; '.join(problems)}); begin the study again with --restart, which deletes its trials."
        ) from None


def parse_arguments() -> argparse.Namespace:
    """The options. Ends the process with status 2 if the arguments make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m stages tune",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("study", help="a key of `tune` in params.yaml")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes on this machine, which share its cores")
    parser.add_argument("--storage", help="a database, or a file in a shared folder (default: a file in .dvc/tmp)")
    parser.add_argument("--restart", action="store_true", help="delete the study's trials first")
    parser.add_argument("--worker", action="store_true", help="run trials, but write no table and no pictures")
    parser.add_argument("--apply", metavar="NAME", help="add the best trial's settings to params.yaml as a model")
    parser.add_argument("--trial", type=int, help="the trial that --apply takes instead of the best one")
    options = parser.parse_args()
    options.storage = options.storage or default_storage(options.study)
    cores = len(available_cores())
    if not 1 <= options.jobs <= cores:
        parser.error(f"--jobs is {options.jobs}, but has to be from 1 to {cores}, the number of cores here")
    if options.trial is not None and not options.apply:
        parser.error("--trial is for --apply")
    if options.apply and (options.restart or options.worker or options.jobs > 1):
        parser.error("--apply runs no trial, so it goes with --storage and --trial alone")
    return options


def go_on(command: list[str]) -> NoReturn:
    """Become another process."""
    if sys.platform == "win32":  # where this one would end before the other
        sys.exit(subprocess.call(command))  # noqa: S603 (no shell)
    os.execv(command[0], command)  # noqa: S606 (no shell)


def available_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def run_workers(options: argparse.Namespace) -> None:
    """Run the study in several processes, each on its share of the cores.

    Raises StageError if one fails. One that was killed costs nothing but its time.
    """
    cores = available_cores()
    command = [sys.executable, "-m", "stages", "tune", options.study, "--storage", options.storage, "--worker"]
    if options.restart:
        with reaching(options.storage):
            delete_study(open_storage(options.storage), options.study)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(options.jobs):
            workers.append(subprocess.Popen(command))  # noqa: S603 (no shell)
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(workers[-1].pid, set(cores[index :: options.jobs]))
        statuses = [worker.wait() for worker in workers]
    except BaseException:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        raise
    failed = sum(status > 0 for status in statuses)
    if failed or all(statuses):  # one that was killed is no harm if another has run its trial
        raise StageError(f"{failed or len(workers)} of {len(workers)} processes failed; the study is not complete.")


def choose(study: optuna.Study, tune: Tune, number: int | None) -> FrozenTrial:
    """The trial of this number, or the best one.

    Raises ParamsError if there is no such trial, or no best one, and StageError if no trial is complete or the
    objectives have changed.
    """
    best = best_trials(study)
    if study.user_attrs.get("objectives") != tune.objectives:
        raise StageError(
            f"the study {study.study_name} was begun with other objectives than params.yaml has; change them back, or "
            "begin it anew with --restart."
        )
    complete = {trial.number: trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if number is not None:
        if number not in complete:
            raise ParamsError(f"--trial is {number}, but that is no complete trial of the study {study.study_name}.")
        return complete[number]
    if len(best) > 1:
        front = "; ".join(f"{trial.number} ({achieved(trial, tune)})" for trial in best)
        raise ParamsError(f"--apply needs --trial, since none is best in both objectives: {front}.")
    return best[0]


def described(trial: FrozenTrial) -> str:
    """A trial's settings."""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in trial.params.items())


if __name__ == "__main__":
    run(main)
