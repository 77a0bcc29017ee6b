"""Augmentation. To add one: write its class in the file of its kind, then name it in `Augmentation` here.

The transforms act in the order of the list on images in 0..255, before normalization. Images stay uint8 while whole
pixels move; after the first transform that computes new values they are float32, and are not rounded back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import groupby, takewhile
from operator import matmul
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Shape, ShapeError, spec_error
from cnn.blurring import GaussianBlur, PatchBlur, RandomErasing
from cnn.feature_space import FeatureSpace
from cnn.generative import GAN
from cnn.geometric import (
    CenterCrop,
    HorizontalFlip,
    Perspective,
    RandomCrop,
    RandomResizedCrop,
    Rotate,
    Shear,
    Translate,
    VerticalFlip,
    Zoom,
)
from cnn.mixing import CutMix, Mixup
from cnn.photometric import Brightness, ColorJitter, Contrast, Gamma, Grayscale, Hue, PCALighting, Saturation
from cnn.policies import RandAugment, TrivialAugment
from cnn.transform import Mixing, PixelMove, PixelShift, Pixelwise, Stage, Transform, Warp

if TYPE_CHECKING:
    from torch import Tensor

    from cnn.transforms.draws import Draws

Augmentation = TypeAliasType(
    "Augmentation",
    Annotated[
        GAN
        | FeatureSpace
        | RandomCrop
        | RandomResizedCrop
        | CenterCrop
        | HorizontalFlip
        | VerticalFlip
        | Zoom
        | Translate
        | Rotate
        | Shear
        | Perspective
        | PatchBlur
        | GaussianBlur
        | RandomErasing
        | Brightness
        | Contrast
        | Saturation
        | Hue
        | Gamma
        | PCALighting
        | Grayscale
        | ColorJitter
        | RandAugment
        | TrivialAugment
        | Mixup
        | CutMix,
        Field(discriminator="type"),
    ],
)

Augment = Callable[["Tensor", "Tensor", "Draws"], "tuple[Tensor, Tensor]"]

CHUNK_SIZE = 2**19
"""Float32 values that are computed at a time on a CPU: what is between two transforms stays in the cache."""

REASONS = {
    Stage.BATCH: "it decides what enters the batch, so it comes before all that changes images",
    Stage.IMAGE: "it changes single images, so it comes before those that mix two of them",
}


class ImageStep(NamedTuple):
    """Transforms that act as one."""

    apply: Callable[[Tensor, Draws], Tensor]
    in_chunks: bool
    """Whether it takes so many passes over the images that a few of them at a time, in the cache, are faster."""
    warps: bool = False
    """Whether the compiled library, where it is used, does it in one pass."""

    def takes_whole(self, images: Tensor) -> bool:
        """Whether these are best given to it all at once."""
        from cnn.native.library import used

        return not self.in_chunks or (self.warps and used() is not None and images.device.type == "cpu")


def check_augmentation(transforms: Sequence[Transform], shape: Shape) -> None:
    """Raise spec_error, with a pointer into the list, for a transform that does not fit its images or its place."""
    latest = Stage.BATCH
    mixed = 0.0
    for index, transform in enumerate(transforms):
        pointer = f"/augmentation/{index}"
        try:
            transform.check(shape)
        except ShapeError as error:
            raise spec_error("augmentation_mismatch", pointer, f"{transform.type}: {error}") from error
        if transform.stage is Stage.NETWORK:
            continue
        if transform.stage < latest:
            raise spec_error("augmentation_order", pointer, f"{transform.type}: {REASONS[transform.stage]}")
        latest = transform.stage
        if isinstance(transform, Mixing):
            mixed += transform.p
            if mixed > 1:
                raise spec_error(
                    "augmentation_mismatch",
                    f"{pointer}/p",
                    f"{transform.type}: a batch is mixed once at most, but the probabilities p of mixup and cutmix "
                    f"add up to {mixed:g}",
                    got=transform.p,
                )


def check_devices(devices: int, smallest_minibatch: int, transforms: Sequence[Transform]) -> None:
    """Raise spec_error where several devices cannot share the work."""
    if devices > smallest_minibatch:
        raise spec_error(
            "batch_too_small",
            "/training/devices",
            f"each device needs an image of every minibatch, but there are {devices} devices, and a minibatch of "
            f"{smallest_minibatch}",
            got=devices,
        )
    for index, transform in enumerate(transforms):
        if devices > 1 and transform.stage in (Stage.BATCH, Stage.NETWORK):
            raise spec_error(
                "one_device_only",
                f"/augmentation/{index}",
                f"{transform.type} works on one device only, and training.devices is {devices}",
                got=transform.type,
            )


def build_augmentation(transforms: Sequence[Transform], num_classes: int) -> Augment:
    """A function of uint8 images (N, C, H, W), labels (N,) and draws, that gives images and targets.

    Targets are the labels, or probabilities (N, num_classes) where the list has a mixing transform.
    """
    steps = _steps([transform for transform in transforms if transform.stage is Stage.IMAGE])
    mixings = [transform for transform in transforms if isinstance(transform, Mixing)]

    def augment(images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        whole = list(takewhile(lambda step: step.takes_whole(images), steps))
        images = _in_chunks(steps[len(whole) :], _in_turn(whole, images.contiguous(), draws), draws)
        if not mixings:
            return images, labels
        return _mix(mixings, images, labels, draws)

    def _mix(mixings: Sequence[Mixing], images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        import torch

        targets = torch.nn.functional.one_hot(labels, num_classes).float()
        drawn, below = draws.one(), 0.0
        for mixing in mixings:
            chosen = (drawn >= below) & (drawn < below + mixing.p)
            below += mixing.p
            images, targets = mixing.mix(images, targets, chosen, draws)
        return images, targets

    return augment


def _in_chunks(steps: Sequence[ImageStep], images: Tensor, draws: Draws) -> Tensor:
    """Images from steps of which the first is one for chunks, and makes float32 of them."""
    import torch

    number = max(1, CHUNK_SIZE // images[0].numel())
    if not steps or number >= len(images) or images.device.type != "cpu":
        return _in_turn(steps, images, draws)
    result = torch.empty(images.shape)
    for start in range(0, len(images), number):
        stop = start + number
        result[start:stop] = _in_turn(steps, images[start:stop], draws.part(start, stop))
    return result


def _in_turn(steps: Sequence[ImageStep], images: Tensor, draws: Draws) -> Tensor:
    for step in steps:
        images = step.apply(images, draws)
    return images


def _steps(transforms: Sequence[Transform]) -> list[ImageStep]:
    """The transforms, with those that compose as one step."""
    steps: list[ImageStep] = []
    for geometric, members in groupby(transforms, lambda transform: isinstance(transform, PixelMove | Warp)):
        if geometric:
            steps += map(_geometric, _with_one_fill([m for m in members if isinstance(m, PixelMove | Warp)]))
        else:
            steps += [ImageStep(m.apply, m.in_chunks) for m in members if isinstance(m, Pixelwise)]
    return steps


def _with_one_fill(transforms: Sequence[PixelMove | Warp]) -> list[list[PixelMove | Warp]]:
    """Neighbours that fill with the same value; a flip fills nothing and goes with any of them."""
    groups: list[list[PixelMove | Warp]] = []
    current: int | None = None
    for transform in transforms:
        fill = _fill(transform)
        if not groups or (fill is not None and current is not None and fill != current):
            groups.append([])
            current = None
        groups[-1].append(transform)
        current = fill if fill is not None else current
    return groups


def _fill(transform: PixelMove | Warp) -> int | None:
    return transform.fill if isinstance(transform, PixelShift | Warp) else None


def _geometric(group: Sequence[PixelMove | Warp]) -> ImageStep:
    """One resampling for transforms with one fill: of whole pixels where all of them move whole pixels."""
    fill = next((fill for fill in map(_fill, group) if fill is not None), 0)
    moves = [transform for transform in group if isinstance(transform, PixelMove)]
    projective = any(isinstance(transform, Perspective) for transform in group)

    def gather(images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.sampling import followed_by, resample

        size = (images.shape[2], images.shape[3])
        motion = reduce(followed_by, (transform.motion(draws, size) for transform in moves))
        return resample(images, motion, fill)

    def interpolate(images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.warping import motion_matrix, warp, warp_some

        size = (images.shape[2], images.shape[3])
        matrices = (
            transform.matrix(draws, size)
            if isinstance(transform, Warp)
            else motion_matrix(transform.motion(draws, size))
            for transform in group
        )
        motion = reduce(matmul, matrices)
        return (warp_some if projective else warp)(images, motion, fill)

    return ImageStep(gather, False) if len(moves) == len(group) else ImageStep(interpolate, True, warps=True)
