"""The schema of params.yaml: its keys, their types and ranges, and which of them exclude each other.

params.yaml itself says what each key means. A new parameter is a field here and a line there.
Validation never changes a value, so no stage depends on this file in dvc.yaml: what counts are
the values, which DVC tracks as params.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

Activation = Literal[
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "mish", "relu",
    "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh",
]  # fmt: skip
Loss = Literal["binary_crossentropy", "mse", "mae", "huber"]
# Keras' usual optimizers, less Adafactor: compiled by XLA it turns pixels that are always black into NaN.
Optimizer = Literal[
    "adadelta", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "muon", "nadam", "rmsprop", "sgd",
]  # fmt: skip


def all_or_labels(value: Any) -> Any:
    """By hand, since pydantic reports what is wrong with each side of a union."""
    labels = isinstance(value, list) and all(type(label) is int and 0 <= label <= 255 for label in value)
    if value != "all" and not (labels and 0 < len(set(value)) == len(value)):
        raise PydanticCustomError("classes", "It should be all or a list of different labels from 0 to 255")
    return value


Units = Annotated[int, Field(ge=1, le=16384)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Epochs = Annotated[float, Field(ge=0, le=100_000)]  # or a part of one
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# Not anomalies: its metrics would be those of the stage.
ModelName = Annotated[str, StringConstraints(pattern=r"^(?!(?:pca|anomalies)\Z)[a-z][a-z0-9_-]{0,39}\Z")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, regex_engine="python-re", allow_inf_nan=False)

    def clashes(self) -> list[str]:
        """What is wrong with settings that are possible one by one, in words."""
        return []

    @model_validator(mode="after")
    def check_clashes(self) -> Self:
        if problems := self.clashes():
            raise ValueError("\n".join(problems))
        return self


class Prepare(Section):
    raw: str = Field(min_length=1)
    validation_images: int = Field(ge=0)
    classes: Annotated[Literal["all"] | list[int], PlainValidator(all_or_labels)]
    seed: Seed


class Recipe(Section):
    """How a network is trained, except for the seed: what the optimizer and the loop over epochs read."""

    optimizer: Optimizer
    beta_2: Share
    learning_rate: float = Field(gt=0, le=100)
    schedule: Literal["constant", "cosine", "linear"]
    warmup_epochs: Epochs
    weight_decay: float = Field(ge=0, le=100)
    ema_momentum: Share
    batch_size: int = Field(ge=1, le=2**20)
    epochs: int = Field(ge=1, le=100_000)
    early_stopping: int = Field(ge=0, le=100_000)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]

    def clashes(self) -> list[str]:
        problems = []
        if self.schedule == "constant" and self.warmup_epochs > 0:
            problems.append(
                f"warmup_epochs is {self.warmup_epochs:g}, but schedule is constant; set it to 0, or schedule to "
                "cosine or linear"
            )
        if self.schedule != "constant" and self.warmup_epochs >= self.epochs:
            problems.append(f"warmup_epochs is {self.warmup_epochs:g}, but has to be below epochs, {self.epochs}")
        if self.early_stopping >= self.epochs:
            problems.append(f"early_stopping is {self.early_stopping}, but has to be below epochs, {self.epochs}")
        return problems


class Model(Recipe):
    """All settings of a model: its layers, what it minimises, and its recipe. They have to suit each other."""

    layers: Literal["dense", "conv"]
    hidden_units: list[Units] = Field(max_length=64)
    hidden_activation: Activation
    latent_dim: Units
    latent_activation: Activation
    normalization: Literal["none", "batch", "layer"]
    dropout: Share
    noise: float = Field(ge=0, le=10)
    shift: int = Field(ge=0, le=8)
    code_l1: Weight
    kl_weight: Weight
    kl_warmup_epochs: Epochs
    loss: Loss
    seed: Seed

    def clashes(self) -> list[str]:
        problems = []
        if self.layers == "conv" and not self.hidden_units:
            problems.append("layers is conv, but hidden_units is []; a convolutional model needs a hidden layer")
        if self.normalization != "none" and not self.hidden_units:
            problems.append(f"normalization is {self.normalization}, but there is no hidden layer; set it to none")
        if self.dropout > 0 and not self.hidden_units:
            problems.append(f"dropout is {self.dropout:g}, but there is no hidden layer; set it to 0")
        if self.latent_activation == "softmax" and self.latent_dim == 1:
            problems.append("latent_activation is softmax, but latent_dim is 1; that code would always be 1")
        if self.latent_activation == "softmax" and self.code_l1 > 0:
            problems.append(
                f"code_l1 is {self.code_l1:g}, but latent_activation is softmax, whose codes always add up to 1"
            )
        if self.kl_weight > 0 and self.latent_activation != "linear":
            problems.append(
                f"latent_activation is {self.latent_activation}, but with a kl_weight the code is the mean of a "
                "Gaussian; set it to linear"
            )
        if self.kl_weight > 0 and self.code_l1 > 0:
            problems.append(f"code_l1 is {self.code_l1:g} and kl_weight is {self.kl_weight:g}; set one of them to 0")
        if self.kl_weight > 0 and self.kl_warmup_epochs >= self.epochs:
            problems.append(f"kl_warmup_epochs is {self.kl_warmup_epochs:g}, but has to be below epochs, {self.epochs}")
        if self.kl_weight == 0 and self.kl_warmup_epochs > 0:
            problems.append(f"kl_warmup_epochs is {self.kl_warmup_epochs:g}, but kl_weight is 0; set it to 0")
        return problems + super().clashes()


class Evaluate(Section):
    active_variance: float = Field(gt=0, le=1e6)
    ridge: float = Field(gt=0, le=1e12)
    seed: Seed


class Compare(Section):
    resamples: int = Field(ge=100, le=100_000)
    seed: Seed


class Figures(Section):
    dpi: int = Field(ge=50, le=600)
    classes: int = Field(ge=1, le=256)


class Params(Section):
    """What the core reads. An application or a tool extends it by a section of its own; other sections are ignored."""

    model_config = ConfigDict(extra="ignore")

    prepare: Prepare
    defaults: Model  # in its own right, too
    models: dict[ModelName, Model] = Field(min_length=1)
    presets: dict[ModelName, Model]
    evaluate: Evaluate
    compare: Compare
    figures: Figures

    def clashes(self) -> list[str]:
        problems = [
            f"presets.{name} has the name of a model in params.yaml" for name in self.presets if name in self.models
        ]
        for key, recipe in self.recipes().items():
            if recipe.early_stopping and not self.prepare.validation_images:
                problems.append(
                    f"{key}.early_stopping is {recipe.early_stopping}, but prepare.validation_images is 0, so the test "
                    "images would choose the epoch; change one of them"
                )
        return problems

    def recipes(self) -> dict[str, Recipe]:
        """Everything that trains a network, by its key."""
        models = {f"models.{name}": model for name, model in self.models.items()}
        presets = {f"presets.{name}": model for name, model in self.presets.items()}
        return {"defaults": self.defaults, **models, **presets}
