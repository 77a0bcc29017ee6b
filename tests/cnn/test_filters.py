from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cnn.filters import MAX_FILTERS, filters_picture
from cnn.models import build_network
from cnn.sheets import GAP, MIN_CELL, NUM_COLUMNS
from tests.cnn.plain import LAYERS, small_spec


def cell(content: bytes | None, place: int) -> NDArray[np.uint8]:
    """A filter with 3 pixels a side as it is drawn, (3, 3, RGB)."""
    assert content is not None
    row, column = divmod(place, NUM_COLUMNS)
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    top, left = (GAP + number * (MIN_CELL + GAP) for number in (row, column))
    return pixels[top : top + MIN_CELL, left : left + MIN_CELL][8::16, 8::16]


def test_each_filter_reaches_from_black_over_grey_to_white() -> None:
    weights = torch.zeros(10, 1, 3, 3)
    weights[0, 0] = torch.tensor([[-2.0, 0, 1], [0, 0, 0], [0, 0, 2]])
    weights[9] = 0.001
    picture = filters_picture({"normalization.mean": torch.ones(1), "conv.weight": weights})
    # 128 + 127 · w / max |w|: 1, 128, 191.5 (to the even number) and 255.
    assert cell(picture, 0)[..., 0].tolist() == [[1, 128, 192], [128, 128, 128], [128, 128, 255]]
    assert (cell(picture, 1) == 128).all()
    assert (cell(picture, 9) == 255).all()


def test_filters_over_colours_have_them_and_of_many_the_first_are_shown() -> None:
    weights = torch.zeros(MAX_FILTERS + 5, 3, 3, 3)
    weights[:, 0], weights[:, 2] = 1.0, -1.0
    picture = filters_picture({"conv.weight": weights})
    assert cell(picture, MAX_FILTERS - 1)[1, 1].tolist() == [255, 128, 1]
    assert picture == filters_picture({"conv.weight": weights[:MAX_FILTERS]})


@pytest.mark.parametrize(
    "layers",
    [
        [{"type": "flatten"}, {"type": "linear", "out_features": 10}],
        [{"type": "batch_norm"}, *LAYERS],
        [{"type": "weight_norm", "layer": {key: LAYERS[0][key] for key in LAYERS[0] if key != "name"}}, *LAYERS[1:]],
    ],
    ids=lambda layers: layers[0]["type"],
)
def test_there_is_none_where_the_first_layer_has_no_filters(layers: list[dict[str, object]]) -> None:
    assert filters_picture(_weights(layers)) is None


@pytest.mark.parametrize("first", [LAYERS[0], {"type": "whitening_conv2d"}], ids=lambda layer: layer["type"])
def test_there_is_one_where_it_has(first: dict[str, object]) -> None:
    assert filters_picture(_weights([first, *LAYERS[1:]])) is not None


def _weights(layers: list[dict[str, object]]) -> dict[str, Tensor]:
    spec = small_spec(model={"type": "layers", "layers": layers}, normalization={"type": "standardize"})
    return dict(build_network(spec).state_dict())
