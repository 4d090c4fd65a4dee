"""The one description of params.yaml: its keys, types, ranges and what they mean.

    python -m stages.params      # check params.yaml and explain every key

Every stage calls `read_params` first, so that a mistake anywhere in the file is told
before the stage does any work. DVC has removed the stage's old outputs by then; this
command checks the file without touching anything.
"""

import difflib
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from stages.errors import ParamsError, run

Activation = Literal[
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "mish", "relu",
    "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh",
]  # fmt: skip
Loss = Literal["binary_crossentropy", "mse", "mae", "huber"]
# Keras' usual optimizers, less Adafactor: compiled by XLA it turns pixels that are always black into NaN.
Optimizer = Literal[
    "adadelta", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "nadam",
    "rmsprop", "sgd",
]  # fmt: skip


def number_from_text(value: Any) -> Any:
    """Turn `"1e-05"` into 1e-05; leave anything else alone.

    `dvc exp run -S` writes small numbers without a point, and YAML 1.1, which PyYAML
    speaks, reads those as text.
    """
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


Number = Annotated[float, BeforeValidator(number_from_text)]
Units = Annotated[int, Field(ge=1, le=16384)]
ModelName = Annotated[str, StringConstraints(pattern=r"^(?!(?:pca|comparison)\Z)[a-z][a-z0-9_-]{0,39}\Z")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, regex_engine="python-re", allow_inf_nan=False)


class Prepare(Section):
    raw: str = Field(min_length=1, description="folder with the four IDX files, gzipped or not (MNIST's form)")
    validation_images: int = Field(
        ge=0,
        description="training images held out for validation, the same share of every class; "
        "0 trains on all and monitors on the test images, as tutorials do",
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the choice of validation images")


class Model(Section):
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
        description="what stands between each hidden layer and its activation"
    )
    dropout: Number = Field(
        ge=0, lt=1, description="share of the hidden layers' outputs that training sets to zero; 0 for none"
    )
    noise: Number = Field(
        ge=0,
        le=10,
        description="standard deviation of the Gaussian noise that training adds to the input, not to the target "
        "(a denoising autoencoder); 0 for none",
    )
    shift: int = Field(
        ge=0, le=8, description="pixels by which training moves each image at random, target too; 0 for none"
    )
    code_l1: Number = Field(
        ge=0, le=1e6, description="weight of the codes' absolute values in the loss (a sparse autoencoder); 0 for none"
    )
    loss: Loss = Field(description="what training minimises, between image and reconstruction")
    optimizer: Optimizer = Field(description="the Keras optimizer, its other settings as Keras has them")
    learning_rate: Number = Field(gt=0, le=100, description="the optimizer's step size, with cosine its largest")
    schedule: Literal["constant", "cosine"] = Field(
        description="the learning rate over the epochs: cosine falls to zero along half a wave"
    )
    warmup_epochs: int = Field(
        ge=0, le=100_000, description="epochs in which the learning rate of a cosine schedule first rises from zero"
    )
    weight_decay: Number = Field(
        ge=0, le=100, description="share of each weight, times the learning rate, taken off at every step; 0 for none"
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
        description="arithmetic of the layers but the last; mixed pays on GPUs, weights stay float32"
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the initial weights and of the order of images")
    threads: int = Field(
        ge=1,
        le=256,
        description="threads within one operation; part of the parameters because it decides "
        "the order of sums and so the last bits of the result",
    )

    @model_validator(mode="after")
    def refuse_meaningless_combinations(self) -> "Model":
        problems = {
            "layers is conv, but hidden_units is []; a convolutional model has at least one hidden layer": (
                self.layers == "conv" and not self.hidden_units
            ),
            f"normalization is {self.normalization}, but there is no hidden layer to normalize; it has to be none": (
                self.normalization != "none" and not self.hidden_units
            ),
            f"dropout is {self.dropout:g}, but there is no hidden layer to drop outputs of; it has to be 0": (
                self.dropout > 0 and not self.hidden_units
            ),
            "latent_activation is softmax, but latent_dim is 1; that code would always be 1": (
                self.latent_activation == "softmax" and self.latent_dim == 1
            ),
            f"code_l1 is {self.code_l1:g}, but latent_activation is softmax; the sum of those codes is always 1": (
                self.latent_activation == "softmax" and self.code_l1 > 0
            ),
            f"warmup_epochs is {self.warmup_epochs}, but schedule is constant; it has to be 0, or schedule cosine": (
                self.warmup_epochs > 0 and self.schedule == "constant"
            ),
            f"warmup_epochs is {self.warmup_epochs}, but has to be below epochs, {self.epochs}": (
                self.schedule == "cosine" and self.warmup_epochs >= self.epochs
            ),
            f"early_stopping is {self.early_stopping}, but has to be below epochs, {self.epochs}": (
                self.early_stopping >= self.epochs
            ),
        }
        if found := [problem for problem, holds in problems.items() if holds]:
            raise ValueError("\n".join(found))
        return self


class Evaluate(Section):
    batch_size: int = Field(ge=1, le=2**20, description="images reconstructed at a time")
    active_variance: Number = Field(
        gt=0, le=1e6, description="variance over the training codes above which a latent dimension counts as active"
    )
    ridge: Number = Field(gt=0, le=1e12, description="penalty on the squared weights of the linear probe")
    samples_per_class: int = Field(
        ge=1, le=10_000, description="digits generated per class, from a Gaussian fitted to the codes of the class"
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the generated digits")


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
    evaluate: Evaluate
    compare: Compare
    figures: Figures

    @model_validator(mode="after")
    def refuse_two_models_of_one_name(self) -> "Params":
        if twice := [name for name in self.presets if name in self.models]:
            raise ValueError("\n".join(f"presets.{name} has the name of a model; it needs another" for name in twice))
        return self


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, except that a key given twice is an error and not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the safe loader refuses it itself
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate the whole parameter file.

    Raises ParamsError with one sentence per problem: the key's full path, the value
    found, what is allowed, and the nearest known name where one is near.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; run this in the folder that holds it.") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ParamsError(f"{path}{place}: not valid YAML: {error.problem}.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # bad bytes, depth, dates
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        # A misspelt key is missing, too, but "did you mean" says more.
        errors = sorted(error.errors(), key=lambda e: e["type"] == "missing")
        sentences = [line for e in errors for line in sentence(e).splitlines()]
        raise ParamsError("\n".join(f"{path}: {line}" for line in sentences)) from None


def stage_arguments(description: str | None) -> list[str]:
    """A stage's command-line arguments; with --help it prints its `description` and ends."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((description or "").strip())
        sys.exit()
    return sys.argv[1:]


def refuse_arguments(arguments: list[str]) -> None:
    """Raise ParamsError if there are command-line arguments."""
    if arguments:
        raise ParamsError(f"expected no argument, but found {shown(arguments[0])}; everything is set in params.yaml.")


def choose_model(params: Params, arguments: list[str]) -> tuple[str, Model]:
    """Name and settings of the model named by a stage's only argument, a key of `models` or `presets`.

    Without an argument it is the one in the name of the stage that DVC is running,
    "train@deep". dvc.yaml relies on that, since DVC would paste a name from params.yaml
    into the command unquoted, and the shell would run what it holds.
    Raises ParamsError if there is not exactly one name or no such model.
    """
    models = params.models | params.presets
    known = ", ".join(models)
    _, _, of_stage = os.environ.get("DVC_STAGE", "").partition("@")
    if not arguments and of_stage:
        arguments = [of_stage]
    if len(arguments) != 1:
        raise ParamsError(f"expected one argument, the name of a model in params.yaml: {known}.")
    if arguments[0] not in models:
        hint = nearest(arguments[0], list(models))
        raise ParamsError(f"params.yaml has no model {shown(arguments[0])}{hint}; it has {known}.")
    return arguments[0], models[arguments[0]]


def sentence(error: Any) -> str:
    """One pydantic error as a sentence: key, value found, what is allowed."""
    location = [part for part in error["loc"] if part != "[key]"]
    key = ".".join(str(p) if str(p).isprintable() else repr(p) for p in location) or "the file"
    if error["type"] in ("extra_forbidden", "invalid_key"):
        known = list(schema_at(location[:-1])["properties"])
        return f"{key} is not a known key{nearest(str(location[-1]), known)}; known here: {', '.join(known)}."
    if error["loc"][-1:] == ("[key]",):
        return (
            f"{key} is not a possible model name; a name starts with a lower-case letter, has at most "
            "40 of a-z, 0-9, _ and -, and is not 'pca' or 'comparison', which name the baseline and a file."
        )
    if error["type"] == "value_error":  # settings that are possible, but not together
        prefix = f"{key}." if location else ""
        return "\n".join(f"{prefix}{problem}." for problem in str(error["ctx"]["error"]).splitlines())
    schema = schema_at(location)
    if error["type"] == "missing":
        return f"{key} is missing; it has to be {allowed(schema)}."
    return (
        f"{key} is {shown(error['input'])}, but has to be {allowed(schema)}"
        f"{nearest(str(error['input']), schema.get('enum', []))}."
    )


def schema_at(location: list[Any]) -> dict[str, Any]:
    """The JSON schema of the key at `location`, a path of keys and list positions."""
    root = Params.model_json_schema()
    schema: dict[str, Any] = root
    for part in location:
        if "items" in schema:
            schema = schema["items"]
        elif "properties" in schema:
            schema = schema["properties"][part]
        else:
            schema = next(iter(schema["patternProperties"].values()))
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def allowed(schema: dict[str, Any]) -> str:
    """What a JSON schema admits, in words: "a whole number from 1 to 256"."""
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if schema["type"] == "array":
        return f"a list of at most {schema['maxItems']} items, each {allowed(schema['items'])}"
    if schema["type"] == "object":
        keys = schema.get("properties")
        return f"a mapping with the keys {', '.join(keys)}" if keys else "a mapping from model names to settings"
    if schema["type"] == "string":
        return "a text that is not empty"
    kind = {"integer": "a whole number", "number": "a number"}[schema["type"]]
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high = schema.get("maximum")
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - 1  # only whole numbers have one
    if above is not None:
        return f"{kind} above {above:g} and at most {high:g}"
    if kind == "a number" and "exclusiveMaximum" in schema:
        return f"{kind} of at least {low:g} and below {schema['exclusiveMaximum']:g}"
    if high is None:
        return f"{kind} of at least {low}"
    return f"{kind} from {low:g} to {high:g}" if kind == "a number" else f"{kind} from {low} to {high}"


def nearest(name: str, names: list[str]) -> str:
    """`" (did you mean adam?)"` if one of `names` is spelt much like `name`, else nothing."""
    matches = difflib.get_close_matches(name.lower(), names, n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def shown(value: Any) -> str:
    """A value as the reader of params.yaml would write it, cut where it is long."""
    if value is None:
        return "empty"
    text = repr(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def explain() -> str:
    """Every key of params.yaml with what it admits and what it means, as a Markdown table."""
    rows = ["| key | allowed | meaning |", "| --- | --- | --- |"]
    sections: list[tuple[str, type[Section]]] = [
        ("prepare", Prepare), ("models.<name>", Model), ("presets.<name>", Model),
        ("evaluate", Evaluate), ("compare", Compare), ("figures", Figures),
    ]  # fmt: skip
    for prefix, section in sections:
        for key, schema in section.model_json_schema()["properties"].items():
            rows.append(f"| `{prefix}.{key}` | {allowed(schema)} | {schema['description']} |")
    return "\n".join(rows)


def main() -> None:
    refuse_arguments(stage_arguments(__doc__))
    read_params()
    print("params.yaml is valid. What its keys mean:\n")
    print(explain())


if __name__ == "__main__":
    run(main)
