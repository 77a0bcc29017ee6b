"""Dropout layers. To add one: write its class, then name it in `Layer` at the bottom of `layers.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn.base import Layer, LayerCost, Shape

if TYPE_CHECKING:
    from torch import nn


class Dropout(Layer):
    """Disconnects nodes at random while training (Srivastava et al., JMLR 15, 2014).

    Each minibatch keeps every node with probability `keep_prob`; the mask m is drawn anew for each sample and step.

    - `scaling: "train"` (inverted dropout): m ⊙ x / keep_prob while training, x at test.
    - `scaling: "test"` (the lecture's form): m ⊙ x while training; at test the weights that leave the nodes are
      multiplied by `keep_prob`, which is done on the nodes, keep_prob · x, so that no bias is touched.

    Both are the same predictor up to W' = keep_prob · W, but not the same trajectory: learning rate, L2 weight and
    max-norm radius act on differently scaled weights. The lecture says "all weights multiplied by p": it means those
    that leave dropped nodes, and no biases.
    """

    type: Literal["dropout"] = "dropout"
    keep_prob: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Probability that a node is kept: torch's `p` is the opposite, 1 - keep_prob."""
    scaling: Literal["train", "test"] = "train"
    """Where the expected activation is corrected for the dropped nodes."""

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(shape)

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.dropout import Dropout as Module

        return Module(self.keep_prob, self.scaling)
