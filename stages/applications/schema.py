"""The sections of params.yaml that belong to the applications."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from stages.core.schema import Activation, Params, Recipe, Section, Seed, Share, Units

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Deviation = Annotated[float, Field(gt=0, le=10)]


def no_value_twice(values: list[Any]) -> list[Any]:
    """Raise an error if a list holds a value twice."""
    if len(set(values)) < len(values):
        raise PydanticCustomError("duplicate", "It should hold no value twice")
    return values


class Denoise(Section):
    noise: Annotated[list[Deviation], AfterValidator(no_value_twice)] = Field(min_length=1, max_length=16)
    images: int = Field(ge=1, le=10_000)
    validation_images: int = Field(ge=1, le=10_000)
    seed: Seed


class FewLabels(Section):
    labels: Annotated[list[Count], AfterValidator(no_value_twice)] = Field(min_length=1, max_length=16)
    draws: int = Field(ge=2, le=1000)
    training_images: Count
    queries: Count
    neighbours: int = Field(ge=1, le=1000)
    penalty: float = Field(gt=0, le=1e12)
    seed: Seed


class Classifier(Recipe):
    """All settings of a classifier except its seed. They have to suit each other."""

    filters: list[Units] = Field(max_length=16)
    features: Units
    activation: Activation
    dropout: Share
    shift: int = Field(ge=0, le=8)


class SeededClassifier(Classifier):
    """A classifier's settings with one of generate.seeds."""

    seed: Seed


class Generate(Section):
    seeds: Annotated[list[Seed], AfterValidator(no_value_twice)] = Field(max_length=100)
    digits: int = Field(ge=20, le=60_000)
    draws: int = Field(ge=2, le=100)
    components: int = Field(ge=1, le=1000)
    codes: int = Field(ge=2, le=1_000_000)
    classifier: Classifier

    def clashes(self) -> list[str]:
        problems, batch_size = [], self.classifier.batch_size
        if self.components > self.codes:
            problems.append(
                f"components is {self.components}, but has to be at most codes, {self.codes}, to which they are fitted"
            )
        if batch_size > self.digits:
            problems.append(f"classifier.batch_size is {batch_size}, but has to be at most digits, {self.digits}")
        return problems


class DenoiseParams(Params):
    denoise: Denoise


class FewLabelsParams(Params):
    few_labels: FewLabels


class GenerateParams(Params):
    generate: Generate

    def recipes(self) -> dict[str, Recipe]:
        return super().recipes() | {"generate.classifier": self.generate.classifier}


class ApplicationParams(DenoiseParams, FewLabelsParams, GenerateParams):
    """All of them."""
