"""Lower precisions on the CPU, which computes them as a GPU does, but slowly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cnn import base
from cnn.base import Shape
from cnn.checkpoints import load, save
from cnn.data import Data
from cnn.determinism import numerics
from cnn.learner import Learner
from cnn.precision import FORMATS, GROWTH_STEPS, LARGEST_SCALE, LossScale, lowered
from cnn.randomness import attach_generator
from cnn.run import Run
from cnn.spec import TrainingSpec
from tests.cnn.plain import BATCH, small_spec
from tests.cnn.test_layers import MEMBERS, VARIANTS, example
from tests.cnn.test_onnx_export import IMAGE, shape_for
from tests.cnn.test_training import EVERYTHING, digest, run, stop_after

CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor]
LOWER = ["bfloat16", "float16"]


def spec_in(precision: str, **parts: Any) -> TrainingSpec:
    training = {"batch_size": BATCH, "precision": precision, **parts.pop("training", {})}
    return small_spec(training=training, **parts)


def learner_in(precision: str, digits: Data, **parts: Any) -> Learner:
    return Learner(spec_in(precision, **parts), digits.train_images, digits.train_labels, CPU)


def state_of(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.tensors().items() if "total" not in name}


@pytest.mark.parametrize(("precision", "kind"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_layers_compute_in_it_and_all_that_stays_is_float32(
    precision: str, kind: torch.dtype, digits: Data, batches: list[Batch]
) -> None:
    learner = learner_in(precision, digits, optimizer={"type": "adam"}, training={"ema": {"decay": 0.9}})
    seen = {}
    for name, layer in learner.network.named_children():
        layer.register_forward_hook(lambda *arguments, name=name: seen.update({name: arguments[2].dtype}))
    learner.update(1, 1, *batches[0], lr=0.01)
    assert {name: found for name, found in seen.items() if name != "normalization"} == dict.fromkeys(
        [name for name in seen if name != "normalization"], kind
    )
    assert seen["normalization"] == torch.float32
    floats = [tensor.dtype for tensor in learner.tensors().values() if tensor.is_floating_point()]
    assert set(floats) <= {torch.float32, torch.float64}
    assert all(parameter.grad.dtype == torch.float32 for parameter in learner.network.parameters())


@pytest.mark.parametrize("precision", LOWER)
def test_an_update_is_that_of_float32_up_to_rounding(precision: str, digits: Data, batches: list[Batch]) -> None:
    lowered, full = (learner_in(name, digits) for name in (precision, "float32"))
    before = {name: weight.clone() for name, weight in full.weights().items()}
    for learner in (lowered, full):
        learner.update(1, 1, *batches[0], lr=0.1)
    for name, parameter in full.network.named_parameters():
        moved = parameter - before[name]
        error = lowered.network.get_parameter(name) - parameter
        assert 0 < error.norm() < 0.05 * moved.norm()


def test_the_scale_saves_gradients_that_float16_cannot_hold(digits: Data, batches: list[Batch]) -> None:
    """The smallest float16 is 6e-8; the gradient of a logit of one of 4,096 images is some 1e-5, in the sums less."""
    weights = {"class_weights": [1e-5] * 10}
    loss = {"type": "cross_entropy", **weights}
    scaled, full, plain = (learner_in(name, digits, loss=loss) for name in ("float16", "float32", "float16"))
    plain._scale.value = 1.0
    before = {name: weight.clone() for name, weight in full.weights().items()}
    for learner in (scaled, full, plain):
        learner.update(1, 1, *batches[0], lr=1e4)
    name = "conv1.weight"
    moved = full.network.get_parameter(name) - before[name]
    errors = [
        (learner.network.get_parameter(name) - full.network.get_parameter(name)).norm() for learner in (scaled, plain)
    ]
    assert errors[0] < 0.02 * moved.norm()
    assert errors[1] > 0.2 * moved.norm()


def test_a_step_that_overflows_leaves_everything_but_the_scale(digits: Data, batches: list[Batch]) -> None:
    learner = learner_in(
        "float16",
        digits,
        optimizer={"type": "adam"},
        regularizers=[{"type": "l2", "weight": 1e-3}],
        training={"max_grad_norm": 1.0},
    )
    learner.update(1, 1, *batches[0], lr=0.01)
    learner._scale.value = 2.0**24
    before, halvings = state_of(learner), 0
    for step in range(2, 30):
        learner.update(1, step, *batches[step], lr=0.01)
        assert learner.diverged() is None
        after = state_of(learner)
        if after["loss_scale.value"] == before["loss_scale.value"]:
            break
        halvings += 1
        assert after["loss_scale.value"] == before["loss_scale.value"] / 2
        assert all(torch.equal(before[name], after[name]) for name in before if "scale" not in name)
        before = after
    assert halvings > 2
    assert not torch.equal(before["network.conv1.weight"], after["network.conv1.weight"])
    assert 0 < learner.totals.means()["grad_norm"] < 100
    assert learner.totals.steps == 2


@pytest.mark.parametrize("precision", LOWER)
def test_divergence_is_found_and_named(precision: str, digits: Data, batches: list[Batch]) -> None:
    learner = learner_in(precision, digits)
    with torch.no_grad():
        learner.network.get_parameter("conv1.weight").fill_(3e38)
    learner.update(1, 1, *batches[0], lr=0.1)
    step, bad = learner.diverged() or (0, [])
    assert step == 1
    assert learner.first_bad_layer(1, 1, *batches[0], bad) == "conv1"


def test_the_scale_follows_the_gradients() -> None:
    scale, finite, infinite = LossScale(), torch.tensor(1.0), torch.tensor(torch.inf)
    assert scale.overflowed(finite, infinite)
    assert scale.value == 2.0**15
    assert not any(scale.overflowed(finite, finite) for _ in range(GROWTH_STEPS - 1))
    assert scale.value == 2.0**15
    assert scale.overflowed(finite, infinite)
    assert scale.value == 2.0**14
    assert not any(scale.overflowed(finite, finite) for _ in range(GROWTH_STEPS))
    assert scale.value == 2.0**15
    for _ in range(20 * GROWTH_STEPS):
        scale.overflowed(finite, finite)
    assert scale.value == LARGEST_SCALE


def test_no_scale_mends_a_loss_or_a_scale_of_1() -> None:
    scale, finite, infinite = LossScale(), torch.tensor(1.0), torch.tensor(torch.inf)
    assert not scale.overflowed(infinite, infinite)
    assert scale.value == 2.0**16
    scale.value = 1.0
    assert not scale.overflowed(finite, infinite)
    assert scale.value == 1


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [(layer, shape_for(layer)) for layer in map(example, MEMBERS)]
    + [(layer, IMAGE if len(shape) == 3 else shape) for layer, shape in VARIANTS],
    ids=lambda value: value.type if isinstance(value, base.Layer) else str(len(value)),
)
def test_every_layer_computes_in_it(layer: base.Layer, shape: Shape, precision: str) -> None:
    torch.manual_seed(1)
    built = layer.build(shape)
    outputs, gradients = [], []
    for name in (precision, "float32"):
        attach_generator(built, torch.Generator().manual_seed(2))
        noise = torch.Generator().manual_seed(3)
        inputs = torch.randn(8, *shape, generator=noise).to(FORMATS[precision]).to(FORMATS.get(name, torch.float32))
        inputs.requires_grad_()
        with lowered(name, CPU):
            output = built(inputs)
        (output.float() * torch.randn(output.shape, generator=noise)).sum().backward()
        outputs.append(output.detach().float())
        gradients.append(inputs.grad.float())
    torch.testing.assert_close(*outputs, rtol=0.05, atol=0.05)
    assert (gradients[0] - gradients[1]).norm() <= 0.05 * gradients[1].norm()


@pytest.mark.parametrize("precision", LOWER)
def test_a_run_learns_and_is_exact_through_a_stop(precision: str, digits: Data, tmp_path: Path) -> None:
    spec = spec_in(
        precision,
        model={"type": "layers", "layers": EVERYTHING["model"]["layers"]},
        optimizer={"type": "adam", "lr": 0.01},
        augmentation=[{"type": "translate", "max_shift": 0.1}],
        training={"epochs": 5},
    )
    whole = run(spec, digits, tmp_path / "whole")
    stopped = run(spec, digits, tmp_path / "stopped", stop=stop_after(60))
    resumed = run(spec, digits, tmp_path / "resumed", resume_from=stopped[-2].path)
    assert whole[-1].test_accuracy > 0.8
    files = [tmp_path / name / "artifacts" / "model.safetensors" for name in ("whole", "resumed")]
    assert digest(files[0]) == digest(files[1])
    assert whole[-1] == resumed[-1]


def test_the_metrics_of_float16_tell_its_scale(digits: Data) -> None:
    running = Run(spec_in("float16"), digits, CPU, None)
    running.advance()
    while not running.at_epoch_end:
        running.advance()
    assert running.end_epoch().values["loss_scale"] == 2.0**16


def test_features_that_are_augmented_are_float32(digits: Data, batches: list[Batch]) -> None:
    feature_space = {"type": "feature_space", "mode": "interpolate", "layer": "fc0"}
    layers = [
        {"type": "flatten"},
        {"type": "linear", "name": "fc0", "out_features": 8},
        {"type": "linear", "out_features": 10},
    ]
    learner = learner_in("bfloat16", digits, augmentation=[feature_space], model={"type": "layers", "layers": layers})
    learner.update(1, 1, *batches[0], lr=0.1)
    assert learner.diverged() is None


def test_a_checkpoint_from_before_a_field_was_added_is_one_of_the_same_run(digits: Data, tmp_path: Path) -> None:
    spec = small_spec()
    expected = run(spec, digits, tmp_path / "whole")
    saved = run(spec, digits, tmp_path / "stopped", stop=stop_after(10))[-2].path
    tensors, state = load(saved, CPU)
    del state["identity"]["spec"]["training"]["precision"], state["identity"]["spec"]["training"]["deterministic"]
    older = save(tmp_path / "older", 10, tensors, state)
    assert run(spec, digits, tmp_path / "resumed", resume_from=older)[-1] == expected[-1]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(("precision", "multiplied"), [("float32", "ieee"), ("tensorfloat32", "tf32")])
def test_a_gpu_computes_as_the_spec_says(precision: str, multiplied: str, deterministic: bool) -> None:
    def settings() -> list[object]:
        backends = torch.backends
        return [
            torch.are_deterministic_algorithms_enabled(),
            backends.cudnn.benchmark,
            backends.cudnn.conv.fp32_precision,
            backends.cuda.matmul.fp32_precision,
        ]

    before = settings()
    with numerics(torch.device("cuda"), precision, deterministic=deterministic):
        assert settings() == [deterministic, not deterministic, multiplied, multiplied]
    assert settings() == before
