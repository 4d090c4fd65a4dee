"""The schema of params.yaml: its keys, their types and ranges, and what they mean.

A new parameter is a field here and a line in every block of params.yaml that has it; there
are no defaults. Validation never changes a value, so no stage depends on these files in
dvc.yaml: what counts are the values, which DVC tracks as params.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

Activation = Literal[
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "mish", "relu",
    "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh",
]  # fmt: skip
Loss = Literal["binary_crossentropy", "mse", "mae", "huber"]
# Keras' usual optimizers, less Adafactor: compiled by XLA it turns pixels that are always black into NaN.
Optimizer = Literal[
    "adadelta", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "muon", "nadam",
    "rmsprop", "sgd",
]  # fmt: skip
Objective = Literal["mse", "bce", "ssim", "probe", "parameters", "latent_dim"]
BETA_2 = ("adam", "adamax", "adamw", "lion", "nadam")  # the optimizers that have it


Count = Annotated[int, Field(ge=1, le=10_000_000)]
Deviation = Annotated[float, Field(gt=0, le=10)]
Units = Annotated[int, Field(ge=1, le=16384)]
ModelName = Annotated[str, StringConstraints(pattern=r"^(?!pca\Z)[a-z][a-z0-9_-]{0,39}\Z")]

ALL_OR_LABELS = {
    "anyOf": [
        {"enum": ["all"]},
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 255},
            "minItems": 1,
            "uniqueItems": True,
        },
    ]
}


def no_value_twice(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("twice", "a value stands there twice")
    return values


def all_or_labels(value: Any) -> Any:
    """By hand, since of a value that fits neither side of a union pydantic tells what is wrong with each."""
    labels = isinstance(value, list) and all(type(label) is int and 0 <= label <= 255 for label in value)
    if value != "all" and not (labels and 0 < len(set(value)) == len(value)):
        raise PydanticCustomError("classes", "neither all nor a list of labels")
    return value


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, regex_engine="python-re", allow_inf_nan=False)


class Prepare(Section):
    raw: str = Field(min_length=1, description="folder with the four IDX files, gzipped or not (MNIST's form)")
    validation_images: int = Field(
        ge=0,
        description="training images held out for validation, the same share of every class, before `classes` leaves "
        "some out; 0 trains on all and monitors on the test images, as tutorials do, without early stopping",
    )
    classes: Annotated[Literal["all"] | list[int], PlainValidator(all_or_labels), WithJsonSchema(ALL_OR_LABELS)] = (
        Field(
            description="classes of the training and validation images that are kept, which `prepare` looks for in the "
            "data; the test images keep all"
        )
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the choice of validation images")


class ModelLayers(Section):
    """What an autoencoder is made of, and what it minimises."""

    layers: Literal["dense", "conv"] = Field(
        description="kind of the hidden layers; conv ones are 3×3 and halve height and width in the encoder, double "
        "them in the decoder"
    )
    hidden_units: list[Units] = Field(
        max_length=64,
        description="units (of conv layers: filters) of the encoder's hidden layers, from image to latent; the "
        "decoder mirrors them; [] is a shallow autoencoder",
    )
    hidden_activation: Activation = Field(description="activation of the hidden layers")
    latent_dim: Units = Field(
        description="size of the latent code; below the number of pixels the autoencoder is "
        "undercomplete and has to compress, else overcomplete"
    )
    latent_activation: Activation = Field(description="activation of the latent layer")
    normalization: Literal["none", "batch", "layer"] = Field(
        description="normalization between each hidden layer and its activation"
    )
    dropout: float = Field(
        ge=0, lt=1, description="share of the hidden layers' outputs that training sets to zero; 0 for none"
    )
    noise: float = Field(
        ge=0,
        le=10,
        description="standard deviation of the Gaussian noise that training adds to the input, not to the target "
        "(a denoising autoencoder); 0 for none",
    )
    shift: int = Field(
        ge=0, le=8, description="pixels by which training moves each image at random, target too; 0 for none"
    )
    code_l1: float = Field(
        ge=0, le=1e6, description="weight of the codes' absolute values in the loss (a sparse autoencoder); 0 for none"
    )
    kl_weight: float = Field(
        ge=0,
        le=1e6,
        description="weight of the codes' Kullback-Leibler divergence from a standard normal, beside the loss summed "
        "over pixels (a variational autoencoder, whose encoder gives the mean of a Gaussian); with binary_crossentropy "
        "1 is the evidence lower bound, more a beta-VAE; 0 for none",
    )
    kl_warmup_epochs: float = Field(
        ge=0, le=100_000, description="epochs, or a part of one, in which kl_weight first rises from zero"
    )
    loss: Loss = Field(description="what training minimises, between image and reconstruction")


class Recipe(Section):
    """How a network is trained: the settings that the optimizer and the loop over epochs read."""

    optimizer: Optimizer = Field(description="the Keras optimizer, its other settings as Keras has them")
    beta_2: float = Field(
        ge=0,
        lt=1,
        description=f"the second decay rate of {', '.join(BETA_2[:-1])} and {BETA_2[-1]}, for most that of the mean "
        "of squared gradients; 0 for Keras' own value",
    )
    learning_rate: float = Field(
        gt=0, le=100, description="the optimizer's step size; with a schedule that is not constant, its largest"
    )
    schedule: Literal["constant", "cosine", "linear"] = Field(
        description="the learning rate over the epochs: cosine falls to zero along half a wave, linear in a straight "
        "line"
    )
    warmup_epochs: float = Field(
        ge=0,
        le=100_000,
        description="epochs, or a part of one, in which the learning rate of a schedule that is not constant first "
        "rises from zero",
    )
    weight_decay: float = Field(
        ge=0, le=100, description="share of each weight, times the learning rate, taken off at every step; 0 for none"
    )
    ema_momentum: float = Field(
        ge=0,
        lt=1,
        description="share of the old in the exponential moving average of the weights, which is validated and "
        "becomes the model; 0 for the weights themselves",
    )
    batch_size: int = Field(ge=1, le=2**20, description="images per step of the optimizer")
    epochs: int = Field(ge=1, le=100_000, description="passes over the training images")
    early_stopping: int = Field(
        ge=0,
        le=100_000,
        description="epochs without a better validation loss after which training stops and goes back to the best "
        "weights; 0 trains all epochs and keeps the last",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        description="arithmetic of the layers but the last; mixed pays for wide layers on GPUs, weights stay float32"
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the initial weights and of the order of images")

    def clashes(self) -> list[str]:
        """What is wrong with settings that are possible one by one, in words."""
        problems = []
        if self.beta_2 > 0 and self.optimizer not in BETA_2:
            problems.append(f"beta_2 is {self.beta_2:g}, but {self.optimizer} has no beta_2; it has to be 0")
        if self.schedule == "constant" and self.warmup_epochs > 0:
            problems.append(
                f"warmup_epochs is {self.warmup_epochs:g}, but schedule is constant; it has to be 0, or schedule "
                "cosine or linear"
            )
        if self.schedule != "constant" and self.warmup_epochs >= self.epochs:
            problems.append(f"warmup_epochs is {self.warmup_epochs:g}, but has to be below epochs, {self.epochs}")
        if self.early_stopping >= self.epochs:
            problems.append(f"early_stopping is {self.early_stopping}, but has to be below epochs, {self.epochs}")
        return problems

    @model_validator(mode="after")
    def check_combinations(self) -> Self:
        if problems := self.clashes():
            raise ValueError("\n".join(problems))
        return self


class Model(Recipe, ModelLayers):
    def clashes(self) -> list[str]:
        problems = []
        if self.layers == "conv" and not self.hidden_units:
            problems.append(
                "layers is conv, but hidden_units is []; a convolutional model has at least one hidden layer"
            )
        if self.normalization != "none" and not self.hidden_units:
            problems.append(
                f"normalization is {self.normalization}, but there is no hidden layer to normalize; it has to be none"
            )
        if self.dropout > 0 and not self.hidden_units:
            problems.append(
                f"dropout is {self.dropout:g}, but there is no hidden layer to drop outputs of; it has to be 0"
            )
        if self.latent_activation == "softmax" and self.latent_dim == 1:
            problems.append("latent_activation is softmax, but latent_dim is 1; that code would always be 1")
        if self.latent_activation == "softmax" and self.code_l1 > 0:
            problems.append(
                f"code_l1 is {self.code_l1:g}, but latent_activation is softmax; the sum of those codes is always 1"
            )
        if self.kl_weight > 0 and self.latent_activation != "linear":
            problems.append(
                f"latent_activation is {self.latent_activation}, but with a kl_weight the code is the mean of a "
                "Gaussian, which can be any number; it has to be linear"
            )
        if self.kl_weight > 0 and self.code_l1 > 0:
            problems.append(
                f"code_l1 is {self.code_l1:g}, but kl_weight is {self.kl_weight:g} and already draws codes to zero; "
                "one of them has to be 0"
            )
        if self.kl_weight == 0 and self.kl_warmup_epochs > 0:
            problems.append(f"kl_warmup_epochs is {self.kl_warmup_epochs:g}, but kl_weight is 0; it has to be 0")
        if self.kl_weight > 0 and self.kl_warmup_epochs >= self.epochs:
            problems.append(f"kl_warmup_epochs is {self.kl_warmup_epochs:g}, but has to be below epochs, {self.epochs}")
        return problems + super().clashes()


class ClassifierLayers(Section):
    """What a classifier is made of."""

    train: bool = Field(description="whether a classifier is trained, and the generation of digits is measured with it")
    filters: list[Units] = Field(
        max_length=16, description="filters of the 3×3 convolutions, each of which halves height and width"
    )
    features: Units = Field(
        description="units of the layer before the classes, whose outputs the Fréchet distance compares"
    )
    activation: Activation = Field(description="activation of the convolutions and of the features")
    dropout: float = Field(ge=0, lt=1, description="share of the features that training sets to zero; 0 for none")
    shift: int = Field(ge=0, le=8, description="pixels by which training moves each image at random; 0 for none")


class Classifier(Recipe, ClassifierLayers):
    pass


class Tune(Section):
    model: ModelName = Field(description="the block of models or presets whose settings the space replaces")
    space: dict[str, Any] = Field(
        min_length=1,
        description="the settings that vary, each a list of choices or a range with low and high, and log: true or a "
        "step; hidden_units may also be ranges or choices of layers, of units (the first layer's) and of ratio (of "
        "each further layer's width to the one before)",
    )
    objectives: list[Objective] = Field(
        min_length=1,
        max_length=2,
        description="what to improve, measured on validation images; two give a Pareto front",
    )
    trials: int = Field(ge=1, le=100_000, description="trainings of the whole study, those cut short included")
    epochs: int = Field(ge=1, le=100_000, description="epochs of a trial; the most, if the space varies epochs")
    seconds: int = Field(
        ge=0, le=10**9, description="training time of the whole study, added up over processes; 0 for no limit"
    )
    sampler: Literal["tpe", "random", "grid", "nsga2"] = Field(
        description="how settings are proposed: by a tree-structured Parzen estimator, at random, from the grid of "
        "all choices and steps in random order, or by a genetic algorithm"
    )
    pruner: Literal["none", "median", "hyperband"] = Field(
        description="which trials are cut short, by the objective after each epoch: none, those worse than the median "
        "of others at that epoch, or those that Hyperband gives no more epochs"
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the sampler")


class Evaluate(Section):
    batch_size: int = Field(ge=1, le=2**20, description="images reconstructed at a time")
    active_variance: float = Field(
        gt=0, le=1e6, description="variance over the training codes above which a latent dimension counts as active"
    )
    ridge: float = Field(gt=0, le=1e12, description="penalty on the squared weights of the linear probe")
    samples_per_class: int = Field(
        ge=1, le=10_000, description="digits generated per class, from a Gaussian fitted to the codes of the class"
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the generated digits")


class Apply(Section):
    noise: Annotated[list[Deviation], AfterValidator(no_value_twice)] = Field(
        min_length=1,
        max_length=16,
        json_schema_extra={"uniqueItems": True},
        description="standard deviations of the Gaussian noise on test images in [0, 1] that are denoised",
    )
    images: int = Field(
        ge=1, le=10_000, description="test images that are denoised at most, chosen at random, the same by all methods"
    )
    validation_images: int = Field(
        ge=1,
        le=10_000,
        description="validation images at most, chosen at random, on which the classical methods' settings are chosen",
    )
    labels: Annotated[list[Count], AfterValidator(no_value_twice)] = Field(
        min_length=1,
        max_length=16,
        json_schema_extra={"uniqueItems": True},
        description="numbers of training images that have a label, as many of each class; more than training_images "
        "stands for all of these",
    )
    draws: int = Field(ge=2, le=1000, description="random choices of the images that have a label, for each number")
    training_images: Count = Field(
        description="training images at most, chosen at random, among which labels are given and neighbours searched"
    )
    queries: Count = Field(
        description="test images of the trained classes at most, chosen at random, that are classified and searched for"
    )
    neighbours: int = Field(ge=1, le=1000, description="labelled images that vote in k-nearest neighbours, at most")
    penalty: float = Field(
        gt=0,
        le=1e12,
        description="half of it times the squared weights is added to the summed cross-entropy of logistic regression",
    )
    seed: int = Field(
        ge=0, lt=2**32, description="seed of the noise, of the choices of images and of untrained encoders"
    )


class Generate(Section):
    digits: int = Field(ge=20, le=60_000, description="digits that each method generates at a time")
    draws: int = Field(ge=2, le=100, description="times that each method generates as many, for mean and deviation")
    components: int = Field(ge=1, le=1000, description="Gaussians in the mixture that is fitted without labels")
    codes: int = Field(
        ge=2, le=1_000_000, description="training codes at most, chosen at random, to which the mixture is fitted"
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the generated digits, of the mixture and of its codes")

    @model_validator(mode="after")
    def check_components(self) -> "Generate":
        if self.components > self.codes:
            raise ValueError(
                f"components is {self.components}, but has to be at most codes, {self.codes}, to which they are fitted"
            )
        return self


class Compare(Section):
    resamples: int = Field(
        ge=100, le=100_000, description="bootstrap samples of the test images behind each 95 % interval"
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the bootstrap")


class Figures(Section):
    dpi: int = Field(ge=50, le=600, description="resolution of the PNG files, dots per inch")
    classes: int = Field(ge=1, le=256, description="classes shown at most, lowest labels first")


class Params(Section):
    prepare: Prepare
    models: dict[ModelName, Model] = Field(min_length=1)
    presets: dict[ModelName, Model]
    tune: dict[ModelName, Tune]
    evaluate: Evaluate
    apply: Apply
    classifier: Classifier
    generate: Generate
    compare: Compare
    figures: Figures

    @model_validator(mode="after")
    def check_combinations(self) -> "Params":
        problems = [
            f"presets.{name} has the name of a model; it needs another" for name in self.presets if name in self.models
        ]
        if not self.prepare.validation_images:
            recipes: dict[str, Recipe] = {f"models.{name}": model for name, model in self.models.items()}
            recipes |= {f"presets.{name}": model for name, model in self.presets.items()}
            recipes |= {"classifier": self.classifier} if self.classifier.train else {}
            problems += [
                f"{key}.early_stopping is {recipe.early_stopping}, but prepare.validation_images is 0, so the test "
                "images would choose the epoch; one of them has to change"
                for key, recipe in recipes.items()
                if recipe.early_stopping
            ]
        if problems:
            raise ValueError("\n".join(problems))
        return self
