"""Bad requests: each gets one clear 4xx problem, nothing is stored, and the server still serves."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from cnn.datasets import LOCAL_TYPES
from tests.server.malformed import MALFORMED
from tests.server.problems import assert_problem
from tests.server.seeding import SPEC

pytestmark = pytest.mark.anyio

Change = Callable[[dict[str, Any]], object]


def _layers(*layers: dict[str, Any]) -> Change:
    return lambda spec: spec["model"].update(layers=list(layers))


def _set(path: str, value: object) -> Change:
    def change(spec: Any) -> None:
        *parents, last = path.strip("/").split("/")
        for part in parents:
            spec = spec[int(part)] if isinstance(spec, list) else spec.setdefault(part, {})
        spec[int(last) if isinstance(spec, list) else last] = value

    return change


def _pop(document: Any, pointer: str) -> object:
    *parents, last = pointer.strip("/").split("/")
    for part in parents:
        document = document[part]
    return document.pop(last)


def _rename(old: str, new: str) -> Change:
    return lambda spec: spec.update({new: spec.pop(old)})


FLATTEN = {"type": "flatten"}
OUTPUT = {"type": "linear", "out_features": 10}


def _with_gan(num_train: int, **gan: int) -> Change:
    """A GAN that learns from few images, and minibatches that are small enough for them."""
    return lambda spec: spec.update(
        split={"num_train": num_train}, training={"batch_size": 1}, augmentation=[{"type": "gan", **gan}]
    )


def _both(first: Change, second: Change) -> Change:
    def change(spec: dict[str, Any]) -> None:
        first(spec)
        second(spec)

    return change


BAD_SPECS: dict[str, tuple[Change, str, str, list[str]]] = {
    "wrong type": (_set("/training/epochs", "five"), "/spec/training/epochs", "int_type", ["an integer", '"five"']),
    "float for integer": (_set("/training/epochs", 1.5), "/spec/training/epochs", "int_type", ["an integer", "1.5"]),
    "text for number": (_set("/optimizer/lr", "0.1"), "/spec/optimizer/lr", "float_type", ["a finite number", '"0.1"']),
    "true for integer": (_set("/training/seed", True), "/spec/training/seed", "int_type", ["an integer", "true"]),
    "null for object": (_set("/dataset", None), "/spec/dataset", "model_attributes_type", ["digits", "null"]),
    "list for object": (_set("/optimizer", []), "/spec/optimizer", "model_attributes_type", ["an object", "[]"]),
    "object for list": (_set("/augmentation", {}), "/spec/augmentation", "tuple_type", ["a list", "{}"]),
    "unknown field": (_set("/colour", 1), "/spec/colour", "unknown_field", ["one of the fields dataset", '"colour"']),
    "optimiser": (_rename("optimizer", "optimiser"), "/spec/optimiser", "unknown_field", ["mean optimizer?"]),
    "unknown field of a layer": (_set("/model/layers/0/kernel", 3), "/spec/model/layers/0/kernel", "unknown_field", []),
    "missing optimizer": (lambda spec: spec.pop("optimizer"), "/spec/optimizer", "missing_field", ["sgd", "nothing"]),
    "unknown optimizer": (_set("/optimizer/type", "adamm"), "/spec/optimizer/type", "unknown_type", ["mean adam?"]),
    "no optimizer type": (lambda spec: spec["optimizer"].pop("type"), "/spec/optimizer/type", "missing_type", ["sgd"]),
    "type is a number": (_set("/optimizer/type", 3), "/spec/optimizer/type", "unknown_type", ['"sgd"', "3"]),
    "unknown layer": (_layers(FLATTEN, {"type": "dense"}), "/spec/model/layers/1/type", "unknown_type", ['"linear"']),
    "unknown dataset": (_set("/dataset/type", "imagenet"), "/spec/dataset/type", "unknown_type", ["fashion_mnist"]),
    "keep_prob 0": (
        _set("/model/layers/3/keep_prob", 0),
        "/spec/model/layers/3/keep_prob",
        "greater_than",
        ["> 0", " 0"],
    ),
    "keep_prob 1.2": (
        _set("/model/layers/3/keep_prob", 1.2),
        "/spec/model/layers/3/keep_prob",
        "less_than_equal",
        ["expected a finite number > 0 and <= 1, got 1.2"],
    ),
    "negative lr": (_set("/optimizer/lr", -0.1), "/spec/optimizer/lr", "greater_than", ["> 0", "-0.1"]),
    "momentum 1": (
        _set("/optimizer", {"type": "momentum", "lr": 0.1, "momentum": 1.5}),
        "/spec/optimizer/momentum",
        "less_than",
        ["< 1", "1.5"],
    ),
    "kernel larger than its input": (
        _set("/model/layers/0", {"type": "conv2d", "out_channels": 4, "kernel_size": 9}),
        "/spec/model/layers/0",
        "shape_mismatch",
        ["9", "8"],
    ),
    "dense before flatten": (_layers(OUTPUT), "/spec/model/layers/0", "shape_mismatch", ["flatten"]),
    "conv after flatten": (
        _layers(FLATTEN, {"type": "conv2d", "out_channels": 4, "kernel_size": 3}, OUTPUT),
        "/spec/model/layers/1",
        "shape_mismatch",
        ["conv2d"],
    ),
    "11 classes for 10": (
        _set("/model/layers/4/out_features", 11),
        "/spec/model/layers/4",
        "wrong_output",
        ["10 classes", "11"],
    ),
    "1e9 channels": (
        _set("/model/layers/0/out_channels", 10**9),
        "/spec/model/layers/0/out_channels",
        "less_than_equal",
        ["an integer >= 1", "1000000000"],
    ),
    "no layers": (_layers(), "/spec/model/layers", "too_short", ["at least 1", "[]"]),
    "same name twice": (
        _set("/model/layers/4/name", "conv1"),
        "/spec/model/layers/4/name",
        "duplicate_layer_name",
        ["conv1"],
    ),
    "path as a name": (
        _set("/model/layers/0/name", "../../etc"),
        "/spec/model/layers/0/name",
        "string_pattern_mismatch",
        ["a string", "../../etc"],
    ),
    "padding of neither kind": (
        _set("/model/layers/0/padding", "full"),
        "/spec/model/layers/0/padding",
        "literal_error",
        ['"same"', "an integer >= 0", '"full"'],
    ),
    "regularizer of no layer": (
        _set("/regularizers", [{"type": "l2", "weight": 1e-4, "layers": ["dense*"]}]),
        "/spec/regularizers/0/layers/0",
        "no_such_layer",
        ["dense*", "conv1, fc1"],
    ),
    "validation metric without a split": (
        lambda spec: spec.update(split={"val_fraction": 0.0}, early_stopping={"monitor": "val_loss", "patience": 2}),
        "/spec/early_stopping/monitor",
        "no_validation_split",
        ["val_fraction"],
    ),
    "batch larger than the data": (
        _set("/training/batch_size", 5000),
        "/spec/training/batch_size",
        "batch_too_large",
        ["5000", "1294"],
    ),
}


@pytest.mark.parametrize("name", BAD_SPECS)
async def test_a_bad_spec_gets_one_problem_that_says_where_and_what(http: httpx.AsyncClient, name: str) -> None:
    change, pointer, code, words = BAD_SPECS[name]
    spec = copy.deepcopy(SPEC)
    change(spec)
    response = await http.post("/v1/jobs", json={"spec": spec})
    assert response.status_code == 422
    problem = assert_problem(response)
    item = next(item for item in problem["errors"] if item["pointer"] == pointer)
    assert item["code"] == code
    assert all(word in item["message"] for word in words), item["message"]
    await assert_nothing_stored(http)


@pytest.mark.parametrize(
    ("body", "content_type"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED]
)
async def test_a_malformed_body_gets_one_clear_4xx(
    http: httpx.AsyncClient, body: bytes, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await http.post("/v1/jobs", content=body, headers=headers)
    assert 400 <= response.status_code < 500
    problem = assert_problem(response)
    if response.status_code == 415:
        assert "application/json" in problem["detail"]
    else:
        assert problem["errors"]
        assert all("got" in item["message"] or "at byte" in item["message"] for item in problem["errors"])
    await assert_nothing_stored(http)


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b'{"spec": ', 9),
        (b'{"spec": \xff}', 9),
        ('{"é": x}'.encode(), 7),
        (b'{"spec": ' + b"[" * 64, 9 + 63),
        (b'{"a": "[[[[", "b": [' + b"[" * 100, 19 + 63),
        (b"\xef\xbb\xbf{}", 0),
    ],
)
async def test_a_fault_of_the_text_is_told_by_its_byte_offset(
    http: httpx.AsyncClient, body: bytes, offset: int
) -> None:
    response = await http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    [item] = assert_problem(response)["errors"]
    assert item["offset"] == offset
    assert item["pointer"] is None


@pytest.mark.parametrize(
    ("body", "pointer", "code", "got"),
    [
        ('{"spec": {"optimizer": {"lr": NaN}}}', "/spec/optimizer/lr", "not_finite", "NaN"),
        ('{"spec": [1, -1e999]}', "/spec/1", "not_finite", "-1e999"),
        ('{"a/b~c": Infinity}', "/a~1b~0c", "not_finite", "Infinity"),
        ('{"spec": 99999999999999999999}', "/spec", "integer_too_large", "99999999999999999999"),
        ('{"spec": {"lr": 1, "lr": 2}}', "/spec/lr", "duplicate_key", None),
        (r'{"name": "\ud800"}', "/name", "invalid_character", None),
        (r'{"name": "\u0000"}', "/name", "invalid_character", None),
    ],
)
async def test_a_value_that_cannot_be_is_told_by_its_pointer(
    http: httpx.AsyncClient, body: str, pointer: str, code: str, got: str | None
) -> None:
    response = await http.post("/v1/jobs", content=body.encode(), headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    [item] = assert_problem(response)["errors"]
    assert (item["pointer"], item["code"], item.get("got")) == (pointer, code, got)


async def test_what_is_deep_but_allowed_is_read(http: httpx.AsyncClient) -> None:
    body = b'{"spec": ' + b"[" * 63 + b"]" * 63 + b"}"
    response = await http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422


async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(http: httpx.AsyncClient) -> None:
    body = json.dumps({"spec": SPEC}).encode().ljust(2**20)
    headers = {"Content-Type": "application/json"}
    assert (await http.post("/v1/jobs", content=body, headers=headers)).status_code == 201
    response = await http.post("/v1/jobs", content=body + b" ", headers=headers)
    assert response.status_code == 413
    assert "1048576 bytes" in assert_problem(response)["detail"]


async def test_all_faults_are_told_at_once(http: httpx.AsyncClient) -> None:
    spec = {**SPEC, "optimizer": {"type": "sgd", "lr": -1}, "training": {"epochs": 0, "sead": 1}}
    problem = assert_problem(await http.post("/v1/jobs", json={"spec": spec, "priority": "high"}))
    pointers = [item["pointer"] for item in problem["errors"]]
    assert sorted(pointers) == ["/priority", "/spec/optimizer/lr", "/spec/training/epochs", "/spec/training/sead"]


@pytest.mark.parametrize("kind", sorted(LOCAL_TYPES))
@pytest.mark.parametrize("path", ["/etc", "/no/such/folder", "../../data.npz", "\\x00", 7])
async def test_paths_are_refused_whether_or_not_there_is_something(
    http: httpx.AsyncClient, kind: str, path: object
) -> None:
    problem = assert_problem(
        await http.post("/v1/jobs", json={"spec": {**SPEC, "dataset": {"type": kind, "path": path}}})
    )
    message = f"expected a dataset by its name, got {kind}, which names files of the server"
    expected = {"pointer": "/spec/dataset/type", "code": "local_path", "message": message, "got": kind}
    assert problem["errors"] == [expected]


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        (
            _rename("optimizer", "optimiser"),
            [{"op": "move", "from": "/spec/optimiser", "path": "/spec/optimizer"}],
        ),
        (
            _set("/optimizer/type", "Adam"),
            [{"op": "replace", "path": "/spec/optimizer/type", "value": "adam"}],
        ),
        (
            _set("/model/layers/4/out_features", 11),
            [{"op": "replace", "path": "/spec/model/layers/4/out_features", "value": 10}],
        ),
        (
            _set("/training/batch_size", 5000),
            [{"op": "add", "path": "/spec/training/batch_size", "value": 1294}],
        ),
        (
            _with_gan(40),  # whose batch size is not in the spec
            [{"op": "add", "path": "/spec/augmentation/0/batch_size", "value": 40}],
        ),
        (
            _with_gan(40, batch_size=41),
            [{"op": "add", "path": "/spec/augmentation/0/batch_size", "value": 40}],
        ),
        (
            _both(_with_gan(40, batch_size=40), _set("/model/layers/4/out_features", 2)),
            [{"op": "replace", "path": "/spec/model/layers/4/out_features", "value": 10}],
        ),
    ],
)
async def test_a_fix_is_offered_where_the_right_name_is_near(
    http: httpx.AsyncClient, change: Change, fix: list[dict[str, Any]]
) -> None:
    spec = copy.deepcopy(SPEC)
    change(spec)
    problem = assert_problem(await http.post("/v1/jobs", json={"spec": spec}))
    [item] = problem["errors"]
    assert item["fix"] == fix
    mended = {"spec": spec}
    for patch in item["fix"]:
        value = _pop(mended, patch["from"]) if patch["op"] == "move" else patch["value"]
        _set(patch["path"], value)(mended)
    assert (await http.post("/v1/jobs", json=mended)).status_code == 201


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(_with_gan(1, batch_size=2), "batch_too_large", id="no GAN learns from one image"),
        pytest.param(
            lambda spec: spec.update(training={"batch_size": 1, "accumulate": 1295, "drop_last": True}),
            "batch_too_large",
            id="more minibatches of one image than images",
        ),
        pytest.param(
            _both(_with_gan(40, batch_size=40), _layers(FLATTEN, {**OUTPUT, "out_features": 11}, {"type": "relu"})),
            "wrong_output",
            id="the last layer has no width",
        ),
    ],
)
async def test_no_fix_is_offered_where_nothing_fits(http: httpx.AsyncClient, change: Change, code: str) -> None:
    spec = copy.deepcopy(SPEC)
    change(spec)
    [item] = assert_problem(await http.post("/v1/jobs", json={"spec": spec}))["errors"]
    assert item["code"] == code
    assert "fix" not in item


@pytest.mark.parametrize(
    "body",
    [
        b'{"spec": [' + b"0," * 500_000 + b"0]}",
        b'{"spec": {"model": {"type": "layers", "layers": [' + b"{}," * 300_000 + b"{}]}}}",
        b"{" + b",".join(b'"%d":0' % n for n in range(90_000)) + b',"1":0}',
        b'{"spec": {"model": {"type": "layers", "layers": [' + b"{}," * 9_000 + b"{}]}}}",
        b'{"name": "\\u0041' + b"a" * 1_000_000 + b'"}',
        b'{"name": "' + b"[,{" * 300_000 + b'"}',
    ],
    ids=["numbers", "layers", "keys", "as many layers as are read", "text", "text with brackets"],
)
async def test_much_nonsense_is_refused_quickly(http: httpx.AsyncClient, body: bytes) -> None:
    started = time.process_time()
    response = await http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500
    assert len(assert_problem(response)["errors"]) <= 50
    assert time.process_time() - started < 3


async def test_what_came_is_shown_shortened(http: httpx.AsyncClient) -> None:
    spec = {**SPEC, "optimizer": {"type": "x" * 5000, "lr": 0.1}, "loss": ["y"] * 5000}
    problem = assert_problem(await http.post("/v1/jobs", json={"spec": spec}))
    assert all(len(item["got"]) <= 100 for item in problem["errors"])
    assert len(json.dumps(problem)) < 3000


async def test_the_tag_of_a_union_is_no_part_of_the_pointer_even_if_a_field_has_its_name(
    http: httpx.AsyncClient,
) -> None:
    spec = {**SPEC, "regularizers": [{"type": "l2", "weight": -1, "l2": {"weight": 3}}]}
    problem = assert_problem(await http.post("/v1/jobs", json={"spec": spec}))
    assert [item["pointer"] for item in problem["errors"]] == ["/spec/regularizers/0/weight", "/spec/regularizers/0/l2"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a\nb"),
        ("name", "\u202eevil"),
        ("name", "x" * 201),
        ("priority", 10**6),
        ("priority", 1.5),
        ("tags", ["two words"]),
        ("tags", "tag"),
        ("tags", ["t"] * 21),
        ("limits", {"max_runtime_seconds": 0}),
        ("limits", {"max_runtime": 60}),
        ("on_domain_change", "perhaps"),
        ("on_duplicate", "ignore"),
    ],
)
async def test_a_bad_field_beside_the_spec_is_refused(http: httpx.AsyncClient, field: str, value: object) -> None:
    response = await http.post("/v1/jobs", json={"spec": SPEC, field: value})
    assert response.status_code == 422
    assert assert_problem(response)["errors"][0]["pointer"].startswith(f"/{field}")
    await assert_nothing_stored(http)


async def assert_nothing_stored(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/jobs")
    assert response.status_code == 200
    assert response.json()["data"] == []
