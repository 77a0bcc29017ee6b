from __future__ import annotations

import torch
from torch import nn

from cnn.nn.dropout import Dropout
from cnn.randomness import StepGenerator, attach_generator, derived_generator

CPU = torch.device("cpu")


def test_numbers_follow_from_the_place_alone() -> None:
    first = torch.rand(4, generator=derived_generator(CPU, 0, "order", 1))
    torch.rand(9)
    assert torch.equal(first, torch.rand(4, generator=derived_generator(CPU, 0, "order", 1)))
    assert not torch.equal(first, torch.rand(4, generator=derived_generator(CPU, 0, "order", 2)))


def test_a_step_generator_goes_to_any_step() -> None:
    steps = StepGenerator(CPU, 0, "layers")
    drawn = {}
    for step in (1, 2):
        steps.seek(1, step)
        drawn[step] = torch.rand(3, generator=steps.generator)
    steps.seek(1, 1)
    assert torch.equal(torch.rand(3, generator=steps.generator), drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_layers_deep_inside_draw_from_the_attached_generator() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Dropout(0.5, "train")))
    generator = torch.Generator()
    attach_generator(network, generator)
    outputs = []
    for _ in range(2):
        generator.manual_seed(3)
        outputs.append(network[1](torch.ones(64)))
    assert torch.equal(outputs[0], outputs[1])
