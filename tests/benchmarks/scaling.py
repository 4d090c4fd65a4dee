"""What a second worker buys: the arithmetic of a step against the bytes that the workers add up.

    python -m tests.benchmarks.scaling

Six minutes on two cores, Linux; needs the arrays of `dvc repro prepare`. Each worker is a
process with one core and one thread; they talk over loopback. One worker alone, two that
know nothing of each other, and two that train together take turns. Prints, as tables in
Markdown,

1. for networks of params.yaml and several batch sizes, milliseconds per step of one worker
   and of two together, and what the scaling model predicts for two: the time of half a
   batch, while the other core is busy likewise, plus the time to add up gradients of that
   network, measured by themselves;
2. the line through the latter, latency + 2 (n - 1) / n * bytes / bandwidth (n workers in a
   ring: Patarasuk and Yuan, 2009, doi.org/10.1016/j.jpdc.2008.09.002), and the batch from
   which a second worker pays at that and other bandwidths.

A step of a dense network with P weights on B images takes 6 P B operations (2 forward, 4
backward), of which n workers save each other 1 - 1/n = (n - 1) / n, and costs them
2 (n - 1) / n * 4 P bytes. P and n cancel: latency aside, it pays if B is above
4/3 * (operations per second of a worker) / (bytes per second between workers), whatever the
size of the network and the number of workers.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import stages  # noqa: F401 (pins the arithmetic, so it comes before NumPy)

# isort: split
import numpy as np

from stages.core.params import read_params
from stages.core.schema import Model
from tests.conftest import ROOT, environment
from tests.test_replicas import tf_configs

if TYPE_CHECKING:
    from stages.core.replicas import Replicas

NETWORKS = ("shallow", "deep", "hinton2006")
BATCHES = (128, 1024, 8192)
STEPS = {64: 100, 128: 100, 512: 30, 1024: 20, 4096: 6, 8192: 3}  # timed together
WORKERS = 2
EXCHANGES = 50  # of gradients, timed together
BANDWIDTHS = {"1 Gbit/s": 1.25e8, "10 Gbit/s": 1.25e9, "100 Gbit/s": 1.25e10}

TEAMS = {  # how many workers, and the batch sizes that they measure; 0 stands for adding up gradients alone
    "alone": (1, BATCHES),
    "apart": (WORKERS, tuple(batch // WORKERS for batch in BATCHES)),
    "together": (WORKERS, (0, *BATCHES)),
}
Measurement = tuple[str, int]  # a network and a batch size


def settings_of(network: str) -> Model:
    params = read_params()
    return (params.models | params.presets)[network].model_copy(update={"threads": 1})


def build(network: str) -> Any:
    from stages.core.autoencoder import build_autoencoder

    return build_autoencoder(28, 28, settings_of(network))


def measurements(team: str) -> list[Measurement]:
    return [(network, batch) for network in NETWORKS for batch in TEAMS[team][1]]


def exchange(network: str) -> Callable[[], object]:
    """A function that adds up the workers' gradients EXCHANGES times."""
    from stages.core.backend import tf

    strategy = tf.distribute.get_strategy()

    def reduced(gradients: list[tf.Tensor]) -> Any:
        return tf.distribute.get_replica_context().all_reduce(
            "SUM",
            [tf.identity(gradient) for gradient in gradients],  # it fails without: arguments have no device
        )

    @tf.function
    def add_up(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        for _ in tf.range(EXCHANGES):
            gradients = strategy.run(reduced, args=(gradients,))
        return gradients

    zeros = [tf.zeros(variable.shape) for variable in build(network).trainable_variables]
    return lambda: add_up(zeros)[0].numpy()


def training(network: str, batch: int, replicas: "Replicas") -> Callable[[], object]:
    """A function that trains STEPS[batch] steps as the train stage does."""
    from stages.core.augmentation import unchanged
    from stages.core.images import read_pixels
    from stages.core.objective import plain_objective
    from stages.core.optimizer import build_optimizer

    settings, images = settings_of(network), read_pixels("train", replicas.place)
    order = np.random.default_rng(0).permutation(len(images)).astype(np.int32)[: STEPS[batch] * batch]
    optimizer = build_optimizer(settings, STEPS[batch])
    model = build(network)
    objective = plain_objective(model, settings.loss)
    compiled = replicas.compile_training(model, objective, optimizer, batch, unchanged, unchanged)
    return lambda: compiled.train_epoch(images, order)


def work(team: str, core: int) -> None:
    """Be a worker: at every line of input take each measurement, and print its milliseconds per step."""
    os.sched_setaffinity(0, {core})
    from stages.core.backend import tf, use_threads
    from stages.core.replicas import join_replicas

    tf.get_logger().setLevel("ERROR")  # it warns of many compilations, which are the purpose here
    use_threads(1)
    with join_replicas() as replicas:
        timed = [
            (training(network, batch, replicas), STEPS[batch]) if batch else (exchange(network), EXCHANGES)
            for network, batch in measurements(team)
        ]
        for function, _ in timed:
            function()  # compiles
        print("ready", *(build(network).count_params() for network in NETWORKS), flush=True)
        for _ in sys.stdin:
            for function, steps in timed:
                start = time.perf_counter()
                function()
                print((time.perf_counter() - start) / steps * 1000, flush=True)


def start_team(team: str) -> list[subprocess.Popen[str]]:
    workers, _ = TEAMS[team]
    configs = tf_configs(workers) if team == "together" else [""] * workers
    return [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--worker", team, str(core)],
            cwd=ROOT, env=environment() | {"TF_CONFIG": config}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for core, config in zip(sorted(os.sched_getaffinity(0)), configs, strict=False)
    ]  # fmt: skip


def await_ready(team: list[subprocess.Popen[str]]) -> dict[str, int]:
    """The number of parameters of each network, as the last of the team has it."""
    line = ""
    for process in team:
        assert process.stdout
        while not (line := process.stdout.readline()).startswith("ready"):
            if not line:
                sys.exit("a worker ended before it was ready")
    return dict(zip(NETWORKS, map(int, line.split()[1:]), strict=True))


def turn(team: str, processes: list[subprocess.Popen[str]]) -> dict[Measurement, float]:
    """Milliseconds per step of every measurement, by the slowest of the team."""
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    values = [[float(process.stdout.readline()) for _ in measurements(team)] for process in processes if process.stdout]
    return dict(zip(measurements(team), np.max(values, axis=0), strict=True))


def report(parameters: dict[str, int], times: dict[str, dict[Measurement, float]]) -> None:
    """parameters: of each network. times: milliseconds per step, by team."""
    alone, apart, together = times.values()
    factor = 2 * (WORKERS - 1) / WORKERS
    print("| network | parameters | batch | one worker | two, predicted | two, measured | times as fast |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for network in NETWORKS:
        for batch in BATCHES:
            predicted = apart[network, batch // WORKERS] + together[network, 0]
            one, two = alone[network, batch], together[network, batch]
            cells = " | ".join(f"{t:.2f} ms" for t in (one, predicted, two))
            print(f"| {network} | {parameters[network]:,} | {batch} | {cells} | {one / two:.2f} |")
    exchanged = {network: factor * 4 * parameters[network] for network in NETWORKS}
    slope, latency = np.polyfit(list(exchanged.values()), [together[n, 0] for n in NETWORKS], 1)
    bandwidth = 1000 / slope
    network, batch = NETWORKS[-1], BATCHES[-1]
    speed = 6 * parameters[network] * batch / (alone[network, batch] / 1000)
    each = ", ".join(f"{together[n, 0]:.2f} ms for {exchanged[n] / 1e6:.1f} MB" for n in NETWORKS)
    print(f"\nAdding up gradients takes {each}: {latency:.2f} ms and {bandwidth / 1e6:.0f} MB/s.")
    print(f"One worker computes {speed / 1e9:.0f} billion operations per second ({network}, batch {batch}).\n")
    print("| between workers | pays above a batch of |\n| --- | ---: |")
    for name, rate in {"loopback, as measured": bandwidth, **BANDWIDTHS}.items():
        print(f"| {name} | {4 / 3 * speed / rate:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a second worker buys.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each team (default 5)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        team, core = arguments.worker
        work(team, int(core))
        return
    if len(os.sched_getaffinity(0)) < WORKERS:
        sys.exit(f"this needs {WORKERS} cores")
    teams = {team: start_team(team) for team in TEAMS}
    parameters, *_ = [await_ready(processes) for processes in teams.values()]  # the same of all
    rounds = [{team: turn(team, processes) for team, processes in teams.items()} for _ in range(arguments.rounds)]
    for processes in teams.values():
        for process in processes:
            process.communicate()  # the end of its input ends it
    report(parameters, {
        team: {wanted: statistics.median(r[team][wanted] for r in rounds) for wanted in measurements(team)}
        for team in TEAMS
    })  # fmt: skip


if __name__ == "__main__":
    main()
