"""Compare the training engine with the tutorial's loop, PyTorch, JAX and the bare matrix products.

    python -m tests.benchmarks.training                  # seconds per epoch, five rounds: 6 minutes on 2 cores
    python -m tests.benchmarks.training --quality        # seconds to the tutorial's quality: 20 minutes
    python -m tests.benchmarks.training --settings --models deep   # what settings cost: 5 minutes
    python -m tests.benchmarks.training --models shallow --rounds 9

Needs the arrays of `dvc repro prepare`. `pip install -r requirements-bench.txt`, after `requirements-dev.txt`, brings
the peers; those that are missing are named and left out. Every contender trains the same network from the same weights
with the tutorial's recipe (ReLU, no normalization, Adam at a constant 0.001); only layers' sizes, batch size and seed
are those of params.yaml. With --quality, Keras' `fit` and the engine also train with all that params.yaml says. Images
are resident as bytes where a library allows. An epoch adds up the training loss, has the same number of whole batches
for all, leaves out the rest, and ends with the validation loss. Each contender runs in a process of its own; the
processes take turns of at least a second, so that a machine that slows down slows all of them. First all have to reach
the same validation loss.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
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
from stages.core.tables import markdown
from tests.conftest import TUTORIAL

Contender = Callable[[Model], Iterator[float | None]]  # each step trains an epoch and yields the validation loss
ROOT = Path(__file__).parents[2]
PLAIN_MODEL = TUTORIAL | {
    "layers": "dense", "latent_activation": "linear", "dropout": 0.0, "noise": 0.0, "shift": 0, "code_l1": 0.0,
    "kl_weight": 0.0, "kl_warmup_epochs": 0.0, "weight_decay": 0.0, "precision": "float32",
    "epochs": 1000,  # more than all turns take
}  # fmt: skip
TUTORIAL_EPOCHS = 50  # after which its validation loss is the quality that others have to reach
SAME_LOSS = 0.02  # relative, after an epoch: rounding differs, and `fit` shuffles in an order of its own
SAME_LOSS_OF_LARGE_STEPS = 0.05  # the recipe of params.yaml takes them, so the order matters more
ADAM_EPSILON = 1e-7  # Keras' default
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


def fit(settings: Model, resident: bool) -> Iterator[float]:
    """Keras' `fit` on float arrays. resident: on tensors, compiled, an epoch per call, the fastest way we know.

    `steps_per_epoch` ends the epoch before the partial batch, as all contenders do.
    """
    from stages.core.backend import tf
    from stages.core.optimizer import build_optimizer

    images, validation = (pixels(split) / np.float32(255) for split in ("train", "validation"))
    model, steps = keras_model(settings), len(images) // settings.batch_size
    options: dict[str, Any] = {}
    if resident:
        images, validation = tf.constant(images), tf.constant(validation)
        options = {"jit_compile": True, "steps_per_execution": steps}
    model.compile(build_optimizer(settings, steps), settings.loss, **options)
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
            network.append(torch.nn.ReLU())
    loss = torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate, fused=True)
    images, validation = torch.tensor(pixels("train")), torch.tensor(pixels("validation"))

    def forward(batch: Any) -> Any:
        image = batch.float() / 255
        return loss(network(image), image)

    if compiled:
        forward = torch.compile(forward)
    step = 0
    for epoch in range(1, settings.epochs + 1):
        total = 0.0
        batches = torch.tensor(order(settings, epoch, len(images)))
        for batch in batches:
            step += 1
            # Keras adds its epsilon before the correction of the bias, PyTorch behind it
            optimizer.param_groups[0]["eps"] = ADAM_EPSILON / math.sqrt(1 - 0.999**step)
            optimizer.zero_grad()
            mean = forward(images[batch])
            mean.backward()
            optimizer.step()
            total += float(mean.detach()) * len(batch)
        with torch.no_grad():
            parts = validation.split(settings.batch_size)
            yield sum(float(forward(part)) * len(part) for part in parts) / len(validation)


def jax(settings: Model) -> Iterator[float]:
    """`lax.scan` over the batches of an epoch; Adam written out."""
    import jax
    import jax.numpy as jnp

    images, validation = jnp.asarray(pixels("train")), jnp.asarray(pixels("validation"))

    def loss(network: Any, batch: Any) -> Any:
        image = hidden = batch.astype(jnp.float32) / 255
        for index, (kernel, bias) in enumerate(network):
            hidden = hidden @ kernel + bias
            if index not in linear_layers(settings):
                hidden = jax.nn.relu(hidden)
        return jnp.mean(jnp.maximum(hidden, 0) - hidden * image + jnp.log1p(jnp.exp(-jnp.abs(hidden))))

    def step(state: Any, batch: Any) -> Any:
        network, means, squares, count = state
        mean, gradients = jax.value_and_grad(loss)(network, images[batch])
        count += 1
        rate = settings.learning_rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
        squares = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, squares, gradients)
        network = jax.tree.map(lambda w, m, s: w - rate * m / (jnp.sqrt(s) + ADAM_EPSILON), network, means, squares)
        return (network, means, squares, count), mean * len(batch)

    @jax.jit
    def train_epoch(state: Any, batches: Any) -> Any:
        state, losses = jax.lax.scan(step, state, batches)
        return state, losses.sum() / batches.size

    weights = [jnp.asarray(w) for w in initial_weights(settings)]
    network = [list(layer) for layer in zip(weights[::2], weights[1::2], strict=True)]
    zeros = jax.tree.map(jnp.zeros_like, network)
    state = (network, zeros, zeros, jnp.float32(0))
    validate = jax.jit(loss)
    for epoch in range(1, settings.epochs + 1):
        state, train_loss = train_epoch(state, order(settings, epoch, len(images)))
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
    "tutorial's fit": (partial(fit, resident=False), None),
    "fit, resident": (partial(fit, resident=True), None),
    "PyTorch eager": (pytorch, "torch"),
    "PyTorch compiled": (partial(pytorch, compiled=True), "torch"),
    "JAX scan": (jax, "jax"),
    "matrix products": (matrix_products, None),
}  # and the library that each needs
QUALITY: list[tuple[str, dict[str, Any]]] = [
    ("tutorial's fit", PLAIN_MODEL),  # comes first and sets the goal
    ("fit, resident", PLAIN_MODEL),
    ("PyTorch eager", PLAIN_MODEL),
    ("JAX scan", PLAIN_MODEL),
    ("this engine", PLAIN_MODEL),
    ("fit, resident", {}),
    ("this engine", {}),
]  # contender, and what differs from params.yaml
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


def start(contender: str, model: str, changes: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.training", "--models", model]
    return subprocess.Popen(
        [*command, "--worker", contender, "--changes", json.dumps(changes)],
        cwd=ROOT,
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


def is_present(contender: str) -> bool:
    """Whether its library is installed; prints its name if not."""
    library = CONTENDERS[contender][1]
    if library and not importlib.util.find_spec(library):
        print(f"{contender} is left out: {library} is not installed")
        return False
    return True


def check_loss(name: str, loss: float | None, expected: float | None, tolerance: float = SAME_LOSS) -> None:
    """End the process with a sentence if a contender's training differs from another's."""
    if loss and expected and abs(loss - expected) > tolerance * expected:
        sys.exit(f"{name} has validation loss {loss} after an epoch, another {expected}: not the same training")


def compare(model: str, rounds: int, runs: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """Print how long an epoch of each run takes, and how that compares with the first one."""
    workers = {
        name: start(contender, model, PLAIN_MODEL | changes)
        for name, (contender, changes) in runs.items()
        if is_present(contender)
    }
    firsts = {name: epoch(worker) for name, worker in workers.items()}  # compile; not counted
    base = next(iter(workers))
    for name, (_, loss) in firsts.items():
        if not runs[name][1]:
            check_loss(name, loss, firsts[base][1])
    seconds = take_turns(workers, rounds)
    rows = []
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds[base], strict=True))
        spread = f"{statistics.median(times):.3f} ({min(times):.3f}–{max(times):.3f})"
        first, loss = firsts[name]
        rows.append([name, spread, f"{ratio:.2f}×", f"{first:.1f} s", f"{loss:.5f}" if loss else ""])
    heads = [model, "seconds per epoch: median (min–max)", "times the first row's", "first epoch", "its val_loss"]
    print(markdown(heads, rows), "\n")


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


def reach(model: str) -> None:
    """Print how long each contender takes, from the start of its process, to the tutorial's validation loss."""
    goal, tutorials, most = -math.inf, math.nan, TUTORIAL_EPOCHS  # until the first contender has run
    expected: dict[str, float] = {}  # validation loss after an epoch with each recipe
    rows = []
    for name, changes in QUALITY:
        if not is_present(name):
            continue
        losses, times = losses_until(goal, name, model, changes, most)
        if goal == -math.inf:
            goal, tutorials, most = losses[-1], times[-1], 2 * TUTORIAL_EPOCHS
        recipe = "tutorial" if changes else "params.yaml"
        tolerance = SAME_LOSS if changes else SAME_LOSS_OF_LARGE_STEPS
        check_loss(name, losses[0], expected.setdefault(recipe, losses[0]), tolerance)
        if losses[-1] > goal:
            sys.exit(f"{name} did not reach the validation loss {goal:.5f} in {len(losses)} epochs")
        speed = f"{tutorials / times[-1]:.1f}×"
        rows.append([name, recipe, len(losses), f"{times[-1]:.1f}", f"{times[0]:.1f}", f"{losses[-1]:.5f}", speed])
        print(*rows[-1], flush=True)
    heads = [model, "recipe", "epochs", "seconds", "to the first epoch's end", "its val_loss", "times as fast"]
    print(markdown(heads, rows), "\n")


def losses_until(
    goal: float, name: str, model: str, changes: dict[str, Any], most: int
) -> tuple[list[float], list[float]]:
    """The validation loss after each epoch, and the seconds since the start, until the loss reaches the goal."""
    time.sleep(PAUSE)
    began = time.perf_counter()
    worker = start(name, model, changes)
    losses: list[float] = []
    times: list[float] = []
    if not changes:
        most = read_params(Params).models[model].epochs
    while len(losses) < most and (not losses or losses[-1] > goal):
        _, loss = epoch(worker)
        assert loss is not None
        losses.append(loss)
        times.append(time.perf_counter() - began)
    worker.kill()
    return losses, times


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds per epoch of the training engine and its peers.")
    parser.add_argument("--models", nargs="+", default=list(read_params(Params).models), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, help="turns per contender (default 5)")
    parser.add_argument("--quality", action="store_true", help="seconds until as good as the tutorial's training")
    parser.add_argument("--settings", action="store_true", help="seconds per epoch with one setting changed")
    parser.add_argument("--changes", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.models[0], arguments.changes)
        return
    runs = SETTINGS if arguments.settings else {name: (name, {}) for name in CONTENDERS}
    for model in arguments.models:
        if arguments.quality:
            reach(model)
        else:
            compare(model, arguments.rounds, runs)


if __name__ == "__main__":
    main()
