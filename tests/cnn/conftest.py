from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cnn.data import Data
from tests.cnn.plain import BATCH, small_spec

# The networks here are so small that more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def float64() -> Iterator[None]:
    """Networks that are built inside have float64 weights."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_spec().dataset.load(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def batches(digits: Data) -> list[tuple[Tensor, Tensor]]:
    """Fifty batches of images and labels."""
    order = torch.randperm(len(digits.train_images), generator=torch.Generator().manual_seed(5))
    chosen = order.repeat(2)[: 50 * BATCH].reshape(50, BATCH)
    images, labels = torch.from_numpy(digits.train_images), torch.from_numpy(digits.train_labels)
    return [(images[rows], labels[rows]) for rows in chosen]
