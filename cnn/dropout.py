"""Dropout layers. To add one: write its class, then name it in `Layer` at the bottom of `layers.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn.base import FLOAT_BYTES, Layer, LayerCost, Shape, ShapeError

if TYPE_CHECKING:
    from torch import nn

KeepProbability = Annotated[float, Field(gt=0, le=1)]


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
    keep_prob: KeepProbability = 0.5
    """Probability that a node is kept: torch's `p` is the opposite, 1 - keep_prob."""
    scaling: Literal["train", "test"] = "train"
    """Where the expected activation is corrected for the dropped nodes."""

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(shape, kept_bytes=FLOAT_BYTES * math.prod(shape))

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.dropout import Dropout as Module

        return Module(self.keep_prob, self.scaling)


class SpatialDropout(Layer):
    """Drops whole channels of an image, since neighbouring pixels carry the same news (Tompson et al., CVPR 2015).

    y = m_c x / keep_prob for the channel c of a sample, m_c = 1 with probability `keep_prob`, else 0; x at test.
    """

    type: Literal["spatial_dropout"] = "spatial_dropout"
    keep_prob: KeepProbability = 0.8
    """Probability that a channel is kept."""

    def cost(self, shape: Shape) -> LayerCost:
        channels = self.require_image(shape)[0]
        return LayerCost(shape, kept_bytes=FLOAT_BYTES * channels)

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.dropout import MaskedDropout

        return MaskedDropout(self.keep_prob, mask_dimensions=2)


class StochasticDepth(Layer):
    """Drops a whole sample; at the end of a residual branch, the branch (Huang et al., ECCV 2016).

    y = m x / keep_prob with m = 1 with probability `keep_prob`, else 0, drawn for each sample; x at test. The paper
    scales by keep_prob at test instead, which is the same predictor.
    """

    type: Literal["stochastic_depth"] = "stochastic_depth"
    keep_prob: KeepProbability = 0.8
    """Probability that a sample is kept."""

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(shape, kept_bytes=FLOAT_BYTES)

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.dropout import MaskedDropout

        return MaskedDropout(self.keep_prob, mask_dimensions=1)


class DropBlock(Layer):
    """Drops squares of `block_size` pixels in each channel (Ghiasi, Lin & Le, NeurIPS 2018).

    Centres are drawn where a whole block fits, each with probability
    γ = (1 - keep_prob) / b² · h w / ((h - b + 1)(w - b + 1)); what is kept is scaled by its share, count / count kept.
    At test, x.
    """

    type: Literal["drop_block"] = "drop_block"
    keep_prob: KeepProbability = 0.9
    """Share of the pixels that is kept, up to the overlap of blocks."""
    block_size: Annotated[int, Field(ge=1, le=255)] = 5
    """Side b of a block, in pixels."""

    def cost(self, shape: Shape) -> LayerCost:
        _, height, width = self.require_image(shape)
        if self.block_size > min(height, width):
            raise ShapeError(f"block_size may be at most the side of the image, got {self.block_size} for {shape}")
        return LayerCost(shape, kept_bytes=FLOAT_BYTES * math.prod(shape))

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.dropout import DropBlock as Module

        return Module(self.keep_prob, self.block_size)
