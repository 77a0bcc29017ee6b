"""Writes `techniques.md` from the specs themselves: `python docs/techniques.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cnn.spec import TrainingSpec

TARGET = Path(__file__).with_suffix(".md")
Schema = dict[str, Any]

HEAD = """# What a spec can ask for

Written by `make docs` from the classes in `cnn/`: do not edit. Each technique stands with its formula, its source, and
where the lecture that the project started from is wrong or loose: what it says, and what is right.

The order of things in a step: augmentation in the order of the list, normalization, forward pass and loss, gradients of
the penalties, clipping by the global norm, the check that everything is finite, the optimizer, max-norm, the average of
the weights.
"""
FAMILIES = {
    "dataset": "Dataset",
    "split": "Split",
    "normalization": "Normalization",
    "augmentation": "Augmentation",
    "model": "Model",
    "model.layers": "Layer",
    "regularizers": "Regularizer",
    "loss": "Loss",
    "optimizer": "Optimizer",
    "schedule": "Schedule",
    "training": "Training",
    "training.ema": "EMA",
    "early_stopping": "EarlyStopping",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def page() -> str:
    """The whole page."""
    definitions = TrainingSpec.model_json_schema()["$defs"]
    parts = [HEAD, "Parts: " + ", ".join(f"[{name}](#{name.replace('.', '')})" for name in FAMILIES) + ".\n"]
    for family, name in FAMILIES.items():
        parts.append(f"## {family}\n")
        references = definitions[name].get("oneOf")
        members = [definitions[target(reference)] for reference in references] if references else [definitions[name]]
        parts += [section(member) for member in members]
    return "\n".join(parts)


def target(reference: Schema) -> str:
    """Name of the definition that a reference points to."""
    return str(reference["$ref"]).rsplit("/", 1)[1]


def section(member: Schema) -> str:
    """A technique: its name, what its class says, and a table of its fields."""
    fields = dict(member["properties"])
    tag = fields.pop("type", {}).get("const")
    lines = [f"### `{tag}`\n"] if tag else []
    lines.append(f"{member.get('description', '')}\n")
    required = member.get("required", [])
    rows = [row(name, field, required=name in required) for name, field in fields.items() if name != "name"]
    if rows:
        lines += ["| field | value | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def row(name: str, field: Schema, *, required: bool) -> str:
    default = "required" if required else f"`{json.dumps(field.get('default'))}`"
    meaning = " ".join(field.get("description", "").split())
    return f"| `{name}` | {value(field)} | {default} | {meaning} |".replace("  ", " ")


def value(field: Schema) -> str:
    """What a field takes, in words."""
    if "anyOf" in field or "oneOf" in field:
        return " or ".join(value(option) for option in field.get("anyOf", field.get("oneOf")))
    if "$ref" in field:
        return target(field)
    if "enum" in field:
        return ", ".join(f"`{json.dumps(option)}`" for option in field["enum"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if field.get("type") == "array":
        items = field.get("items") or field["prefixItems"][0]
        return f"list of {value(items)}"
    bounds = [f"{sign} {field[bound]:g}" for bound, sign in BOUNDS.items() if bound in field]
    return " ".join([str(field.get("type", "any")), *bounds])


if __name__ == "__main__":
    TARGET.write_text(page())
