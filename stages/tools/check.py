"""Check params.yaml and explain every key."""

import argparse

from stages.common.errors import run
from stages.params import read_params
from stages.params.schema import Compare, Evaluate, Figures, Model, Prepare, Section
from stages.params.sentences import allowed


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
    argparse.ArgumentParser(prog="python -m stages check", description=__doc__).parse_args()
    read_params()
    print("params.yaml is valid. What its keys mean:\n")
    print(explain())


if __name__ == "__main__":
    run(main)
