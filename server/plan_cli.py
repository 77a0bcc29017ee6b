"""`epochd plan`: what a spec would cost, before anything is spent."""

from __future__ import annotations

from datetime import datetime

from rich.table import Column, Table

from server.client import DEFAULT_URL
from server.console import AsJson, SpecFile, Url, connect, out, print_json, read_spec
from server.plan_schemas import Plan


def plan(spec: SpecFile, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show layers, memory, duration and warnings of a spec without submitting it."""
    with connect(url) as client:
        found = client.plan(read_spec(spec))
    if as_json:
        print_json(found)
        return
    out.print(_layers(found))
    out.print("\n".join(_summary(found)), markup=False, soft_wrap=True)


def _layers(plan: Plan) -> Table:
    right = [Column(name, justify="right") for name in ("parameters", "multiply-adds", "activations")]
    left = [Column(name, overflow="fold") for name in ("layer", "type", "output")]
    table = Table(*left, *right, box=None, pad_edge=False)
    for layer in plan.layers:
        numbers = (f"{layer.num_parameters:,}", f"{layer.macs:,}", bytes_text(layer.activation_bytes))
        table.add_row(layer.name, layer.type, "x".join(map(str, layer.output_shape)), *numbers)
    return table


def _summary(plan: Plan) -> list[str]:
    totals, memory, duration = plan.totals, plan.memory, plan.duration
    parts = {name: getattr(memory, name) for name in ("base", "dataset", "weights", "activations", "evaluation")}
    taken = ", ".join(f"{name} {bytes_text(size)}" for name, size in parts.items())
    known = (
        plural(duration.learned_from, "finished job") if duration.learned_from else "no finished job yet, so a guess"
    )
    per_job = f"{duration.device}, {plural(duration.threads, 'thread')}"
    lines = [
        "",
        f"network   {totals.num_parameters:,} parameters, {bytes_text(totals.weight_bytes)}; "
        f"{totals.macs:,} multiply-adds and {bytes_text(totals.activation_bytes)} of activations for one image",
        f"data      {totals.num_train:,} images train, {totals.num_val:,} validate",
        f"steps     {totals.num_steps:,}, of which {totals.steps_per_epoch:,} an epoch",
        f"memory    {bytes_text(memory.total)}: {taken}",
        f"duration  {seconds_text(duration.seconds)}, between {seconds_text(duration.low_seconds)} and "
        f"{seconds_text(duration.high_seconds)} ({per_job}; from {known})",
        f"start     {_start(plan.queue.estimated_start_at)}",
    ]
    for warning in plan.warnings:
        lines += ["", f"warning   {warning.pointer}: {warning.message} ({warning.code}; {warning.source})"]
    return lines


def _start(at: datetime | None) -> str:
    return "no worker is there that could train it" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC, if submitted now"


def plural(number: int, word: str) -> str:
    """Such as `1 thread` and `2 threads`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def bytes_text(number: int) -> str:
    """Such as `3.0 MiB`."""
    size, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{number} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def seconds_text(seconds: float) -> str:
    """Such as `41 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
