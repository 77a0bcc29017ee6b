"""Datasets. To add one: write its class, then name it in `Dataset` at the bottom.

Those in files of one's own are in `local_datasets.py`, readers of file formats in `formats/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Items, Spec
from cnn.errors import DataCorrupt, DatasetMissing
from cnn.formats import cifar100_labels
from cnn.local_datasets import IDX, NPZ, ImageFolder

if TYPE_CHECKING:
    from cnn.data import Data


Size = Annotated[int, Field(ge=1)]


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


class Published(Spec):
    """A dataset that everybody has under one name: its shape and classes are known without its files."""

    type: str
    local_path: ClassVar[bool] = False
    """Whether the spec names files of the machine that trains, which is nothing to accept from somebody else."""
    info: ClassVar[DatasetInfo]
    known_digest: ClassVar[str | None] = None
    """Of the images and labels, where it is known before they are loaded."""

    def load(self, data_dir: Path) -> Data:
        """Decoded once. Raises DatasetMissing, which says what to do, or DataCorrupt."""
        from cnn.data import decoded_once

        folder = data_dir / "datasets" / self.type
        return decoded_once(folder / "decoded", lambda: self._checked(self.read(folder)))

    def _checked(self, data: Data) -> Data:
        """Files of the right format may still be those of another dataset."""
        info, num_classes = self.info, 1 + int(max(data.train_labels.max(), data.test_labels.max()))
        expected = ((info.num_train, *info.shape), (info.num_test, *info.shape), info.num_classes)
        came = (data.train_images.shape, data.test_images.shape, num_classes)
        if came != expected:
            raise DataCorrupt(
                f"{self.type}: expected train images, test images and classes {expected}, got {came}",
                "the files may be those of another dataset",
            )
        return data

    def read(self, folder: Path) -> Data:
        """From the published files, which are in `folder` unless a class says otherwise."""
        raise NotImplementedError


class FashionMNIST(Published):
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

    def read(self, folder: Path) -> Data:
        """From `folder`, the system's folder, or torchvision's download."""
        from cnn.formats.idx import read_published

        return read_published(folder, self.type, "Fashion-MNIST")


class MNIST(Published):
    """70,000 grey 28 × 28 pictures of handwritten digits (LeCun, Cortes & Burges, 1998)."""

    type: Literal["mnist"] = "mnist"

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="mnist", shape=(1, 28, 28), labels=tuple("0123456789"), num_train=60000, num_test=10000
    )

    def read(self, folder: Path) -> Data:
        """From `folder`, the system's folder, or torchvision's download."""
        from cnn.formats.idx import read_published

        return read_published(folder, self.type, "MNIST")


class CIFAR10(Published):
    """60,000 colour 32 × 32 photographs in 10 classes (Krizhevsky, 2009), from the published binary version."""

    type: Literal["cifar10"] = "cifar10"

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="cifar10",
        shape=(3, 32, 32),
        labels=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        num_train=50000,
        num_test=10000,
    )

    def read(self, folder: Path) -> Data:
        """From `cifar-10-binary.tar.gz` in `folder`, or what is in it, unpacked there."""
        from cnn.formats.cifar import CIFAR10 as FILES
        from cnn.formats.cifar import read_cifar

        return read_cifar(folder, FILES, self.info.labels)


class CIFAR100(Published):
    """60,000 colour 32 × 32 photographs in 100 classes (Krizhevsky, 2009), from the published binary version."""

    type: Literal["cifar100"] = "cifar100"

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="cifar100",
        shape=(3, 32, 32),
        labels=cifar100_labels.LABELS,
        num_train=50000,
        num_test=10000,
    )

    def read(self, folder: Path) -> Data:
        """From `cifar-100-binary.tar.gz` in `folder`, or what is in it, unpacked there."""
        from cnn.formats.cifar import CIFAR100 as FILES
        from cnn.formats.cifar import read_cifar

        return read_cifar(folder, FILES, self.info.labels)


class Digits(Published):
    """1,797 grey 8 × 8 pictures of handwritten digits, which scikit-learn ships; every fifth one is for testing."""

    type: Literal["digits"] = "digits"

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="digits", shape=(1, 8, 8), labels=tuple("0123456789"), num_train=1438, num_test=359
    )

    def read(self, folder: Path) -> Data:
        from cnn.formats.digits import read_digits

        return read_digits()


class Content(Spec):
    """What registration found in a dataset."""

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    """Of the images and labels."""
    shape: Annotated[tuple[Size, Size, Size], Field(strict=False)]
    """Channels, height and width of an image."""
    labels: Annotated[Items[str], Field(min_length=1)]
    """The classes in the order of their numbers."""
    num_train: Size
    num_test: Size


class Registered(Spec):
    """A dataset that was uploaded and registered: `POST /v1/datasets`."""

    type: Literal["registered"] = "registered"
    local_path: ClassVar[bool] = False
    id: Annotated[str, Field(pattern=r"^ds_[0-9a-z]{26}$")]
    """Which one."""
    content: Content | None = None
    """The server fills it in when a job is submitted, whatever was sent; a stored spec has it."""

    @property
    def info(self) -> DatasetInfo:
        """Raises DatasetMissing when nobody has filled in the content."""
        content = self._filled()
        return DatasetInfo(self.id, content.shape, content.labels, content.num_train, content.num_test)

    @property
    def known_digest(self) -> str:
        return self._filled().digest

    def load(self, data_dir: Path) -> Data:
        """Map what registration decoded. Raises DatasetMissing when it was deleted."""
        from cnn.data import read_decoded

        content = self._filled()
        folder = registered_folder(data_dir, content.digest)
        if not folder.is_dir():
            raise DatasetMissing(f"{folder} does not exist: the dataset {self.id} was deleted, or is on another server")
        return read_decoded(folder)

    def _filled(self) -> Content:
        if self.content is None:
            raise DatasetMissing(f"there is no dataset {self.id} that is ready: GET /v1/datasets lists those there are")
        return self.content


def registered_folder(data_dir: Path, digest: str) -> Path:
    """Where the arrays of registered datasets with this digest are."""
    return data_dir / "datasets" / "registered" / digest.removeprefix("sha256:")


Dataset = TypeAliasType(
    "Dataset",
    Annotated[
        FashionMNIST | MNIST | CIFAR10 | CIFAR100 | Digits | Registered | ImageFolder | NPZ | IDX,
        Field(discriminator="type"),
    ],
)
LOCAL_TYPES = frozenset(member.model_fields["type"].default for member in (ImageFolder, NPZ, IDX))
"""The tags of the datasets that name files, for those who must refuse them before a spec is checked."""
