"""The section of params.yaml that belongs to the tuner."""

from typing import Any, Literal

from pydantic import Field

from stages.core.schema import ModelName, Params, Section

Objective = Literal["mse", "bce", "ssim", "probe", "parameters", "latent_dim"]


class Tune(Section):
    model: ModelName = Field()
    space: dict[str, Any] = Field(
        min_length=1,
    )
    objectives: list[Objective] = Field(
        min_length=1,
        max_length=2,
    )
    trials: int = Field(ge=1, le=100_000)
    epochs: int = Field(ge=1, le=100_000)
    seconds: int = Field(ge=0, le=10**9)
    sampler: Literal["tpe", "random", "grid", "nsga2"] = Field()
    pruner: Literal["none", "median", "hyperband"] = Field()
    seed: int = Field(ge=0, lt=2**32)


class TuneParams(Params):
    tune: dict[ModelName, Tune]
