"""Augmentation by a generative adversarial network: what a spec says about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cnn.base import Shape, ShapeError, spec_error
from cnn.transform import Stage, Transform

MIN_SIDE = 8


class GAN(Transform):
    """A share of each minibatch comes from a class-conditional GAN, which is trained before the network.

    A DCGAN (Radford et al., ICLR 2016) with class-conditional batch normalization in its generator, and spectral norms
    (Miyato et al., ICLR 2018) and an auxiliary classifier (Odena et al., ICML 2017) in its discriminator, learns from
    the training split alone. Both learn by Adam with betas (0.5, 0.999), from the non-saturating loss of Goodfellow et
    al. (NIPS 2014) and the cross entropy of the classifier.

    This is a stage of the job, phase `training_gan`, whose steps come before those of the network: step numbers count
    on over both, epochs begin anew. Series: `gan_generator_loss`, `gan_discriminator_loss`, and at its end
    `gan_class_agreement` (the share of generated images that a small classifier, trained on real images alone, takes
    for their class), `gan_diversity` (the mean over the classes of the mean distance between generated images of a
    class, divided by that between real ones) and `gan_lowest_diversity` (of the worst class). Low ones are warned of.

    Of each minibatch round(share · size) images are generated, a half rounded upwards. They replace real ones, so that
    it keeps its size; their labels are those of training images drawn at random. The transforms behind `gan` act on
    them too. What they replace is not seen in that epoch; training loss and accuracy include them.
    """

    type: Literal["gan"] = "gan"
    stage: ClassVar[Stage] = Stage.BATCH
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of each minibatch that is generated."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Passes of the GAN over the training split."""
    latent_dim: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Normally distributed numbers from which an image is made."""
    width: Annotated[int, Field(ge=1, le=1024)] = 32
    """Channels at the finest resolution inside both networks; each halving of the image doubles them."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 64
    """Real images of one update; those that do not fill one are left out of the epoch."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate of both networks."""

    def check(self, shape: Shape) -> None:
        """Raise ShapeError when there is no GAN for images of `shape` (channels, height, width)."""
        if min(shape[1:]) < MIN_SIDE:
            raise ShapeError(f"expected images of at least {MIN_SIDE} × {MIN_SIDE} pixels, got {shape[1]} × {shape[2]}")


def check_gan(transforms: Sequence[Transform], num_train: int) -> None:
    """Raise spec_error, with a pointer into the list, for a second GAN or one whose epochs would be empty."""
    places = [index for index, transform in enumerate(transforms) if isinstance(transform, GAN)]
    if len(places) > 1:
        raise spec_error("augmentation_mismatch", f"/augmentation/{places[1]}", "gan: there may be one, got another")
    for index in places:
        gan = transforms[index]
        assert isinstance(gan, GAN)
        if gan.batch_size > num_train:
            raise spec_error(
                "batch_too_large",
                f"/augmentation/{index}/batch_size",
                f"gan: one update needs {gan.batch_size} images, but the training split has {num_train}",
                got=gan.batch_size,
                fix=[{"op": "add", "path": f"/augmentation/{index}/batch_size", "value": num_train}]
                if num_train > 1
                else [],
            )
