"""What is summed up over an epoch of training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnn.distributed import Team
from cnn.evaluation import TOP

PENDING_VALUES = 2**16
"""Logits that may wait to be judged together: one by one, small minibatches are all overhead."""


class Totals:
    """Sums over the samples and steps of an epoch, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.in_top5 = torch.zeros((), dtype=torch.int64, device=device)
        self.seen = torch.zeros((), dtype=torch.int64, device=device)
        self.grad_norm = torch.zeros((), dtype=torch.float64, device=device)
        self.steps = torch.zeros((), dtype=torch.int64, device=device)
        self._has_top5 = False
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._num_pending = 0

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Of a minibatch; of targets that are probabilities, the label with the largest counts."""
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        self.loss += loss
        self._pending.append((logits, labels))
        self._num_pending += logits.numel()
        if self._num_pending > PENDING_VALUES:
            self._judge_pending()

    def _judge_pending(self) -> None:
        if not self._pending:
            return
        logits, labels = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
        self._pending, self._num_pending = [], 0
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.seen += len(labels)
        self._has_top5 = logits.shape[1] > TOP
        if self._has_top5:
            self.in_top5 += (logits.topk(TOP, dim=1).indices == labels[:, None]).sum()

    def add_step(self, grad_norm: Tensor) -> None:
        self.grad_norm += grad_norm
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Mean loss, accuracies and the mean norm of the whole gradient; waits for the device."""
        self._judge_pending()
        seen = int(self.seen.item())
        values = {"train_loss": self.loss.item() / seen, "train_accuracy": int(self.correct.item()) / seen}
        if self._has_top5:
            values["train_top5_accuracy"] = int(self.in_top5.item()) / seen
        steps = int(self.steps.item())  # 0 where all of them overflowed
        return values | {"grad_norm": self.grad_norm.item() / steps if steps else math.inf}

    def tensors(self) -> dict[str, Tensor]:
        """All sums: not copies."""
        self._judge_pending()
        return {
            "loss": self.loss,
            "correct": self.correct,
            "in_top5": self.in_top5,
            "seen": self.seen,
            "grad_norm": self.grad_norm,
            "steps": self.steps,
        }

    def gather(self, team: Team) -> None:
        """Add up the counts of the ranks at rank 0; the others begin anew. The rest is the same on all of them."""
        self._judge_pending()
        team.add_up(self._counts())
        if team.rank:
            self.forget_counts()

    def forget_counts(self) -> None:
        """Leave to another rank what was counted until now."""
        for count in self._counts():
            count.zero_()

    def _counts(self) -> list[Tensor]:
        return [self.correct, self.in_top5, self.seen]

    def reset(self) -> None:
        for total in self.tensors().values():
            total.zero_()
