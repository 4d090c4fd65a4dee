"""Compare the training engine with the tutorial's loop, PyTorch, JAX and the bare matrix products.

    python -m tests.benchmarks.training --quality        # seconds to the tutorial's quality: 24 minutes on 2 cores
    python -m tests.benchmarks.training                  # seconds per epoch, five rounds: 6 minutes
    python -m tests.benchmarks.training --settings --models deep   # what settings cost: 5 minutes
    python -m tests.benchmarks.training --models shallow --rounds 9
    python -m tests.benchmarks.training --memory --models shallow   # this engine alone, ever more images: 75 seconds

Needs the arrays of `dvc repro prepare`. `pip install -r requirements-bench.txt`, after
`requirements-dev.txt`, brings the peers; those that are missing are named and left out. Every contender trains the same
network from the same weights with the tutorial's recipe (ReLU, no normalization, Adam at a
constant 0.001), with --quality also with that of params.yaml, but Adam instead of Nadam, on images that are
resident as bytes where its library allows, adds up the training loss, and computes the
validation loss after the epoch. An epoch of all has the same number of whole batches and
leaves out the rest. Each runs in a process of its own; the processes take
turns of at least a second, so that a machine that slows down slows all of them. First all
have to reach the same validation loss.
"""

import argparse
import importlib.util
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

# What the stages set, and the peers run without: as they come.
OURS = ("XLA_FLAGS", "NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS")
PLAIN = {name: value for name, value in os.environ.items() if name not in OURS}
os.environ["OPENBLAS_NUM_THREADS"] = str(os.cpu_count())  # the limit may use what the models use
import numpy as np

from stages.core import files
from stages.core.params import read_params
from stages.core.schema import Model, Params
from tests.conftest import TUTORIAL

Contender = Callable[[Model], Iterator[float | None]]  # each step trains an epoch and yields the validation loss
ROOT = Path(__file__).parents[2]
ENDLESS = TUTORIAL | {"epochs": 1000}  # more than all turns take
WITH_ADAM = {"optimizer": "adam", "beta_2": 0.0}  # of the recipe of params.yaml, whose Nadam is not the peers'
TUTORIAL_EPOCHS = 50  # after which its validation loss is the quality that others have to reach
SAME_LOSS = 0.02  # relative, after an epoch: rounding differs, and `fit` shuffles in an order of its own
LAYER_EPSILON, ADAM_EPSILON = 1e-3, 1e-7  # as Keras has them
PEERS_CAN: dict[str, tuple[Any, ...]] = {
    "layers": ("dense",), "hidden_activation": ("relu", "silu"), "latent_activation": ("linear",),
    "normalization": ("none", "layer"), "dropout": (0,), "noise": (0,), "shift": (0,), "code_l1": (0,),
    "kl_weight": (0,), "loss": ("binary_crossentropy",), "optimizer": ("adam",), "beta_2": (0,),
    "schedule": ("constant", "linear"), "weight_decay": (0,), "ema_momentum": (0,), "precision": ("float32",),
}  # fmt: skip
PAUSE = 0.5  # seconds before each turn, until the threads of the one before have stopped spinning
TURN = 1.0  # seconds that a contender's turn takes at least, in whole epochs, as in a real run


def pixels(split: str) -> np.ndarray:
    """The images of a split: uint8 [images, pixels]."""
    images = files.read_images(split, mapped=False)
    return images.reshape(len(images), -1)


def shape() -> tuple[int, int]:
    """Height and width of the images."""
    _, height, width = files.read_images("train").shape
    return height, width


def order(settings: Model, epoch: int, count: int) -> np.ndarray:
    """The engine's whole batches, int [steps, batch_size], written again because its module loads TensorFlow."""
    steps = count // settings.batch_size
    shuffled = np.random.default_rng([settings.seed, epoch]).permutation(count)
    return shuffled[: steps * settings.batch_size].reshape(steps, settings.batch_size)


def layer_sizes(settings: Model, width: int) -> list[int]:
    return [width, *settings.hidden_units, settings.latent_dim, *settings.hidden_units[::-1], width]


def initial_weights(settings: Model) -> list[np.ndarray]:
    """Kernel and bias of each layer, Glorot uniform: the same for every contender."""
    random = np.random.default_rng(settings.seed)
    sizes = layer_sizes(settings, math.prod(shape()))
    weights = []
    for before, after in pairwise(sizes):
        limit = np.sqrt(6 / (before + after))
        weights.append(random.uniform(-limit, limit, (before, after)).astype(np.float32))
        weights.append(np.zeros(after, np.float32))
    return weights


def linear_layers(settings: Model) -> set[int]:
    """Positions of the layers without a hidden activation: the latent one and the last."""
    return {len(settings.hidden_units), 2 * len(settings.hidden_units) + 1}


def step_sizes(settings: Model, steps: int) -> np.ndarray:
    """The engine's constant or linear schedule, float32 [epochs, steps], written again for the same reason."""
    step, count = np.arange(settings.epochs * steps), settings.epochs * steps
    warmup = round(settings.warmup_epochs * steps)
    falling = np.where(step < warmup, step / max(warmup, 1), (count - step) / (count - warmup))
    factors = {"constant": np.ones(count), "linear": falling}[settings.schedule]
    return np.float32(settings.learning_rate * factors).reshape(settings.epochs, steps)


def keras_model(settings: Model) -> Any:
    from stages.core.autoencoder import build_autoencoder
    from stages.core.backend import keras

    model = build_autoencoder(*shape(), settings)
    if settings.layers == "dense":
        weights = iter(initial_weights(settings))
        for layer in [*model.get_layer("encoder").layers, *model.get_layer("decoder").layers]:
            if isinstance(layer, keras.layers.Dense):
                layer.set_weights([next(weights), next(weights)])
    return model


def engine(settings: Model) -> Iterator[float]:
    from stages.core.backend import use_all_cores
    from stages.core.training import blocks, build_training, read_pixels

    use_all_cores()
    images, validation = read_pixels("train"), read_pixels("validation")
    training = build_training(keras_model(settings), settings, len(images), shape())
    for epoch in range(1, settings.epochs + 1):
        batches = order(settings, epoch, len(images)).astype(np.int32)
        sums = [training.train_steps(*block) for block in blocks(images, batches)]
        training.mean_losses(sums, batches.size)
        yield training.validate(validation)[0]


def tutorial(settings: Model) -> Iterator[float]:
    """What tutorials write: `fit` on float arrays, its batch size and everything else as it comes.

    But for whole batches, as all contenders have them: `steps_per_epoch` ends the epoch before the partial one.
    """
    from stages.core.optimizer import build_optimizer

    images, validation = pixels("train") / np.float32(255), pixels("validation") / np.float32(255)
    model, steps = keras_model(settings), len(images) // settings.batch_size
    model.compile(build_optimizer(settings, steps), settings.loss)
    while True:
        history = model.fit(
            images,
            images,
            batch_size=settings.batch_size,
            steps_per_epoch=steps,
            validation_data=(validation, validation),
            verbose=0,
        )
        yield history.history["val_loss"][0]


def resident_fit(settings: Model) -> Iterator[float]:
    """The fastest `fit` we know: compiled, an epoch per call, on tensors."""
    import tensorflow as tf

    from stages.core.optimizer import build_optimizer

    images, validation = (tf.constant(pixels(split) / np.float32(255)) for split in ("train", "validation"))
    model, steps = keras_model(settings), len(images) // settings.batch_size
    optimizer = build_optimizer(settings, steps)
    model.compile(optimizer, settings.loss, jit_compile=True, steps_per_execution=steps)
    while True:
        history = model.fit(
            images,
            images,
            batch_size=settings.batch_size,
            steps_per_epoch=steps,
            validation_data=(validation, validation),
            verbose=0,
        )
        yield history.history["val_loss"][0]


def pytorch(settings: Model, compiled: bool = False) -> Iterator[float]:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    weights = initial_weights(settings)
    network = torch.nn.Sequential()
    for index, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        layer = torch.nn.Linear(*kernel.shape)
        layer.weight.data, layer.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias)
        network.append(layer)
        if index not in linear_layers(settings):
            if settings.normalization == "layer":
                network.append(torch.nn.LayerNorm(len(bias), LAYER_EPSILON))
            network.append({"relu": torch.nn.ReLU, "silu": torch.nn.SiLU}[settings.hidden_activation]())
    loss = torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    images, validation = torch.tensor(pixels("train")), torch.tensor(pixels("validation"))
    rates = step_sizes(settings, len(images) // settings.batch_size)

    def forward(batch: Any) -> Any:
        image = batch.float() / 255
        return loss(network(image), image)

    if compiled:
        forward = torch.compile(forward)
    step = 0
    for epoch in range(1, settings.epochs + 1):
        total = 0.0
        batches = torch.tensor(order(settings, epoch, len(images)))
        for batch, rate in zip(batches, rates[epoch - 1].tolist(), strict=True):
            step += 1
            # Keras adds its epsilon before the correction of the bias, PyTorch behind it
            optimizer.param_groups[0] |= {"lr": rate, "eps": ADAM_EPSILON / math.sqrt(1 - 0.999**step)}
            optimizer.zero_grad()
            mean = forward(images[batch])
            mean.backward()
            optimizer.step()
            total += float(mean.detach()) * len(batch)
        with torch.no_grad():
            parts = validation.split(settings.batch_size)
            yield sum(float(forward(part)) * len(part) for part in parts) / len(validation)


def pytorch_compiled(settings: Model) -> Iterator[float]:
    return pytorch(settings, compiled=True)


def jax(settings: Model) -> Iterator[float]:
    """`lax.scan` over the batches of an epoch; Adam written out."""
    import jax
    import jax.numpy as jnp

    images, validation = jnp.asarray(pixels("train")), jnp.asarray(pixels("validation"))
    rates = step_sizes(settings, len(images) // settings.batch_size)
    activation = {"relu": jax.nn.relu, "silu": jax.nn.silu}[settings.hidden_activation]

    def normalized(x: Any, scale: Any, offset: Any) -> Any:
        deviation = jnp.sqrt(x.var(axis=1, keepdims=True) + LAYER_EPSILON)
        return (x - x.mean(axis=1, keepdims=True)) / deviation * scale + offset

    def loss(network: Any, batch: Any) -> Any:
        image = hidden = batch.astype(jnp.float32) / 255
        for index, (kernel, bias, *scale_and_offset) in enumerate(network):
            hidden = hidden @ kernel + bias
            if scale_and_offset:
                hidden = normalized(hidden, *scale_and_offset)
            if index not in linear_layers(settings):
                hidden = activation(hidden)
        return jnp.mean(jnp.maximum(hidden, 0) - hidden * image + jnp.log1p(jnp.exp(-jnp.abs(hidden))))

    def step(state: Any, batch_and_rate: Any) -> Any:
        (network, means, squares, count), (batch, rate) = state, batch_and_rate
        mean, gradients = jax.value_and_grad(loss)(network, images[batch])
        count += 1
        rate = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
        squares = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, squares, gradients)
        network = jax.tree.map(lambda w, m, s: w - rate * m / (jnp.sqrt(s) + ADAM_EPSILON), network, means, squares)
        return (network, means, squares, count), mean * len(batch)

    @jax.jit
    def train_epoch(state: Any, batches: Any, rates: Any) -> Any:
        state, losses = jax.lax.scan(step, state, (batches, rates))
        return state, losses.sum() / batches.size

    weights = [jnp.asarray(w) for w in initial_weights(settings)]
    network = [list(layer) for layer in zip(weights[::2], weights[1::2], strict=True)]
    if settings.normalization == "layer":
        for index in range(len(network)):
            if index not in linear_layers(settings):
                network[index] += [jnp.ones_like(network[index][1]), jnp.zeros_like(network[index][1])]
    zeros = jax.tree.map(jnp.zeros_like, network)
    state = (network, zeros, zeros, jnp.float32(0))
    validate = jax.jit(loss)
    for epoch in range(1, settings.epochs + 1):
        state, train_loss = train_epoch(state, order(settings, epoch, len(images)), rates[epoch - 1])
        float(train_loss)
        yield float(validate(state[0], validation))


def matrix_products(settings: Model) -> Iterator[None]:
    """The limit: the matrix products of an epoch and its validation alone, by NumPy's OpenBLAS."""
    random = np.random.default_rng(0)
    train, validation = len(files.read_images("train")), len(files.read_images("validation"))
    sizes = layer_sizes(settings, math.prod(shape()))
    layers = []
    for n, k in pairwise(sizes):
        shapes = {"x": (settings.batch_size, n), "w": (n, k), "g": (settings.batch_size, k)}
        arrays = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        layers.append((arrays, {name: np.empty_like(a) for name, a in arrays.items()}))
    while True:
        for _ in range(train // settings.batch_size):
            for index, (a, out) in enumerate(layers):
                np.matmul(a["x"], a["w"], out=out["g"])  # forward
                np.matmul(a["x"].T, a["g"], out=out["w"])  # gradient of the weights
                if index:  # the image needs no gradient
                    np.matmul(a["g"], a["w"].T, out=out["x"])
        for _ in range(-(-validation // settings.batch_size)):
            for a, out in layers:
                np.matmul(a["x"], a["w"], out=out["g"])
        yield None


CONTENDERS: dict[str, tuple[Contender, str | None]] = {
    "this engine": (engine, None),
    "tutorial's fit": (tutorial, None),
    "fit, resident": (resident_fit, None),
    "PyTorch eager": (pytorch, "torch"),
    "PyTorch compiled": (pytorch_compiled, "torch"),
    "JAX scan": (jax, "jax"),
    "matrix products": (matrix_products, None),
}


QUALITY = [
    ("tutorial's fit", True),
    ("fit, resident", True),
    ("PyTorch eager", True),
    ("JAX scan", True),
    ("this engine", True),
    ("fit, resident", False),
    ("PyTorch eager", False),
    ("JAX scan", False),
    ("this engine", False),
]  # contender, and whether it takes the tutorial's recipe or that of params.yaml
CONV = {"layers": "conv", "hidden_units": [16, 32]}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "the tutorial's recipe": ("this engine", {}),
    "`hidden_activation: silu`": ("this engine", {"hidden_activation": "silu"}),
    "`normalization: layer`": ("this engine", {"normalization": "layer"}),
    "both": ("this engine", {"hidden_activation": "silu", "normalization": "layer"}),
    "`normalization: batch`": ("this engine", {"normalization": "batch"}),
    "`noise: 0.3`": ("this engine", {"noise": 0.3}),
    "`dropout: 0.1`": ("this engine", {"dropout": 0.1}),
    "`shift: 1`": ("this engine", {"shift": 1}),
    "`ema_momentum: 0.99`": ("this engine", {"ema_momentum": 0.99}),
    "`precision: mixed_bfloat16`": ("this engine", {"precision": "mixed_bfloat16"}),
    "`layers: conv`, `hidden_units: [16, 32]`": ("this engine", CONV),
    "the same by the tutorial's `fit`": ("tutorial's fit", CONV),
    "the same by `fit`, resident": ("fit, resident", CONV),
}  # what is trained: by which contender, and what differs from the tutorial's recipe


def work(contender: str, model: str, changes: dict[str, Any]) -> None:
    """A worker process: for each line of input train an epoch, answer with its seconds and validation loss."""
    if contender not in ("this engine", "matrix products"):
        os.environ.clear()
        os.environ.update(PLAIN)
    epochs = CONTENDERS[contender][0](read_params(Params).models[model].model_copy(update=changes))
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = next(epochs)
        print(json.dumps([time.perf_counter() - start, loss]), flush=True)


def start(contender: str, model: str, changes: dict[str, Any], folder: Path = ROOT) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.training", "--models", model]
    return subprocess.Popen(
        [*command, "--worker", contender, "--changes", json.dumps(changes)],
        cwd=folder,
        env=PLAIN | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def epoch(worker: subprocess.Popen[str]) -> tuple[float, float | None]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    seconds, loss = json.loads(worker.stdout.readline())
    return seconds, loss


def title(model: str, contenders: Iterable[str]) -> list[str]:
    """Print the heading of a table, and name the contenders whose library is not installed; return the others."""
    libraries = {name: CONTENDERS[name][1] for name in contenders}
    missing = sorted({library for library in libraries.values() if library and not importlib.util.find_spec(library)})
    print(f"\n## {model}\n" + (f"\nnot installed: {', '.join(missing)}\n" if missing else ""))
    return [name for name, library in libraries.items() if library not in missing]


def check_peers(model: str, changes: dict[str, Any]) -> None:
    """End the process with a sentence if PyTorch and JAX would train something else than the settings say."""
    settings = read_params(Params).models[model].model_dump() | changes
    for key, values in PEERS_CAN.items():
        if settings[key] not in values:
            sys.exit(f"models.{model}.{key} is {settings[key]}, which the peers do not have; they have {values}.")


def compare(model: str, rounds: int) -> None:
    """Print the table of one model."""
    check_peers(model, ENDLESS)
    present = title(model, CONTENDERS)
    workers = {name: start(name, model, ENDLESS) for name in present}
    firsts = {name: epoch(worker) for name, worker in workers.items()}  # compile; not counted
    expected = firsts["this engine"][1]
    assert expected is not None
    for name, (_, loss) in firsts.items():
        if loss is not None and abs(loss - expected) > SAME_LOSS * expected:
            sys.exit(f"{name} has validation loss {loss} after an epoch, this engine {expected}: not the same training")

    seconds = take_turns(workers, rounds)
    print("| contender | seconds per epoch: median (min–max) | times this engine's | first epoch | its val_loss |")
    print("| --- | --- | --- | --- | --- |")
    for name, times in seconds.items():
        pairs = [a / b for a, b in zip(times, seconds["this engine"], strict=True)]
        loss = firsts[name][1]
        print(
            f"| {name} | {statistics.median(times):.3f} ({min(times):.3f}–{max(times):.3f}) "
            f"| {statistics.median(pairs):.2f}× | {firsts[name][0]:.1f} s | {'' if loss is None else f'{loss:.5f}'} |",
            flush=True,
        )


def take_turns(workers: dict[str, subprocess.Popen[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds per epoch of every worker in every round; ends the workers."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            time.sleep(PAUSE)
            turn = [epoch(worker)[0]]
            while sum(turn) < TURN:
                turn.append(epoch(worker)[0])
            seconds[name].append(sum(turn) / len(turn))
    for worker in workers.values():
        worker.kill()
    return seconds


def cost(model: str, rounds: int) -> None:
    """Print how long an epoch takes with one setting changed."""
    print(f"\n## {model}\n")
    print("| setting | seconds per epoch: median (min–max) | times the first row's | first epoch |")
    print("| --- | --- | ---: | ---: |")
    workers = {name: start(by, model, ENDLESS | changes) for name, (by, changes) in SETTINGS.items()}
    firsts = {name: epoch(worker)[0] for name, worker in workers.items()}
    seconds = take_turns(workers, rounds)
    base = next(iter(seconds.values()))
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, base, strict=True))
        print(
            f"| {name} | {statistics.median(times):.2f} ({min(times):.2f}–{max(times):.2f}) | {ratio:.2f}× "
            f"| {firsts[name]:.1f} s |"
        )


def reach(model: str) -> None:
    """Print how long each contender takes, from the start of its process, to the tutorial's validation loss."""
    for changes in (ENDLESS, WITH_ADAM):
        check_peers(model, changes)
    present = title(model, [name for name, _ in QUALITY])
    print("| contender | recipe | epochs | seconds | to the first epoch's end | its val_loss | times as fast |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    goal, tutorials = -math.inf, math.nan  # the first contender runs all its epochs, and sets both
    expected: dict[bool, float] = {}  # validation loss after an epoch, by whether the recipe is the tutorial's
    for name, of_tutorial in QUALITY:
        if name not in present:
            continue
        time.sleep(PAUSE)
        began = time.perf_counter()
        worker = start(name, model, ENDLESS if of_tutorial else WITH_ADAM)
        losses: list[float] = []
        most = TUTORIAL_EPOCHS if goal == -math.inf else 2 * TUTORIAL_EPOCHS
        if not of_tutorial:
            most = read_params(Params).models[model].epochs
        while len(losses) < most and (not losses or losses[-1] > goal):
            _, loss = epoch(worker)
            assert loss is not None
            losses.append(loss)
            if len(losses) == 1:
                first = time.perf_counter() - began
        seconds = time.perf_counter() - began
        worker.kill()
        if goal == -math.inf:
            goal, tutorials = losses[-1], seconds
        same = expected.setdefault(of_tutorial, losses[0])
        if abs(losses[0] - same) > SAME_LOSS * same:
            sys.exit(f"{name} has validation loss {losses[0]} after an epoch, another {same}: not the same training")
        if losses[-1] > goal:
            sys.exit(f"{name} did not reach the validation loss {goal:.5f} in {most} epochs")
        recipe = "tutorial" if of_tutorial else "params.yaml, Adam"
        print(
            f"| {name} | {recipe} | {len(losses)} | {seconds:.1f} | {first:.1f} | {losses[-1]:.5f} "
            f"| {tutorials / seconds:.1f}× |",
            flush=True,
        )


def peak_memory(process: subprocess.Popen[str]) -> int:
    """The largest resident memory of a running process so far in MiB, less its pages of images on disk; Linux only."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    of_file = False
    for line in Path(f"/proc/{process.pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0]:  # the first line of a mapping
            of_file = line.endswith("train_images.npy")
        elif of_file and line.startswith("Rss:"):
            peak -= int(line.split()[1])  # the operating system takes these back when it needs them
    return peak // 1024


def grow(model: str) -> None:
    """Print peak memory and time per image of this engine as the training images multiply; the last set streams."""
    print(f"\n## {model}\n")
    print("| training images | as bytes | peak memory | microseconds per image and epoch |")
    print("| ---: | ---: | ---: | ---: |")
    for factor in (1, 2, 4, 8, 50):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for settings in ("params.yaml", "presets.yaml"):
                shutil.copy(settings, folder)
            images = files.read_images("train")
            target = folder / files.images_path("train")
            target.parent.mkdir(parents=True)
            shutil.copy(files.images_path("validation"), target.parent)
            many_shape = (factor * len(images), *images.shape[1:])
            many = np.lib.format.open_memmap(target, "w+", np.uint8, many_shape)
            for part in range(factor):
                many[part * len(images) : (part + 1) * len(images)] = images
            many.flush()
            worker = start("this engine", model, ENDLESS, folder)
            epoch(worker)  # compiles
            seconds = min(epoch(worker)[0] for _ in range(5 if factor < 10 else 2))
            peak, size = peak_memory(worker), many.nbytes // 2**20
            worker.kill()
            print(f"| {len(many):,} | {size} MiB | {peak} MiB | {seconds / len(many) * 1e6:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds per epoch of the training engine and its peers.")
    parser.add_argument("--models", nargs="+", default=list(read_params(Params).models), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, help="turns per contender (default 5)")
    parser.add_argument("--quality", action="store_true", help="seconds until as good as the tutorial's training")
    parser.add_argument("--settings", action="store_true", help="seconds per epoch with one setting changed")
    parser.add_argument("--changes", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help="peak memory and time per image with ever more images")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.models[0], arguments.changes)
        return
    for model in arguments.models:
        if arguments.memory:
            grow(model)
        elif arguments.settings:
            cost(model, arguments.rounds)
        elif arguments.quality:
            reach(model)
        else:
            compare(model, arguments.rounds)


if __name__ == "__main__":
    main()
