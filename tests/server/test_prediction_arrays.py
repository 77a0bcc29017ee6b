"""Arrays instead of image files: networks of any number of channels, and what is refused before it is unpacked."""

from __future__ import annotations

import io
import os
import random
import re
import tracemalloc
import zipfile
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors.torch import load

from cnn.errors import DataCorrupt
from cnn.formats.npz import MAX_HEADER_BYTES
from cnn.models import build_network
from cnn.spec import TrainingSpec
from server.prediction.arrays import TooManyImages, is_array, read_images
from server.prediction_schemas import MAX_IMAGES, Layout
from tests.cnn.formats.written import TEST_LABELS, TRAIN_LABELS, pictures
from tests.server.predicting import picture, trained
from tests.server.problems import assert_problem
from tests.server.seeding import SPEC, Seed

pytestmark = pytest.mark.anyio

SHAPES = [(2, 8, 6), (4, 8, 8), (8, 8, 8), (1, 8, 6)]
"""Channels, height and width; of the last but one the axes cannot be told."""
MODEL = {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 3}]}


def values(num_images: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(num_images).integers(0, 256, (num_images, *shape), dtype=np.uint8)


def npy_file(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz_file(**arrays: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """The beginning of an NPY file, whatever follows."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def zipped(content: bytes, compression: int = zipfile.ZIP_DEFLATED, name: str = "images.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The spec of a network that was trained on an NPZ file, and its artifacts."""
    folder = tmp_path_factory.mktemp("trained")
    images = {
        f"{split}_images": pictures(labels, request.param)
        for split, labels in (("train", TRAIN_LABELS), ("test", TEST_LABELS))
    }
    np.savez(folder / "data.npz", **images, train_labels=TRAIN_LABELS, test_labels=TEST_LABELS)
    dataset = {"type": "npz", "path": str(folder / "data.npz"), "layout": "NCHW"}
    training = {"epochs": 1, "batch_size": 10}
    spec = {**SPEC, "dataset": dataset, "model": MODEL, "training": training}
    return spec, trained(spec, folder / "artifacts", folder / "data")


@torch.inference_mode()
def expected(spec: Mapping[str, Any], files: Mapping[str, bytes], images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The probabilities of the classes by the delivered weights in torch."""
    network = build_network(TrainingSpec.model_validate(spec))
    network.load_state_dict(load(files["model.safetensors"]))
    network.eval()
    probabilities: NDArray[np.float64] = network(torch.from_numpy(images.copy())).double().softmax(dim=1).numpy()
    return probabilities


async def test_arrays_of_any_number_of_channels_get_the_probabilities_of_the_network(
    http: httpx.AsyncClient, seed: Seed, network: tuple[dict[str, Any], dict[str, bytes]]
) -> None:
    spec, files = network
    images = pictures(TEST_LABELS, TrainingSpec.model_validate(spec).dataset.info.shape)
    last = np.moveaxis(images, 1, 3)
    sent: dict[str, tuple[bytes, Layout, list[int | None], NDArray[np.uint8]]] = {
        "several": (npy_file(images), "NCHW", list(range(9)), images),
        "channels last": (npz_file(images=last, labels=TEST_LABELS), "NHWC", list(range(9)), images),
        "one": (npy_file(images[4]), "NCHW", [None], images[4:5]),
        "one, channels last": (npz_file(anything=last[5]), "NHWC", [None], images[5:6]),
        "columns first": (npy_file(np.asfortranarray(last)), "NHWC", list(range(9)), images),
    }
    if images.shape[1] == 1:
        sent["grey"] = (npy_file(images[:3, 0]), "NHW", [0, 1, 2], images[:3])
        sent["one, grey"] = (zipped(npy_file(images[7, 0]), zipfile.ZIP_STORED), "NHW", [None], images[7:8])
    path = f"/v1/jobs/{seed.succeeded(files).id}/predict"
    for name, (content, layout, positions, shown) in sent.items():
        for params in ({"layout": layout}, {}):
            response = await http.post(path, params={**params, "top_k": 3}, content=content)
            if not params and len(set(images.shape[1:])) == 1:
                assert response.status_code == 422
                assert "may be NHWC or NCHW: say which by layout" in assert_problem(response)["detail"]
                continue
            assert response.status_code == 200, (name, response.text)
            answer = response.json()["data"]
            found = [[one["probability"] for one in sorted(each["predictions"], key=_index)] for each in answer]
            np.testing.assert_allclose(found, expected(spec, files, shown), atol=1e-4, err_msg=name)
            if params or name != "one" or images.shape[1] > 1:  # one channel first may as well be one of several
                assert [each["position"] for each in answer] == positions
            assert {(each["height"], each["width"]) for each in answer} == {images.shape[2:]}
            assert {(each["name"], *each["warnings"]) for each in answer} == {(None,)}


def _index(prediction: dict[str, Any]) -> int:
    index: int = prediction["index"]
    return index


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("trained")
    return trained({**SPEC, "training": {"epochs": 1}}, folder / "artifacts", folder / "data")


async def test_arrays_and_image_files_may_come_together(
    http: httpx.AsyncClient, seed: Seed, digits: dict[str, bytes]
) -> None:
    images = values(3, 8, 8)
    pngs = [picture(image[None]) for image in images]
    files = [("a.npy", npy_file(images)), ("0.png", pngs[0]), ("b.npz", npz_file(x=images[1])), ("2.png", pngs[2])]
    path = f"/v1/jobs/{seed.succeeded(digits).id}/predict"
    answer = (await http.post(path, files=[("image", file) for file in files])).json()["data"]
    assert [(one["name"], one["position"]) for one in answer] == [
        ("a.npy", 0), ("a.npy", 1), ("a.npy", 2), ("0.png", None), ("b.npz", None), ("2.png", None)
    ]  # fmt: skip
    by_array, by_file = answer[:3], answer[3:]
    for one, other in zip(by_array, by_file, strict=True):
        assert [each["index"] for each in one["predictions"]] == [each["index"] for each in other["predictions"]]
        shares = [[each["probability"] for each in image["predictions"]] for image in (one, other)]
        np.testing.assert_allclose(*shares, atol=1e-6)


async def test_the_images_of_all_files_are_counted(
    http: httpx.AsyncClient, seed: Seed, digits: dict[str, bytes]
) -> None:
    path = f"/v1/jobs/{seed.succeeded(digits).id}/predict"
    half = npy_file(values(MAX_IMAGES // 2, 8, 8))
    for more, status_code in ((None, 200), (npy_file(values(1, 8, 8)), 422), (picture(values(1, 8, 8)), 422)):
        files = [("image", (str(number), content)) for number, content in enumerate((half, half, more)) if content]
        response = await http.post(path, files=files)
        assert response.status_code == status_code, response.text
        if status_code == 422:
            assert (
                f"expected 1 to {MAX_IMAGES} images, got more than {MAX_IMAGES}" in assert_problem(response)["detail"]
            )


class Canary:
    """Kills whoever unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


def _objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((8, 8), Canary(), object), allow_pickle=True)
    return file.getvalue()


FAULTS = {
    "floats": (
        npy_file(np.zeros((8, 8))),
        "expected uint8 values from 0 to 255, got float64; floats from 0 to 1 become",
    ),
    "signed": (npy_file(np.zeros((8, 8), np.int8)), "got int8"),
    "booleans": (npy_file(np.zeros((8, 8), bool)), "got bool"),
    "records": (npy_file(np.zeros((8, 8), [("a", "u1")])), r"got \[\('a', 'u1'\)\]"),
    "objects": (_objects(), "expected uint8 values from 0 to 255, got object$"),
    "objects in a zip": (zipped(_objects()), "got object$"),
    "other size": (
        npy_file(values(1, 9, 8)),
        r"expected NHW or NHWC or NCHW, or one image without N, of 1 channels, height 8 and width 8, "
        r"got an array of shape \(1, 9, 8\)",
    ),
    "other channels": (npy_file(values(2, 8, 8, 3)), r"got an array of shape \(2, 8, 8, 3\)"),
    "no axes": (npy_file(np.uint8(7)[()]), r"got an array of shape \(\)"),
    "no images": (npy_file(values(0, 8, 8)), r"got an array of shape \(0, 8, 8\)"),
    "fewer than none": (header((-1, 8, 8)), r"got an array of shape \(-1, 8, 8\)"),
    "many axes": (header((8,) * 2000), "got an array of shape .*…$"),
    "cut": (npy_file(values(1, 8, 8))[:-1], "got one that cannot be read: EOF"),
    "cut in its header": (npy_file(values(1, 8, 8))[:40], "got one that cannot be read: EOF"),
    "a later version": (b"\x93NUMPY\3\0" + header((8, 8))[8:], "expected version 1.0 or 2.0 of the NPY format"),
    "nonsense": (b"\x93NUMPY\1\0\4\0((((", "got one that cannot be parsed"),
    "deep nonsense": (b"\x93NUMPY\2\0\x28\x23\0\0" + b"1+" * 4499 + b"1 ", "got one that cannot be parsed"),
    "no zip": (b"PK\3\4 and no more", "got one that cannot be read: File is not a zip file"),
    "no array in the zip": (zipped(b"x", name="a.txt"), "with one array, or with one called images, found: none"),
    "several arrays": (npz_file(a=values(1, 8, 8), b=values(1, 8, 8)), 'called images, found: "a", "b"$'),
    "no NPY in the zip": (zipped(b"x"), "got one that cannot be read"),
    "another compression": (zipped(npy_file(values(1, 8, 8)), zipfile.ZIP_LZMA), "as numpy.savez .* writes it"),
    "neither": (
        b"\x93NUMBER",
        "expected an image as PNG, JPEG, WEBP, BMP, or an array as NPY or NPZ, got something else",
    ),
}


async def test_a_bad_array_is_named_with_what_is_wrong(
    http: httpx.AsyncClient, seed: Seed, digits: dict[str, bytes]
) -> None:
    path = f"/v1/jobs/{seed.succeeded(digits).id}/predict"
    files = [("image", ("good.npy", npy_file(values(1, 8, 8))))]
    files += [("image", (name, content)) for name, (content, _) in FAULTS.items()]
    response = await http.post(path, files=files)
    assert response.status_code == 422
    problem = assert_problem(response)
    assert problem["detail"].startswith(f"{len(FAULTS)} of {len(FAULTS) + 1} images cannot be used: image 1")
    for (number, item), (name, (_, message)) in zip(enumerate(problem["errors"], 1), FAULTS.items(), strict=True):
        assert (item["image"], item["code"]) == (number, "unusable_image")
        assert item["message"].startswith(f'image {number}, "{name}": ')
        assert re.search(message, item["message"]), item["message"]
        assert len(item["message"]) < 400
    assert (await http.post(path, params={"layout": "NWH"}, content=npy_file(values(1, 8, 8)))).status_code == 422


async def test_a_layout_that_is_not_that_of_the_array_is_refused(
    http: httpx.AsyncClient, seed: Seed, digits: dict[str, bytes]
) -> None:
    path = f"/v1/jobs/{seed.succeeded(digits).id}/predict"
    response = await http.post(path, params={"layout": "NHWC"}, content=npy_file(values(1, 8, 8)))
    assert "expected NHWC, or one image without N, of 1 channels" in assert_problem(response)["detail"]


async def test_pictures_are_refused_by_a_network_of_other_channels(
    http: httpx.AsyncClient, seed: Seed, network: tuple[dict[str, Any], dict[str, bytes]]
) -> None:
    spec, files = network
    channels = TrainingSpec.model_validate(spec).dataset.info.shape[0]
    response = await http.post(f"/v1/jobs/{seed.succeeded(files).id}/predict", content=picture(values(3, 8, 8)))
    if channels == 1:
        assert response.status_code == 200
    else:
        assert (
            f"takes {channels} channels, and a picture has 1 or 3: send an array" in assert_problem(response)["detail"]
        )


async def test_an_output_that_is_not_finite_is_no_answer(
    http: httpx.AsyncClient, seed: Seed, digits: dict[str, bytes]
) -> None:
    """White alone is beyond the float32 of a network whose weights have grown."""
    model = onnx.load_from_string(digits["model.onnx"])
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight"):
            grown = np.full(tensor.dims, 1e19, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(grown, tensor.name))
    path = f"/v1/jobs/{seed.succeeded({**digits, 'model.onnx': model.SerializeToString()}).id}/predict"
    files = [("a.png", picture(np.zeros((1, 8, 8), np.uint8))), ("b.npy", npy_file(np.full((2, 8, 8), 255, np.uint8)))]
    response = await http.post(path, files=[("image", file) for file in files])
    assert response.status_code == 422
    messages = [item["message"] for item in assert_problem(response)["errors"]]
    assert 'image 1, "b.npy": the network\'s output for image 1 of the array is not finite' in messages


@pytest.mark.parametrize("is_zipped", [False, True])
def test_no_more_is_unpacked_than_a_header_announces(is_zipped: bool) -> None:
    """64 MB behind a header: of too many images, of others, and of a few images at its beginning."""
    zeros = bytes(2**26)
    for shape, wanted in (((2**20, 8, 8), TooManyImages), ((2**26,), DataCorrupt), ((5, 8, 8), None)):
        content = header(shape) + zeros
        content = zipped(content) if is_zipped else content
        tracemalloc.start()
        try:
            if wanted is None:
                assert read_images(content, (1, 8, 8), None, MAX_IMAGES)[0].shape == (5, 1, 8, 8)
            else:
                with pytest.raises(wanted):
                    read_images(content, (1, 8, 8), None, MAX_IMAGES)
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


def test_no_more_of_a_header_is_unpacked_than_there_may_be() -> None:
    content = zipped(b"\x93NUMPY\2\0" + (2**26).to_bytes(4, "little") + b" " * 2**26)
    tracemalloc.start()
    try:
        with pytest.raises(DataCorrupt, match=f"expected {2**26} bytes got {MAX_HEADER_BYTES - 12}"):
            read_images(content, (1, 8, 8), None, MAX_IMAGES)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("start", [npy_file(values(2, 8, 8)), npz_file(images=values(2, 8, 8))], ids=["npy", "npz"])
def test_no_bytes_do_more_than_be_refused(start: bytes) -> None:
    chance = random.Random(0)
    refused = 0
    for _ in range(3000):
        damaged = bytearray(start)
        for _ in range(chance.randrange(1, 5)):
            place = chance.randrange(6, len(damaged))
            damaged[place] = chance.randrange(256)
        content = bytes(damaged[: chance.choice([len(damaged), chance.randrange(6, len(damaged))])])
        assert is_array(content)
        try:
            images, _ = read_images(content, (1, 8, 8), None, MAX_IMAGES)
        except (DataCorrupt, TooManyImages):
            refused += 1
            continue
        assert images.shape[1:] == (1, 8, 8)
    assert refused > 1000
