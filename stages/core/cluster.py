"""The processes that train one model together: finding them, and what they tell each other.

TF_CONFIG is TensorFlow's own variable; the index differs on each machine. The first worker,
or the one of type chief, is the chief. docs/several-machines.md shows the use.
"""

import faulthandler
import functools
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from stages.core.backend import tf
from stages.core.errors import ParamsError, StageError

LONGEST_WAIT = 300  # seconds for the other workers at the start; one lost later is noticed within ten
EXAMPLE = '{"cluster": {"worker": ["host1:4000", "host2:4000"]}, "task": {"type": "worker", "index": 0}}'
WORKER_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)

Address = Annotated[str, StringConstraints(pattern=r"^[^\s:]+:[0-9]{1,5}$")]


class Addresses(BaseModel):
    model_config = ConfigDict(extra="forbid")

    chief: list[Address] = Field(default=[], max_length=1)
    worker: list[Address] = []


class Task(BaseModel):
    type: Literal["chief", "worker"]
    index: int = Field(ge=0)


class Cluster(BaseModel):
    cluster: Addresses
    task: Task

    @property
    def addresses(self) -> list[str]:
        """ "host:port" of every process, the chief first."""
        return self.cluster.chief + self.cluster.worker

    @property
    def position(self) -> int:
        """This process among the addresses; 0 is the chief."""
        return self.task.index + (len(self.cluster.chief) if self.task.type == "worker" else 0)


def read_cluster() -> Cluster | None:
    """The cluster in the environment variable TF_CONFIG; None without one, or with one process.

    Raises ParamsError with the variable's value if it is no such thing.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        cluster = Cluster.model_validate(json.loads(text))
        own = cluster.cluster.chief if cluster.task.type == "chief" else cluster.cluster.worker
        own[cluster.task.index]
    except (ValueError, RecursionError, IndexError) as error:
        detail = ""
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            detail = f" ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        elif isinstance(error, IndexError):
            detail = f" (there is no {cluster.task.type} {cluster.task.index})"
        raise ParamsError(f"TF_CONFIG is {text!r}{detail}, but has to be like {EXAMPLE}.") from None
    return cluster if len(cluster.addresses) > 1 else None


def join(cluster: Cluster | None) -> tf.distribute.Strategy:
    """The strategy that trains: over the cluster, else over several local GPUs, else the default, of one replica.

    Ends the process with exit status 1 if the other workers do not come within LONGEST_WAIT seconds.
    """
    if cluster is None:
        several = len(tf.config.list_logical_devices("GPU")) > 1
        return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
    others = ", ".join(a for i, a in enumerate(cluster.addresses) if i != cluster.position)
    print(f"waiting for {others}, at most {LONGEST_WAIT} s", flush=True)
    # TensorFlow waits without a limit, holding the lock of the interpreter: no thread and no handler of ours runs.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    with open(os.devnull, "w") as nothing:
        faulthandler.dump_traceback_later(LONGEST_WAIT, exit=True, file=nothing)
        try:
            with raise_if_worker_lost():
                return tf.distribute.MultiWorkerMirroredStrategy()
        finally:
            faulthandler.cancel_dump_traceback_later()
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def raise_if_worker_lost() -> Iterator[None]:
    """Turn TensorFlow's errors about workers that died, hang or cannot be reached into a StageError."""
    try:
        yield
    except WORKER_LOST as error:
        raise StageError(
            f"another worker stopped or cannot be reached ({type(error).__name__}), so no model was written. Start all "
            "of them again: training continues at its last checkpoint."
        ) from None


@functools.cache
def compile_all_reduce(strategy: tf.distribute.Strategy) -> Any:
    """A function that adds up int32 arrays [n] of all workers."""
    local = len(strategy.extended.worker_devices)

    def contribute(array: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group % local == 0  # of this worker's GPUs
        return context.all_reduce("SUM", tf.identity(array) if first else tf.zeros_like(array))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def total(array: tf.Tensor) -> tf.Tensor:
        return strategy.run(contribute, args=(array,))

    return total


def all_reduce(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """The sum of an int32 array [n] over all workers, element by element."""
    strategy = tf.distribute.get_strategy()
    total = compile_all_reduce(strategy)(tf.constant(values, tf.int32))
    local: NDArray[np.int32] = np.asarray(strategy.experimental_local_results(total)[0])
    return local


def broadcast(content: bytes, cluster: Cluster) -> bytes:
    """The chief's `content`, of any length, in every worker."""
    chief = cluster.position == 0
    (length,) = all_reduce(np.array([len(content) if chief else 0], np.int32))
    if not length:  # an empty all-reduce crashes TensorFlow
        return b""
    padded = np.zeros(-(-length // 4), np.int32)
    if chief:
        padded.view(np.uint8)[:length] = np.frombuffer(content, np.uint8)
    return all_reduce(padded).tobytes()[:length]


def check_same_run(digests: dict[str, str], cluster: Cluster) -> None:
    """Raise StageError if what determines the run, by its name, is not the same in every worker."""
    chief = json.loads(broadcast(json.dumps(digests).encode(), cluster))
    differences = np.zeros((len(cluster.addresses), len(digests)), np.int32)
    differences[cluster.position] = [chief.get(name) != digest for name, digest in digests.items()]
    total = all_reduce(differences.ravel()).reshape(differences.shape)
    sentences = [
        f"{address} has other {' and '.join(np.array(list(digests))[row > 0])} than the chief, {cluster.addresses[0]}"
        for address, row in zip(cluster.addresses, total, strict=True)
        if row.any()
    ]
    if sentences:
        raise StageError(f"{'; '.join(sentences)}. All workers need the same.")
