"""The sections of params.yaml that belong to the applications."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from stages.core.schema import Activation, Params, Recipe, Section, Units, no_value_twice, without_clashes

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Deviation = Annotated[float, Field(gt=0, le=10)]


class Apply(Section):
    noise: Annotated[list[Deviation], AfterValidator(no_value_twice)] = Field(
        min_length=1,
        max_length=16,
    )
    images: int = Field(ge=1, le=10_000)
    validation_images: int = Field(
        ge=1,
        le=10_000,
    )
    labels: Annotated[list[Count], AfterValidator(no_value_twice)] = Field(
        min_length=1,
        max_length=16,
    )
    draws: int = Field(ge=2, le=1000)
    training_images: Count = Field()
    queries: Count = Field()
    neighbours: int = Field(ge=1, le=1000)
    penalty: float = Field(
        gt=0,
        le=1e12,
    )
    seed: int = Field(ge=0, lt=2**32)


class ClassifierLayers(Section):
    """What a classifier is made of."""

    train: bool = Field()
    filters: list[Units] = Field(max_length=16)
    features: Units = Field()
    activation: Activation = Field()
    dropout: float = Field(ge=0, lt=1)
    shift: int = Field(ge=0, le=8)


class Classifier(Recipe, ClassifierLayers):
    """The settings of the classifier, which have to suit each other."""

    @model_validator(mode="after")
    def check_combinations(self) -> Self:
        return without_clashes(self)


class Generate(Section):
    digits: int = Field(ge=20, le=60_000)
    draws: int = Field(ge=2, le=100)
    components: int = Field(ge=1, le=1000)
    codes: int = Field(ge=2, le=1_000_000)
    seed: int = Field(ge=0, lt=2**32)

    @model_validator(mode="after")
    def check_components(self) -> "Generate":
        if self.components > self.codes:
            raise ValueError(
                f"components is {self.components}, but has to be at most codes, {self.codes}, to which they are fitted"
            )
        return self


class ApplicationParams(Params):
    apply: Apply
    classifier: Classifier
    generate: Generate

    def recipes(self) -> dict[str, Recipe]:
        return super().recipes() | ({"classifier": self.classifier} if self.classifier.train else {})
