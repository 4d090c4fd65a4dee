"""Check params.yaml and explain every key."""

import argparse
from pathlib import Path

from stages.core.errors import ParamsError, run
from stages.core.params import read_params
from stages.core.schema import Params
from stages.core.sentences import allowed, schema_at
from stages.params.space import check_studies
from stages.prepare import find_raw

STUDIES_ONLY = (
    "Models and stages are valid. Only `python -m stages tune` refuses these studies; `dvc repro` does not ask."
)


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages check", description=__doc__).parse_args()
    params = read_params()
    find_raw(Path(params.prepare.raw))
    try:
        check_studies(params, params.tune)
    except ParamsError as error:
        raise ParamsError(f"{error}\n{STUDIES_ONLY}") from None
    print("What the keys of params.yaml mean; those of presets are those of models:\n")
    print(explain())
    print("\nparams.yaml is valid.")


def explain() -> str:
    """Every key of params.yaml with what it admits and what it means, as a Markdown table.

    Presets have the keys of models.
    """
    rows = ["| key | allowed | meaning |", "| --- | --- | --- |"]
    for name in Params.model_fields:
        if name == "presets":
            continue
        path = [name, "<name>"] if name in ("models", "tune") else [name]
        for key, schema in schema_at(path)["properties"].items():
            rows.append(f"| `{'.'.join(path)}.{key}` | {allowed(schema)} | {schema['description']} |")
    return "\n".join(rows)


if __name__ == "__main__":
    run(main)
