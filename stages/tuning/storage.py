"""Where trials are kept: a file of this machine, or a database or a folder that several machines share.

Every process of a study talks to the others through the storage alone.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from stages.core.errors import ParamsError, StageError
from stages.params.schema import Tune
from stages.tuning.sampling import DIRECTIONS, build_pruner

FOLDER = Path(".dvc/tmp/studies")
BEAT = 10  # seconds between two signs of life of a running trial
PATIENCE = 60  # seconds without one, after which another machine's process counts as dead
GRACE = 5  # seconds in which a process that took a trial has to say who it is
BUSY = 60  # seconds to wait for another process that writes to the same file


def default_storage(name: str) -> str:
    """The storage of a study that stays on this machine: an SQLite file that git and DVC ignore."""
    return f"sqlite:///{FOLDER / name}.db"


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what goes wrong with a storage inside of the block into StageError: one sentence, without a password."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause: BaseException = error.__cause__ or error
        text = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise StageError(
            f"the storage {printable(url)} failed: {text}. Run the same command again to continue."
        ) from None
    except json.JSONDecodeError:
        raise StageError(f"{printable(url)} is not a whole journal of studies; --storage needs another file.") from None
    except KeyError as error:
        if "Record does not exist" not in str(error):
            raise
        raise StageError(f"the study in {printable(url)} was deleted by another process.") from None


def printable(url: str) -> str:
    """A storage as one may print it."""
    if "://" not in url:
        return url
    try:
        address = sqlalchemy.make_url(url)
    except (ValueError, sqlalchemy.exc.ArgumentError):
        return f"{url.partition('://')[0]}://..."  # what cannot be read may hold a password anywhere
    return address.set(query={}).render_as_string(hide_password=True)  # a query may hold one, too


def open_storage(url: str) -> BaseStorage:
    """Open a storage, and make it if it is a file that is not there.

    url: as SQLAlchemy has it, or the path of a journal file, whose folder several machines may share.
    Raises ParamsError if it names none, StageError if it cannot be reached.
    """
    if "://" not in url:
        path = str(Path(url).absolute())
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with reaching(url):
            return JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
    try:
        address = sqlalchemy.make_url(url)
        if address.get_backend_name() == "sqlite" and address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            return _open_database(url, {"connect_args": {"timeout": BUSY}})
        return _open_database(url, {"pool_pre_ping": True})
    except (ValueError, sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError):
        raise ParamsError(
            f"--storage is {printable(url)}, but has to be a database such as postgresql://user@host/name, or the path "
            "of a file in a folder that all machines share."
        ) from None
    except RuntimeError as error:  # tables of another version of Optuna
        raise StageError(f"the storage {printable(url)} cannot be used: {' '.join(str(error).split())}") from None
    except ImportError as error:
        package = {"postgresql": "psycopg[binary]", "mysql": "mysqlclient"}.get(address.get_backend_name())
        hint = f" Run pip install '{package}'." if package else ""
        raise StageError(
            f"the storage {printable(url)} needs a package that is not installed: {error}.{hint}"
        ) from None


def _open_database(url: str, options: dict[str, Any]) -> RDBStorage:
    for attempt in range(3):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except sqlalchemy.exc.DBAPIError:
            if attempt == 2:
                with reaching(url):
                    raise
            time.sleep(1)  # another process may make the same tables
    raise AssertionError


def open_study(
    storage: BaseStorage, url: str, name: str, tune: Tune, digests: Mapping[str, str], restart: bool = False
) -> optuna.Study:
    """The study of that name, a new one if there is none.

    digests: of all that decides its trials. restart: delete the study's trials first. Raises StageError if the study
    was begun with other digests.
    """
    if restart:
        delete_study(storage, name)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        load_if_exists=True,
        pruner=build_pruner(tune),
        directions=[DIRECTIONS[objective] for objective in tune.objectives],
    )
    begun = study.user_attrs.get("digests")
    if begun is None:
        study.set_user_attr("objectives", list(tune.objectives))
        study.set_user_attr("digests", dict(digests))
        begun = study.user_attrs["digests"]
    if different := [what for what in digests if begun.get(what) != digests[what]]:
        raise StageError(
            f"the study {name} in {printable(url)} was begun with other {' and other '.join(different)}; continue it "
            "with those, or begin it anew with --restart, which deletes its trials."
        )
    return study


def delete_study(storage: BaseStorage, name: str) -> None:
    """Delete the study of that name with all its trials, if there is one."""
    if name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)


def find_study(url: str, name: str) -> optuna.Study:
    """The study of that name. Raises StageError if there is none."""
    path = url if "://" not in url else sqlalchemy.make_url(url).database if url.startswith("sqlite:") else None
    storage = open_storage(url) if path is None or Path(path).exists() else None  # opening would make the file
    if storage is None or name not in optuna.get_all_study_names(storage):
        raise StageError(f"{printable(url)} has no study {name}; run `python -m stages tune {name}`.")
    return optuna.load_study(study_name=name, storage=storage)


def whoami() -> list[Any]:
    """This process, such that no other one is taken for it: machine, process number, seconds at which it began."""
    return [machine(), os.getpid(), psutil.Process().create_time()]


def machine() -> str:
    """A name of what has its own process numbers: a machine since it was booted, or a container."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # on Linux
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return " ".join(parts)


class Liveness:
    """Tells which running trials have lost their process.

    A process of this machine is looked up. Others are dead when their sign of life has not
    changed for PATIENCE seconds of this machine's clock; no clocks are compared.
    """

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Any, float]] = {}  # the last sign of life of a trial, and when it was new
        self.machine = machine()

    def is_dead(self, trial: FrozenTrial) -> bool:
        """Whether the process of a running trial is gone."""
        worker = trial.user_attrs.get("worker")
        if worker and worker[0] == self.machine:
            return not runs(worker[1], worker[2])
        sign, now = (worker, trial.user_attrs.get("beat")), time.monotonic()
        last, since = self.seen.get(trial.number, (None, now))
        if sign != last:
            self.seen[trial.number] = (sign, now)
            return False
        return now - since > (PATIENCE if worker else GRACE)


def runs(process: int, began: float) -> bool:
    """Whether a process of this machine that began at this moment still runs."""
    try:
        found = psutil.Process(process)
        return found.status() != psutil.STATUS_ZOMBIE and abs(found.create_time() - began) <= 1
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


@contextmanager
def beating(storage: BaseStorage, trial: optuna.Trial) -> Iterator[None]:
    """Give a sign of life of a trial every BEAT seconds inside of the block."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(BEAT):
            count += 1
            try:
                storage.set_trial_user_attr(trial._trial_id, "beat", f"{trial.user_attrs.get('worker')} {count}")
            except Exception:  # noqa: S112 (the trial itself meets the same storage, and says what is wrong)
                continue

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=BEAT)


def put_back(storage: BaseStorage, trial: FrozenTrial) -> None:
    """Have a trial that has not ended run again, by whoever comes first, unless another process has it by now."""
    now = storage.get_trial(trial._trial_id)
    if now.state == TrialState.RUNNING and now.user_attrs.get("worker") == trial.user_attrs.get("worker"):
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
