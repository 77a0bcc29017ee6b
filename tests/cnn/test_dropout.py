from __future__ import annotations

import pytest
import torch
from torch import nn

from cnn.dropout import Dropout

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
