from __future__ import annotations

import pytest
import torch
from torch import nn

from cnn.dropout import DropBlock, Dropout, SpatialDropout, StochasticDepth

ONES = torch.ones(200, 500)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(spec: Dropout, seed: int = 0) -> torch.Tensor:
    module = spec.build((500,))
    module.generator = generator(seed)
    return module.train()(ONES)


@pytest.mark.parametrize(("scaling", "kept"), [("train", 1 / 0.8), ("test", 1.0)])
def test_training_keeps_the_stated_share_at_the_stated_scale(scaling: str, kept: float) -> None:
    outputs = trained(Dropout.model_validate({"keep_prob": 0.8, "scaling": scaling}))
    values = outputs.unique().tolist()
    assert values == pytest.approx([0, kept])
    share = (outputs > 0).double().mean().item()
    # 100,000 draws: the standard error is sqrt(0.8 · 0.2 / 100,000) = 0.0013
    assert share == pytest.approx(0.8, abs=5 * 0.0013)


def test_the_test_pass_of_inverted_dropout_changes_nothing() -> None:
    assert torch.equal(Dropout(keep_prob=0.8).build((500,)).eval()(ONES), ONES)


def test_the_lectures_form_scales_the_weights_that_leave_the_nodes_and_no_bias() -> None:
    """At test, dropout then a dense layer is that layer with keep_prob · W and its bias unchanged."""
    dense = nn.Linear(6, 3).double()
    dropout = Dropout(keep_prob=0.7, scaling="test").build((6,)).eval()
    inputs = torch.randn(5, 6, dtype=torch.float64, generator=generator())
    expected = inputs @ (0.7 * dense.weight).T + dense.bias
    torch.testing.assert_close(dense(dropout(inputs)), expected, rtol=1e-12, atol=1e-12)


def test_masks_follow_from_the_generator_and_the_gradient_sees_the_same_mask() -> None:
    assert torch.equal(trained(Dropout()), trained(Dropout()))
    assert not torch.equal(trained(Dropout()), trained(Dropout(), seed=1))
    inputs = ONES.clone().requires_grad_()
    module = Dropout(keep_prob=0.5, scaling="test").build((500,))
    module.generator = generator()
    outputs = module.train()(inputs)
    outputs.sum().backward()
    assert torch.equal(inputs.grad, (outputs > 0).float())


IMAGES = torch.randn(300, 40, 6, 7, generator=generator())


def test_spatial_dropout_drops_whole_channels() -> None:
    module = SpatialDropout(keep_prob=0.75).build((40, 6, 7))
    module.generator = generator()
    ratio = module.train()(torch.ones_like(IMAGES))
    assert torch.equal(ratio.amin(dim=(2, 3)), ratio.amax(dim=(2, 3)))
    assert ratio.unique().tolist() == pytest.approx([0, 4 / 3])
    # 12,000 draws: the standard error is 0.004
    assert (ratio[:, :, 0, 0] > 0).double().mean().item() == pytest.approx(0.75, abs=0.02)
    assert torch.equal(module.eval()(IMAGES), IMAGES)


def test_stochastic_depth_drops_whole_samples() -> None:
    module = StochasticDepth(keep_prob=0.5).build((1,))
    module.generator = generator()
    outputs = module.train()(torch.ones(4000, 3))
    assert torch.equal(outputs.amin(dim=1), outputs.amax(dim=1))
    assert set(outputs.unique().tolist()) == {0.0, 2.0}
    assert outputs.mean().item() == pytest.approx(1, abs=5 * 0.016)
    assert torch.equal(module.eval()(IMAGES), IMAGES)


def test_drop_block_drops_squares_and_keeps_the_mean_activation() -> None:
    images = torch.ones(200, 8, 12, 12)
    module = DropBlock(keep_prob=0.9, block_size=3).build((8, 12, 12))
    module.generator = generator()
    outputs = module.train()(images)
    dropped = outputs == 0
    # γ = 0.1 / 9 · 144 / 100 per centre; a pixel is kept when none of the centres that reach it was drawn.
    gamma = 0.1 / 9 * 144 / 100
    inner = dropped[:, :, 2:-2, 2:-2].double().mean().item()
    assert inner == pytest.approx(1 - (1 - gamma) ** 9, abs=0.01)
    corner = dropped[:, :, 0, 0].double().mean().item()
    assert corner == pytest.approx(gamma, abs=0.01)
    assert outputs.mean().item() == pytest.approx(1, abs=1e-5)
    # Every dropped pixel belongs to a 3 × 3 square of dropped pixels.
    squares = -torch.nn.functional.max_pool2d(-dropped.float(), 3, stride=1)
    covered = torch.nn.functional.max_pool2d(torch.nn.functional.pad(squares, (2, 2, 2, 2)), 3, stride=1)
    assert torch.equal(covered.bool(), dropped)
    assert torch.equal(module.eval()(images), images)


def test_drop_block_of_one_pixel_is_dropout() -> None:
    module = DropBlock(keep_prob=0.7, block_size=1).build((40, 6, 7))
    module.generator = generator()
    assert (module.train()(IMAGES) != 0).double().mean().item() == pytest.approx(0.7, abs=0.01)
