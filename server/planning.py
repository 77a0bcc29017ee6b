"""The plan of a spec: what it would cost, when it would start, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from cnn.costs import memory, num_steps, steps_per_epoch
from cnn.findings import Finding
from cnn.lint import lint
from cnn.spec import TrainingSpec
from server import plan_schemas
from worker.forecast import forecast
from worker.store.jobs import spec_digest

PLACE = "/spec"
"""Of the spec in the body."""


def plan_of(c: Connection, spec: TrainingSpec, *, lease_seconds: float) -> plan_schemas.Plan:
    """The body of `POST /v1/plans` and of a dry run; a worker counts that was seen in the last `lease_seconds`."""
    plan = spec.plan()
    expected = forecast(c, spec, seconds=lease_seconds)
    resolved = spec.model_dump(mode="json")
    cost = memory(spec)
    layers = [
        {**asdict(layer), "pointer": f"{PLACE}/model{layer.pointer}" if layer.pointer else None}
        for layer in plan.layers
    ]
    totals = {
        "num_parameters": plan.num_parameters,
        "macs": plan.macs,
        "activation_bytes": plan.activation_bytes,
        "weight_bytes": plan.weight_bytes,
        "num_train": spec.num_train,
        "num_val": spec.num_val,
        "steps_per_epoch": steps_per_epoch(spec),
        "num_steps": num_steps(spec),
    }
    return plan_schemas.Plan.model_validate(
        {
            "spec": resolved,
            "spec_digest": spec_digest(resolved),
            "layers": layers,
            "totals": totals,
            "memory": {**asdict(cost), "total": cost.total},
            "duration": {
                **asdict(expected.duration),
                "device": expected.device,
                "threads": expected.threads,
                "learned_from": expected.num_runs,
            },
            "queue": {"estimated_start_at": expected.start_at},
            "warnings": list(_warnings(lint(spec))),
        }
    )


def _warnings(findings: Iterable[Finding]) -> Iterable[dict[str, Any]]:
    for finding in findings:
        fix = [
            {key: f"{PLACE}{value}" if key in ("path", "from") else value for key, value in operation.items()}
            for operation in finding.fix
        ]
        yield {**asdict(finding), "pointer": f"{PLACE}{finding.pointer}", "fix": fix}
