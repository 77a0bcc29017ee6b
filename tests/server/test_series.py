"""Metrics and events over HTTP."""

from __future__ import annotations

import csv
import io
import json

import httpx
import pytest

from tests.server.problems import assert_problem
from tests.server.seeding import Seed

pytestmark = pytest.mark.anyio


async def test_metrics_come_by_step_in_pages(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.running()
    seed.points(job, {"val_loss": [0.5, 0.25, 0.125], "train_loss": [0.6, None, 0.2]})
    path = f"/v1/jobs/{job.id}/metrics"
    walked = []
    params: dict[str, str | int] = {"limit": 4}
    while True:
        page = (await http.get(path, params=params)).json()
        walked += page["data"]
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert [(point["key"], point["step"], point["value"]) for point in walked] == [
        ("train_loss", 10, 0.6),
        ("val_loss", 10, 0.5),
        ("train_loss", 20, None),
        ("val_loss", 20, 0.25),
        ("train_loss", 30, 0.2),
        ("val_loss", 30, 0.125),
    ]
    assert walked[0]["epoch"] == 1
    job_now = (await http.get(f"/v1/jobs/{job.id}")).json()
    assert job_now["latest_metrics"] == {"val_loss": 0.125, "train_loss": 0.2}
    assert job_now["best"] == {"metric": "val_loss", "value": 0.125, "epoch": 3, "step": 30}


async def test_metrics_are_chosen_by_key_and_step(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.running()
    seed.points(job, {"val_loss": [0.5, 0.25, 0.125], "lr": [0.1, 0.1, 0.1], "train_loss": [1, 2, 3]})
    response = await http.get(f"/v1/jobs/{job.id}/metrics?keys=val_loss,lr&from_step=20")
    assert [(point["key"], point["step"]) for point in response.json()["data"]] == [
        ("lr", 20),
        ("val_loss", 20),
        ("lr", 30),
        ("val_loss", 30),
    ]


async def test_metrics_come_as_csv_and_ndjson_all_at_once(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.running()
    seed.points(job, {"val_loss": [0.5, None], "train_loss": [float(n) for n in range(1500)]})
    path = f"/v1/jobs/{job.id}/metrics"
    as_csv = await http.get(f"{path}?format=csv")
    assert as_csv.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert len(rows) == 1502
    assert [row["value"] for row in rows if row["key"] == "val_loss"] == ["0.5", ""]
    lines = (await http.get(f"{path}?format=ndjson&keys=val_loss")).text.splitlines()
    assert [json.loads(line)["value"] for line in lines] == [0.5, None]


async def test_a_thinned_series_keeps_its_ends_and_its_peaks(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.running()
    values: list[float | None] = [1.0] * 1000
    values[333], values[777], values[500] = 9.0, -9.0, None
    seed.points(job, {"train_loss": values, "lr": [0.1, 0.2]})
    page = (await http.get(f"/v1/jobs/{job.id}/metrics?max_points=20")).json()
    loss = [(point["step"], point["value"]) for point in page["data"] if point["key"] == "train_loss"]
    assert len(loss) <= 20
    assert {(10, 1.0), (3340, 9.0), (7780, -9.0), (5010, None), (10000, 1.0)} <= set(loss)
    assert loss == sorted(loss, key=lambda pair: pair[0])
    assert [point["value"] for point in page["data"] if point["key"] == "lr"] == [0.1, 0.2]
    assert (page["has_more"], page["next_cursor"]) == (False, None)


async def test_events_come_in_order_without_gaps_from_any_id(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.failed()
    path = f"/v1/jobs/{job.id}/events"
    everything = (await http.get(path)).json()["data"]
    assert [event["id"] for event in everything] == list(range(1, len(everything) + 1))
    assert [event["data"]["to"] for event in everything if event["type"] == "job.status"] == [
        "queued",
        "running",
        "failed",
    ]
    page = (await http.get(path, params={"after": 1, "limit": 1})).json()
    assert page["data"] == everything[1:2]
    assert (page["has_more"], page["next_cursor"]) == (True, "2")
    assert (await http.get(path, params={"after": len(everything)})).json()["data"] == []


@pytest.mark.parametrize(
    "query",
    ["from_step=-1", "from_step=1e3", "cursor=x", "max_points=1", "format=xml", "keys=%00", "limit=201", "form=csv"],
)
async def test_bad_parameters_of_metrics_are_refused(http: httpx.AsyncClient, seed: Seed, query: str) -> None:
    response = await http.get(f"/v1/jobs/{seed.running().id}/metrics?{query}")
    assert response.status_code == 422
    assert_problem(response)


@pytest.mark.parametrize("query", ["after=-1", "after=x", f"after={2**63}", "types=a%00", "limit=0", "since=3"])
async def test_bad_parameters_of_events_are_refused(http: httpx.AsyncClient, seed: Seed, query: str) -> None:
    response = await http.get(f"/v1/jobs/{seed.queued().id}/events?{query}")
    assert response.status_code == 422
    assert_problem(response)
