"""The section of params.yaml that describes studies."""

from typing import Any, Literal

from pydantic import Field

from stages.core.params import nearest
from stages.core.schema import Model, ModelName, Params, Section, Seed
from stages.tools.tune.space import check_grid, read_space

Objective = Literal["mse", "bce", "ssim", "probe", "parameters", "latent_dim"]


class Tune(Section):
    """A study."""

    model: ModelName
    space: dict[str, Any] = Field(min_length=1)
    objectives: list[Objective] = Field(min_length=1, max_length=2)
    trials: int = Field(ge=1, le=100_000)
    epochs: int = Field(ge=1, le=100_000)
    seconds: int = Field(ge=0, le=10**9)
    sampler: Literal["tpe", "random", "grid", "nsga2"]
    pruner: Literal["none", "median", "hyperband"]
    seed: Seed

    def clashes(self) -> list[str]:
        problems = []
        if len(set(self.objectives)) < len(self.objectives):
            problems.append(f"objectives is {self.objectives}, but the two have to differ")
        if len(self.objectives) > 1 and self.pruner != "none":
            problems.append(f"pruner is {self.pruner}, but a study with two objectives prunes no trial; set it to none")
        try:
            space = read_space(self.space)
            if self.sampler == "grid":
                check_grid(space, self.trials)
        except ValueError as error:
            problems += str(error).splitlines()
        return problems


class TuneParams(Params):
    tune: dict[ModelName, Tune]

    def clashes(self) -> list[str]:
        known = [*self.models, *self.presets]
        return super().clashes() + [
            f"tune.{name}.model is {tune.model}, but no model is called that{nearest(tune.model, known)}; known are "
            f"{', '.join(known)}"
            for name, tune in self.tune.items()
            if tune.model not in known
        ]

    def base(self, study: str) -> Model:
        """The model whose settings a study's space replaces."""
        return (self.models | self.presets)[self.tune[study].model]
