"""The tutorial network trained as others do it: by a plain loop, timm's loop, Lightning, fastai and Keras.

Network, augmentation, optimizer (Adam, 1e-3, no weight decay) and batch are the same, and so is the data: image by
image through torchvision's transforms and a DataLoader, as their guides show it. The frameworks train a short epoch per
call, with what they do at its start and end, but without their progress bars, logs and checkpoints. What is not
installed is left out; `pip install -e '.[bench]'` brings them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cnn.data import Data

BATCH = 128
EPOCH_IMAGES = 64 * BATCH
LR = 1e-3
PLAIN = "plain PyTorch loop"

NORMALIZE = (v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.286,), (0.353,)))

Loader = DataLoader[tuple[Tensor, int]]


class Pictures(Dataset[tuple[Tensor, int]]):
    """A dataset as in the tutorials: one PIL image, its transforms, one tensor."""

    def __init__(
        self, data: Data, num_images: int, *, padding: int = 2, normalize: tuple[v2.Transform, ...] = NORMALIZE
    ) -> None:
        images, self._labels = data.train_images[:num_images], data.train_labels[:num_images]
        self._images = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
        self._transform = v2.Compose(
            [
                v2.RandomCrop(images.shape[2:], padding=padding),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                *normalize,
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), int(self._labels[index])


def loader(data: Data, num_images: int = EPOCH_IMAGES) -> Loader:
    return DataLoader(Pictures(data, num_images), batch_size=BATCH, shuffle=True, drop_last=True)


def tutorial_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def plain_loop(data: Data) -> Callable[[], int]:
    network = tutorial_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    batches = endless(loader(data))

    def work() -> int:
        images, labels = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        return BATCH

    return work


def timm_loop(data: Data) -> Callable[[], int]:
    """The inner loop of its `train.py`, with the optimizer that its factory builds."""
    network = tutorial_network()
    optimizer = module("timm.optim").create_optimizer_v2(network, opt="adam", lr=LR, weight_decay=0.0)
    losses = module("timm.utils").AverageMeter()
    batches = endless(loader(data))

    def work() -> int:
        images, labels = next(batches)
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
        return BATCH

    return work


def lightning_trainer(data: Data) -> Callable[[], int]:
    lightning = module("lightning.pytorch")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")  # it would have more workers than there are cores

    class Tutorial(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = tutorial_network()

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            images, labels = batch
            return F.cross_entropy(self.network(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=LR)

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    tutorial, batches = Tutorial(), loader(data)

    def work() -> int:
        lightning.Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(tutorial, batches)
        return EPOCH_IMAGES

    return work


def fastai_learner(data: Data) -> Callable[[], int]:
    """With its own Adam, and without the pass over the validation split."""
    fastai = module("fastai.basics")
    loaders = fastai.DataLoaders(loader(data), loader(data, BATCH), device=torch.device("cpu"))
    adam = partial(fastai.Adam, sqr_mom=0.999, eps=1e-8, wd=0.0)

    class NoValidation(fastai.Callback):  # type: ignore[name-defined, misc]
        def before_validate(self) -> None:
            raise fastai.CancelValidException

    learner = fastai.Learner(
        loaders, tutorial_network(), loss_func=nn.CrossEntropyLoss(), opt_func=adam, lr=LR, cbs=NoValidation()
    )

    def work() -> int:
        with learner.no_logging():
            learner.fit(1)
        return EPOCH_IMAGES

    return work


def keras_model(data: Data) -> Callable[[], int]:
    """On torch, with images in torch's order of dimensions, which spares it transpositions."""
    os.environ |= {"KERAS_BACKEND": "torch", "KERAS_TORCH_DEVICE": "cpu"}
    keras = module("keras")
    keras.config.set_image_data_format("channels_first")
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((1, 28, 28)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer=keras.optimizers.Adam(LR), loss=loss)
    batches = loader(data)

    def work() -> int:
        network.fit(batches, epochs=1, verbose=0)
        return EPOCH_IMAGES

    return work


FRAMEWORKS: dict[str, tuple[str, Callable[[Data], Callable[[], int]]]] = {
    "timm's loop": ("timm", timm_loop),
    "Lightning": ("lightning", lightning_trainer),
    "fastai": ("fastai", fastai_learner),
    "Keras on torch": ("keras", keras_model),
}
"""By name: the package that must be installed, and what builds its training."""


def installed_peers(data: Data) -> dict[str, Callable[[], int]]:
    """The plain loop and every framework that is installed; each call trains some and says on how many images."""
    peers = {PLAIN: plain_loop(data)}
    for name, (package, build) in FRAMEWORKS.items():
        if importlib.util.find_spec(package):
            peers[name] = build(data)
    return peers


def endless(batches: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from batches


def module(name: str) -> ModuleType:
    """Only when it is asked for: it is not installed everywhere, and takes seconds."""
    return importlib.import_module(name)


def versions() -> str:
    """Of the frameworks that are installed, for the table's caption."""
    packages = [package for package, _ in FRAMEWORKS.values() if importlib.util.find_spec(package)]
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
