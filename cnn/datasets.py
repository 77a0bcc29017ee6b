"""Datasets. To add one: write its class, then name it in `Dataset` at the bottom.

Readers of file formats are in `data.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Spec

if TYPE_CHECKING:
    from cnn.data import Data


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a spec is checked against: `shape` is (channels, height, width) of one image."""

    name: str
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    num_train: int
    num_test: int

    @property
    def num_classes(self) -> int:
        return len(self.labels)


class FashionMNIST(Spec):
    """70,000 grey 28 × 28 pictures of clothes in 10 classes (Xiao, Rasul & Vollgraf, 2017)."""

    type: Literal["fashion_mnist"] = "fashion_mnist"

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="fashion_mnist",
        shape=(1, 28, 28),
        labels=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        num_train=60000,
        num_test=10000,
    )

    def load(self, data_dir: Path) -> Data:
        """From `<data_dir>/datasets/fashion_mnist`, the system's folder, or torchvision's download."""
        from cnn.data import decoded_once, read_fashion_mnist

        folder = data_dir / "datasets" / self.type
        return decoded_once(folder / "decoded", lambda: read_fashion_mnist(folder))


class Digits(Spec):
    """1,797 grey 8 × 8 pictures of handwritten digits, which scikit-learn ships; every fifth one is for testing."""

    type: Literal["digits"] = "digits"

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="digits", shape=(1, 8, 8), labels=tuple("0123456789"), num_train=1438, num_test=359
    )

    def load(self, data_dir: Path) -> Data:
        from cnn.data import decoded_once, read_digits

        return decoded_once(data_dir / "datasets" / self.type / "decoded", read_digits)


Dataset = TypeAliasType("Dataset", Annotated[FashionMNIST | Digits, Field(discriminator="type")])
