"""Datasets over HTTP: registered, looked at, used by jobs, deleted."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from PIL import Image

from tests.server.problems import assert_problem
from tests.server.seeding import Seed
from tests.worker.datasets.test_validation import good, png, zip_of
from worker.datasets.upkeep import Upkeep
from worker.settings import Settings
from worker.store import intents, keys, workers
from worker.store.keys import Scope

pytestmark = pytest.mark.anyio

FOLDER = {"type": "image_folder"}
LAYERS = [{"type": "flatten"}, {"type": "linear", "out_features": 2}]


async def upload(http: httpx.AsyncClient, content: bytes, filename: str = "set.zip") -> str:
    digest = hashlib.sha256(content)
    body = {"bytes": len(content), "sha256": digest.hexdigest(), "filename": filename}
    announced = (await http.post("/v1/uploads", json=body)).json()
    if announced["complete"]:
        return str(announced["id"])
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": "0",
        "Content-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
    }
    return str(
        (await http.patch(f"/v1/uploads/{announced['id']}", content=content, headers=headers))
        .raise_for_status()
        .json()["id"]
    )


async def register(http: httpx.AsyncClient, content: bytes, format: dict[str, Any] = FOLDER) -> httpx.Response:
    body = {"upload_id": await upload(http, content), "name": "mine", "format": format}
    return await http.post("/v1/datasets", json=body)


async def ready(http: httpx.AsyncClient, seed: Seed, settings: Settings) -> dict[str, Any]:
    dataset = (await register(http, zip_of(good()))).json()
    Upkeep(seed.database, settings).validate_all()
    found: dict[str, Any] = (await http.get(dataset["links"]["self"])).json()
    assert found["status"] == "ready", found
    return found


def spec_on(registered: dict[str, Any], /, **parts: Any) -> dict[str, Any]:
    return {
        "dataset": {"type": "registered", "id": registered["id"]},
        "model": {"type": "layers", "layers": LAYERS},
        "optimizer": {"type": "sgd"},
        "training": {"batch_size": 4},
        **parts,
    }


async def test_a_dataset_is_registered_and_becomes_ready(
    http: httpx.AsyncClient, seed: Seed, settings: Settings
) -> None:
    response = await register(http, zip_of(good()))
    assert response.status_code == 202
    dataset = response.json()
    assert response.headers["location"] == dataset["links"]["self"] == f"/v1/datasets/{dataset['id']}"
    assert (dataset["status"], dataset["content"], dataset["report"]) == ("validating", None, None)
    assert dataset["format"] == {"type": "image_folder", "image_size": None, "channels": 3, "test_fraction": None}
    waiting = await http.get(dataset["links"]["self"])
    assert (await http.get(dataset["links"]["self"], headers={"If-None-Match": waiting.headers["etag"]})).is_redirect
    Upkeep(seed.database, settings).validate_all()
    found = (await http.get(dataset["links"]["self"], headers={"If-None-Match": waiting.headers["etag"]})).json()
    assert (found["status"], found["content"]["labels"]) == ("ready", ["ant", "bee"])
    assert found["report"]["splits"]["train"] == {"num_images": 8, "per_class": {"ant": 4, "bee": 4}}
    listed = (await http.get("/v1/datasets?status=ready")).json()
    assert (listed["data"], listed["has_more"]) == ([found], False)
    assert (await http.get("/v1/datasets?status=refused")).json()["data"] == []


async def test_a_refused_dataset_says_which_file(http: httpx.AsyncClient, seed: Seed, settings: Settings) -> None:
    dataset = (await register(http, zip_of({**good(), "train/ant/2.png": png(1)[:50]}))).json()
    Upkeep(seed.database, settings).validate_all()
    found = (await http.get(dataset["links"]["self"])).json()
    (finding,) = found["report"]["findings"]
    assert (found["status"], finding["code"], finding["count"]) == ("refused", "unreadable_image", 1)
    assert finding["files"][0].startswith("train/ant/2.png")
    job = await http.post("/v1/jobs", json={"spec": spec_on(found)})
    assert [item["code"] for item in assert_problem(job)["errors"]] == ["dataset_missing"]


async def test_pages(http: httpx.AsyncClient) -> None:
    upload_id = await upload(http, zip_of(good()))
    body = {"upload_id": upload_id, "name": "mine", "format": FOLDER}
    ids = [(await http.post("/v1/datasets", json=body)).json()["id"] for _ in range(3)]
    first = (await http.get("/v1/datasets?limit=2")).json()
    rest = (await http.get(f"/v1/datasets?limit=2&cursor={first['next_cursor']}")).json()
    assert [dataset["id"] for dataset in first["data"] + rest["data"]] == ids[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    in_use = await http.delete(f"/v1/uploads/{upload_id}")
    assert (in_use.status_code, assert_problem(in_use)["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"upload_id": "up_00000000000000000000000000"}, 404, None),
        ({"upload_id": "../../etc/passwd"}, 404, None),
        ({"format": {"type": "zip"}}, 422, "/format/type"),
        ({"format": {"type": "image_folder", "path": "/etc"}}, 422, "/format/path"),
        ({"format": {"type": "image_folder", "test_fraction": 1.5}}, 422, "/format/test_fraction"),
        ({"name": ""}, 422, "/name"),
        ({"url": "http://127.0.0.1"}, 422, "/url"),
    ],
)
async def test_wrong_registrations(
    http: httpx.AsyncClient, change: dict[str, Any], status: int, pointer: str | None
) -> None:
    body = {"upload_id": await upload(http, b"x"), "name": "mine", "format": FOLDER, **change}
    response = await http.post("/v1/datasets", json=body)
    assert response.status_code == status
    errors = assert_problem(response)["errors"]
    assert pointer is None or [item["pointer"] for item in errors] == [pointer]


async def test_an_incomplete_upload_is_no_dataset(http: httpx.AsyncClient) -> None:
    announced = (await http.post("/v1/uploads", json={"bytes": 5, "sha256": "ab" * 32})).json()
    body = {"upload_id": announced["id"], "name": "mine", "format": FOLDER}
    response = await http.post("/v1/datasets", json=body)
    assert (response.status_code, response.json()["detail"]) == (
        409, "expected a complete upload, got one with 0 of 5 bytes"
    )  # fmt: skip


async def test_a_job_holds_the_content_of_its_dataset(http: httpx.AsyncClient, seed: Seed, settings: Settings) -> None:
    dataset = await ready(http, seed, settings)
    content = dataset["content"]
    response = await http.post("/v1/jobs", json={"spec": spec_on(dataset)})
    assert response.status_code == 201, response.text
    job = response.json()
    assert job["dataset"] == {"id": dataset["id"], "digest": content["digest"]}
    assert job["spec"]["dataset"] == {"type": "registered", "id": dataset["id"], "content": content}
    # What a client says of it does not count.
    lie = {"type": "registered", "id": dataset["id"], "content": {**content, "labels": ["x"], "num_train": 1}}
    again = await http.post("/v1/jobs", json={"spec": spec_on(dataset, dataset=lie)})
    assert again.json()["spec_digest"] == job["spec_digest"]
    wrong = [{"type": "flatten"}, {"type": "linear", "out_features": 3}]
    refused = await http.post("/v1/jobs", json={"spec": spec_on(dataset, model={"type": "layers", "layers": wrong})})
    assert [item["code"] for item in assert_problem(refused)["errors"]] == ["wrong_output"]
    in_use = await http.delete(dataset["links"]["self"])
    assert (in_use.status_code, in_use.json()["job_ids"]) == (409, [job["id"], again.json()["id"]])
    with seed.database.write() as c:
        for job_id in in_use.json()["job_ids"]:
            intents.request_cancel(c, job_id)
    assert (await http.delete(dataset["links"]["self"])).status_code == 204
    assert (await http.get(dataset["links"]["self"])).status_code == 404
    assert (await http.get(job["links"]["self"])).json()["dataset"]["id"] == dataset["id"]
    gone = await http.post("/v1/jobs", json={"spec": spec_on(dataset, dataset=lie)})
    (item,) = assert_problem(gone)["errors"]
    assert (gone.status_code, item["code"], item["pointer"]) == (422, "dataset_missing", "/spec/dataset/id")


@pytest.mark.parametrize("dataset_id", ["ds_00000000000000000000000000", "../x", 7])
async def test_unknown_datasets_of_specs(http: httpx.AsyncClient, dataset_id: Any) -> None:
    response = await http.post("/v1/jobs", json={"spec": spec_on({"id": dataset_id})})
    assert response.status_code == 422
    assert [item["pointer"] for item in assert_problem(response)["errors"]] == ["/spec/dataset/id"]


async def test_the_sheet_of_samples(http: httpx.AsyncClient, seed: Seed, settings: Settings) -> None:
    waiting = (await register(http, zip_of(good()))).json()
    early = await http.get(f"{waiting['links']['self']}/samples")
    assert (early.status_code, assert_problem(early)["code"]) == (409, "dataset_not_ready")
    dataset = await ready(http, seed, settings)
    response = await http.get(dataset["links"]["samples"])
    assert (response.headers["content-type"], Image.open(io.BytesIO(response.content)).format) == ("image/png", "PNG")
    again = await http.get(dataset["links"]["samples"], headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304


async def test_samples_through_an_augmentation(http: httpx.AsyncClient, seed: Seed, settings: Settings) -> None:
    dataset = await ready(http, seed, settings)
    query = {"augmentation": json.dumps([{"type": "horizontal_flip", "p": 1.0}]), "seed": "3"}
    alone = await http.get(dataset["links"]["samples"], params=query)
    assert (alone.status_code, alone.headers["retry-after"]) == (503, "10")
    with seed.database.write() as c:
        workers.register(c, worker_id="w", host="h", pid=1, device="cpu", slots=1, threads=1)
    for _ in range(2):
        with seed.database.write() as c:
            workers.beat(c, "w", "active")
        pending = await http.get(dataset["links"]["samples"], params=query)
        assert (pending.status_code, pending.headers["retry-after"], pending.content) == (202, "1", b"")
    Upkeep(seed.database, settings).draw_all()
    drawn = await http.get(dataset["links"]["samples"], params=query)
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(drawn.content)) as sheet:
        assert sheet.format == "PNG"
    with seed.database.write() as c:
        workers.beat(c, "w", "active")
    other = await http.get(dataset["links"]["samples"], params={**query, "seed": "4"})
    assert other.status_code == 202


@pytest.mark.parametrize(
    ("augmentation", "told"),
    [
        ("[1", "expected JSON"),
        ("{}", "expected"),
        ('[{"type": "flip"}]', "flip"),
        ('[{"type": "horizontal_flip", "p": 2}]', "2"),
        ('[{"type": "random_crop", "padding": -1}]', "/0/padding: expected an integer >= 1"),
        ("[NaN]", "finite"),
    ],
)
async def test_augmentations_that_are_none(
    http: httpx.AsyncClient, seed: Seed, settings: Settings, augmentation: str, told: str
) -> None:
    dataset = await ready(http, seed, settings)
    response = await http.get(dataset["links"]["samples"], params={"augmentation": augmentation})
    assert response.status_code == 422
    items = assert_problem(response)["errors"]
    assert {item["parameter"] for item in items} == {"augmentation"}
    assert told in items[0]["message"]


async def test_uploads_and_datasets_of_others_do_not_exist(
    app: FastAPI, http: httpx.AsyncClient, seed: Seed, settings: Settings
) -> None:
    """Every route with their ids in its path, with the key of somebody else."""
    app.state.services = replace(app.state.services, settings=settings.model_copy(update={"auth": "keys"}))
    mine, other = ({"Authorization": f"Bearer {key}"} for key in (made_key(seed), made_key(seed)))
    http.headers.update(mine)
    dataset = await ready(http, seed, settings)
    upload_id = await upload(http, zip_of(good()))
    ids = {"upload_id": upload_id, "dataset_id": dataset["id"]}
    asked = 0
    http.headers.update(other)
    for route in iter_route_contexts(app.routes):
        template = str(route.path)
        if "{upload_id}" not in template and "{dataset_id}" not in template:
            continue
        part = {
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": "0",
            "Content-Digest": "sha-256=:a:",
        }
        for method in route.methods or ():
            response = await http.request(method, template.format(**ids), headers=part, content=b"x")
            assert response.status_code == 404, (method, template)
            asked += 1
    assert asked == 7
    assert (await http.get("/v1/datasets")).json()["data"] == []
    assert (await http.post("/v1/jobs", json={"spec": spec_on(dataset)})).status_code == 422
    body = {"upload_id": upload_id, "name": "mine", "format": FOLDER}
    assert (await http.post("/v1/datasets", json=body)).status_code == 404
    # Who knows a digest need not have the file.
    assert await upload(http, zip_of(good())) != upload_id
    http.headers.update(mine)
    assert (await http.get("/v1/datasets")).json()["data"] == [dataset]
    assert (await http.post("/v1/jobs", json={"spec": spec_on(dataset)})).status_code == 201


def made_key(seed: Seed) -> str:
    with seed.database.write() as c:
        return keys.create(c, name="somebody", scope=Scope.SUBMIT)[1]
