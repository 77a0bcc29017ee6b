"""A generator and a discriminator that learn from each other, and the images that come of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from cnn.gan.networks import Discriminator, Generator
from cnn.optim.adam import Adam

BETAS = (0.5, 0.999)
"""Of both Adams, as in DCGAN (Radford et al., ICLR 2016)."""
MAX_BATCH = 500


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """mean log(1 + exp(-D(x))) + mean log(1 + exp(D(G(z)))), of scores D (Goodfellow et al., NIPS 2014)."""
    return softplus(-real).mean() + softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """mean log(1 + exp(-D(G(z)))): the one that does not saturate."""
    return softplus(-fake).mean()


class Adversaries:
    """Both networks with their optimizers, and the sums of their losses since `reset_losses`.

    Args:
        latent_dim, width: see `Generator`.
        num_classes, shape: of the images, (C, H, W).
        lr: of both networks.
        seed: from which the initial weights follow.
        device: where everything lies.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        width: int,
        num_classes: int,
        shape: tuple[int, int, int],
        lr: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.latent_dim = latent_dim
        self.device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Generator(latent_dim, width, num_classes, shape).to(device)
            self._discriminator = Discriminator(width, num_classes, shape).to(device)
        self._optimizers = {
            "generator": Adam(self.generator.parameters(), lr, BETAS),
            "discriminator": Adam(self._discriminator.parameters(), lr, BETAS),
        }
        self._networks: dict[str, nn.Module] = {"generator": self.generator, "discriminator": self._discriminator}
        self._losses = torch.zeros(2, dtype=torch.float64, device=device)
        self._updates = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, images: Tensor, labels: Tensor, randomness: torch.Generator) -> None:
        """One update of the discriminator, then one of the generator, on real uint8 images with their labels.

        The generator makes as many images of the same labels, which serve for both updates. To both losses the cross
        entropy of the auxiliary classifier is added: on the real images for the discriminator, on its own for the
        generator.
        """
        fake = self.generator(self._latent(len(labels), randomness), labels)
        scores, logits = self._discriminator(images.float() / 127.5 - 1)
        against = discriminator_loss(scores, self._discriminator(fake.detach())[0]) + cross_entropy(logits, labels)
        self._step("discriminator", against)
        self._discriminator.requires_grad_(False)
        scores, logits = self._discriminator(fake)
        pro = generator_loss(scores) + cross_entropy(logits, labels)
        self._step("generator", pro)
        self._discriminator.requires_grad_(True)
        self._losses += torch.stack([pro.detach(), against.detach()])
        self._updates += 1

    def _step(self, name: str, loss: Tensor) -> None:
        self._optimizers[name].zero_grad()
        torch.autograd.backward(loss)
        self._optimizers[name].step()

    def _latent(self, num_images: int, randomness: torch.Generator) -> Tensor:
        return torch.randn(num_images, self.latent_dim, generator=randomness, device=self.device)

    @torch.no_grad()
    def images(self, labels: Tensor, randomness: torch.Generator) -> Tensor:
        """Generated uint8 images of one or more `labels` (N,); each follows from its latent vector and label alone."""
        latent = self._latent(len(labels), randomness)
        self.generator.eval()
        parts = zip(torch.split(latent, MAX_BATCH), torch.split(labels, MAX_BATCH), strict=True)
        images = torch.cat([self.generator(*part) for part in parts])
        self.generator.train()
        return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def mean_losses(self) -> tuple[float, float]:
        """Of the generator and of the discriminator, since the last reset. Waits for the device."""
        generator, discriminator = (self._losses / self._updates).tolist()
        return generator, discriminator

    def is_finite(self) -> bool:
        """Whether all losses since the last reset were. Waits for the device."""
        return bool(self._losses.isfinite().all())

    def reset_losses(self) -> None:
        self._losses.zero_()
        self._updates.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """The complete state between two updates: not copies."""
        tensors = {"losses": self._losses, "updates": self._updates}
        for role, network in self._networks.items():
            tensors |= {f"{role}.{key}": tensor for key, tensor in network.state_dict().items()}
            for name, parameter in network.named_parameters():
                for key, tensor in self._optimizers[role].state[parameter].items():
                    tensors[f"{role}_optimizer.{name}.{key}"] = tensor
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave. Raises KeyError when a tensor is missing."""
        self._losses.copy_(tensors["losses"])
        self._updates.copy_(tensors["updates"])
        for role, network in self._networks.items():
            network.load_state_dict({key: tensors[f"{role}.{key}"] for key in network.state_dict()})
            for name, parameter in network.named_parameters():
                prefix = f"{role}_optimizer.{name}."
                self._optimizers[role].state[parameter].update(
                    {
                        key.removeprefix(prefix): tensor.clone()
                        for key, tensor in tensors.items()
                        if key.startswith(prefix)
                    }
                )

    def restore_generator(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the generator alone, to make images. Raises KeyError when a tensor is missing."""
        self.generator.load_state_dict({key: tensors[f"generator.{key}"] for key in self.generator.state_dict()})
