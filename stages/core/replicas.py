"""Several machines or several GPUs train one model, each on its share of every batch.

Each replica computes the gradient of its share, and the gradients are added up. Batches,
their order and the learning rate stay those of one process, so the losses do too, to the
rounding of their sums. XLA compiles a step here, not the loop over an epoch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stages.core.augmentation import Change
from stages.core.backend import keras, tf
from stages.core.cluster import Cluster, broadcast, check_same_run, join, raise_if_worker_lost, read_cluster
from stages.core.epoch import (
    Compiled,
    compile_training,
    in_blocks,
    minimised,
    sum_over_batches,
    total_parts,
    validation_key,
)
from stages.core.images import Place, resident, scaled
from stages.core.objective import Objective


@dataclass(frozen=True)
class Replicas:
    """Who trains: one replica of the model, or several that share every batch, and how."""

    count: int
    cluster: Cluster | None  # None if this process is alone
    place: Place
    compile_training: Callable[[keras.Model, Objective, keras.Optimizer, int, Change, Change], Compiled]

    @property
    def is_chief(self) -> bool:
        """Whether this process reads checkpoints, reports and writes."""
        return self.cluster is None or self.cluster.position == 0

    def check_same_run(self, digests: dict[str, str]) -> None:
        """Raise StageError if what determines the run is not the same in every process."""
        if self.cluster:
            check_same_run(digests, self.cluster)

    def broadcast(self, content: bytes) -> bytes:
        """The chief's `content` in every process."""
        return broadcast(content, self.cluster) if self.cluster else content


ONE = Replicas(1, None, resident, compile_training)


@contextmanager
def join_replicas() -> Iterator[Replicas]:
    """The processes that TF_CONFIG names, else the GPUs of this machine if there are several, else this process alone.

    Has to come before TensorFlow runs anything.
    Raises ParamsError if TF_CONFIG makes no sense, and StageError if another process is lost.
    """
    cluster = read_cluster()
    strategy = join(cluster)
    if strategy.num_replicas_in_sync == 1:
        yield ONE
        return
    with strategy.scope(), raise_if_worker_lost():
        # operations outside XLA need memory that is aligned, which NumPy's is not: hence the copy
        yield Replicas(strategy.num_replicas_in_sync, cluster, tf.constant, compile_replicated_training)


def compile_replicated_training(
    model: keras.Model,
    objective: Objective,
    optimizer: keras.Optimizer,
    batch_size: int,
    augment: Change,
    corrupt: Change,
) -> Compiled:
    """As `epoch.compile_training`, for the replicas of the present distribution strategy."""
    variables = model.trainable_variables
    optimizer.build(variables)
    strategy = tf.distribute.get_strategy()

    @tf.function(jit_compile=True)
    def gradients(images: tf.Tensor, step: tf.Tensor, weight: float) -> tuple[list[tf.Tensor], tf.Tensor]:
        whole = scaled(images)
        image, seen = share(whole), share(corrupt(whole, step))  # the draws of one process
        drawn = share(objective.draw(images.shape[0], step))  # likewise
        with tf.GradientTape() as tape:
            parts = objective.parts(image, seen, drawn, True)
            mean = minimised(parts, objective, step, model) * weight
        return tape.gradient(mean, variables), total_parts(parts, model)

    def train_step(images: tf.Tensor) -> tf.Tensor:
        own = len(share(images))
        if not own:  # fewer images than replicas
            optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
            return tf.zeros(2)
        gradient, total = gradients(images, tf.convert_to_tensor(optimizer.iterations), own / len(images))
        optimizer.apply(gradient, variables)  # adds up the replicas' gradients
        return total

    @tf.function
    def train_block(images: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        def step(indices: tf.Tensor) -> tf.Tensor:
            batch = augment(tf.gather(images, indices), optimizer.iterations)
            return strategy.reduce("SUM", strategy.run(train_step, args=(batch,)), axis=None)

        return sum_over_batches(step, order, batch_size)

    @tf.function(jit_compile=True)
    def eval_share(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        image = share(scaled(images))
        return total_parts(objective.parts(image, image, share(objective.draw(images.shape[0], key)), False), model)

    def eval_step(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        # called here, so that it runs on the replica's device
        return eval_share(images, key) if len(share(images)) else tf.zeros(2)

    @tf.function
    def eval_block(images: tf.Tensor, order: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        def step(indices: tf.Tensor) -> tf.Tensor:
            batch = tf.gather(images, indices), validation_key(indices, first)
            return strategy.reduce("SUM", strategy.run(eval_step, args=batch), axis=None)

        return sum_over_batches(step, order, batch_size)

    return in_blocks(train_block, eval_block, objective, batch_size, tf.constant)


def share(items: tf.Tensor) -> tf.Tensor:
    """The part of `items` that falls to this replica, one after another."""
    context = tf.distribute.get_replica_context()
    replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
    return items[len(items) * replica // replicas : len(items) * (replica + 1) // replicas]
