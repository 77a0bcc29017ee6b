"""Plans: what a spec would cost, before anything is spent."""

from __future__ import annotations

from fastapi import APIRouter

from server.auth import CallerOf
from server.bodies import JsonRoute
from server.openapi import problems
from server.plan_schemas import Plan
from server.planning import plan_of
from server.registered import FILLS_IN_DATASETS
from server.services import ServicesOf
from server.submission import SpecBody, check_initial_weights

router = APIRouter(prefix="/v1/plans", tags=["plans"], route_class=JsonRoute)


@router.post("", responses=problems(400, 408, 413, 415, 422, 503), dependencies=[FILLS_IN_DATASETS])
def create_plan(body: SpecBody, services: ServicesOf, caller: CallerOf) -> Plan:
    """Shapes, parameters, multiply-accumulates and memory of each layer; the run's memory and duration; warnings.

    The checks are those of submitting a job; nothing is stored.
    """
    with services.database.read() as connection:
        check_initial_weights(connection, body.spec, caller)
        return plan_of(connection, body.spec, lease_seconds=services.settings.lease_seconds)
