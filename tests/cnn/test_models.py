from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file

from cnn.architectures import Architecture
from cnn.data import Data
from cnn.datasets import Digits, FashionMNIST
from cnn.events import Artifact, Checkpoint, Metrics, Result, Stopped
from cnn.models import MAX_FIT_IMAGES, Model, build_network, fit_statistics
from cnn.nn.dropout import Dropout, MaskedDropout
from cnn.spec import TrainingSpec
from cnn.splits import stratified_split
from cnn.torchvision_models import TorchvisionClassifier
from cnn.training import train
from cnn.whitening import WhiteningConv2d
from tests.cnn.test_spec import DESIGN

MEMBERS: tuple[type[Architecture], ...] = get_args(get_args(Model.__value__)[0])
LAYERS = [
    {"type": "whitening_conv2d", "kernel_size": 2},
    {"type": "relu"},
    {"type": "residual", "layers": [{"type": "conv2d", "out_channels": 8, "kernel_size": 3, "padding": 1}]},
    {"type": "dropout"},
    {"type": "adaptive_avg_pool2d", "output_size": 2},
    {"type": "flatten"},
    {"type": "weight_norm", "name": "fc", "layer": {"type": "linear", "out_features": 10}},
]
FIELDS: dict[str, list[dict[str, Any]]] = {
    "layers": [{"layers": LAYERS}],
    "mobilenet_v3": [{"size": "small"}, {"size": "large"}],
}


def type_of(member: type[Architecture]) -> str:
    return str(member.model_fields["type"].default)


EXAMPLES = [
    member.model_validate_json(json.dumps({"type": type_of(member), **fields}))
    for member in MEMBERS
    for fields in FIELDS.get(type_of(member), [{}])
]


def model_id(model: Architecture) -> str:
    return model.torchvision_name if isinstance(model, TorchvisionClassifier) else model.type


def spec_with(model: dict[str, Any], dataset: str = "fashion_mnist") -> TrainingSpec:
    return TrainingSpec.model_validate(
        {
            "dataset": {"type": dataset},
            "model": model,
            "optimizer": {"type": "sgd"},
            "normalization": {"type": "min_max"},
        }
    )


def test_the_network_has_a_child_for_each_layer_under_its_name() -> None:
    network = build_network(TrainingSpec.model_validate(DESIGN))
    keys = set(network.state_dict())
    assert {"normalization.mean", "normalization.std", "conv1.weight", "conv1.bias", "batch_norm1.running_mean"} < keys
    assert [name for name, _ in network.named_children()][:3] == ["normalization", "conv1", "batch_norm1"]


def test_a_network_without_normalization_sees_the_bytes_as_they_are() -> None:
    spec = TrainingSpec.model_validate({**DESIGN, "normalization": None})
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(build_network(spec)[0](images), images.float())


def spec_of(model: Architecture) -> TrainingSpec:
    """On images that the model takes."""
    small = model.type in ("layers", "fast_net", "vgg_small", "resnet")
    dataset = "cifar10" if isinstance(model, TorchvisionClassifier) else "digits" if small else "fashion_mnist"
    return TrainingSpec.model_validate_json(
        json.dumps(
            {
                "dataset": {"type": dataset},
                "model": model.model_dump(),
                "optimizer": {"type": "momentum", "lr": 0.01},
                "training": {"epochs": 2, "batch_size": 16},
            }
        )
    )


def pictures(spec: TrainingSpec, num_train: int = 80) -> Data:
    """Noise in the shape of the dataset's images, brighter from class to class."""
    random = np.random.default_rng(0)
    labels = np.arange(num_train + 20) % 10
    noise = random.integers(0, 100, (len(labels), *spec.dataset.info.shape))
    images = (noise + 15 * labels[:, None, None, None]).astype(np.uint8)
    return Data(images[:num_train], labels[:num_train], images[num_train:], labels[num_train:], digest="sha256:0")


@pytest.mark.parametrize("model", EXAMPLES, ids=model_id)
def test_every_model_round_trips_and_documents_its_fields(model: Architecture) -> None:
    assert TypeAdapter(Model).validate_json(model.model_dump_json()) == model
    assert type(model).__doc__
    assert all(field.description for name, field in type(model).model_fields.items() if name != "type")


@pytest.mark.parametrize("model", EXAMPLES, ids=model_id)
def test_every_model_trains_two_epochs(model: Architecture) -> None:
    spec = spec_of(model)
    events = list(train(spec, pictures(spec)))
    losses = [event.values["train_loss"] for event in events if isinstance(event, Metrics)]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    assert isinstance(events[-1], Result)


RESUMED = [model for model in EXAMPLES if model_id(model) in ("layers", "fast_net", "mobilenet_v3_small")]


@pytest.mark.parametrize("model", RESUMED, ids=model_id)
def test_a_resumed_run_ends_with_the_same_bytes(model: Architecture, tmp_path: Path) -> None:
    spec = spec_of(model)
    data = pictures(spec)
    whole = list(train(spec, data, artifacts=tmp_path / "whole"))
    questions: Iterator[bool] = iter([False] * 6)  # in the second epoch
    stopped = list(train(spec, data, checkpoints=tmp_path / "saved", stop=lambda: next(questions, True)))
    assert isinstance(stopped[-1], Stopped)
    (*_, last) = (event.path for event in stopped if isinstance(event, Checkpoint))
    resumed = list(train(spec, data, artifacts=tmp_path / "resumed", resume_from=last))
    assert resumed[-1] == whole[-1]
    weights = [hashlib.sha256((tmp_path / run / "model.safetensors").read_bytes()) for run in ("whole", "resumed")]
    assert weights[0].digest() == weights[1].digest()


def test_a_torchvision_model_keeps_the_names_of_its_tensors() -> None:
    from torchvision.models import efficientnet_b0, resnet18  # noqa: PLC0415  importing it costs seconds

    for name, published in {"resnet18": resnet18, "efficientnet_b0": efficientnet_b0}.items():
        network = build_network(spec_with({"type": name}))
        keys = set(network.state_dict()) - {"normalization.minimum", "normalization.range"}
        assert keys == set(published(num_classes=10).state_dict())


def test_a_torchvision_model_computes_what_torchvision_computes() -> None:
    from torchvision.models import get_model  # noqa: PLC0415

    images = torch.randint(0, 256, (2, 1, 40, 33), dtype=torch.uint8)
    for model in EXAMPLES:
        if isinstance(model, TorchvisionClassifier) and model_id(model) != "resnet50":
            network = model.build(FashionMNIST.info).eval()
            published = get_model(model.torchvision_name, weights=None, num_classes=10).eval()
            published.load_state_dict(network.state_dict())
            rgb = images.float().expand(-1, 3, -1, -1)
            with torch.no_grad():
                torch.testing.assert_close(network(images.float()), published(rgb))


def test_the_random_numbers_of_torchvision_models_come_from_our_generators() -> None:
    network = build_network(spec_with({"type": "efficientnet_b0"}))
    kinds = {type(module) for module in network.modules() if "rop" in type(module).__name__}
    kinds |= {type(module) for module in network.modules() if "Stochastic" in type(module).__name__}
    assert kinds == {Dropout, MaskedDropout}
    (dropout,) = [module for module in network.modules() if isinstance(module, Dropout)]
    assert dropout.keep_prob == 0.8  # Tan & Le: dropout rate 0.2


def test_penalties_reach_layers_of_torchvision_models_by_their_paths() -> None:
    spec = spec_with({"type": "resnet18"}).model_dump()
    spec["regularizers"] = [{"type": "l2", "layers": ["layer4.*", "fc"]}]
    checked = TrainingSpec.model_validate_json(json.dumps(spec))
    names = checked.regularizers[0].select(["layer4.*", "fc"], checked.plan().weight_layers)
    assert names[0] == "layer4.0.conv1"
    assert names[-1] == "fc"
    assert len(names) == 6  # four convolutions, one in the shortcut, one head
    spec["regularizers"] = [{"type": "l2", "layers": ["layer5*"]}]
    with pytest.raises(ValueError, match="no layer with a weight is called 'layer5"):
        TrainingSpec.model_validate_json(json.dumps(spec))


def test_a_penalty_without_a_weight_to_act_on_is_refused() -> None:
    spec = spec_with({"type": "layers", "layers": LAYERS}, dataset="digits").model_dump()
    spec["model"]["layers"] = [{"type": "flatten"}, LAYERS[-1]]
    spec["regularizers"] = [{"type": "max_norm"}]
    with pytest.raises(ValueError, match="max_norm: no layer has a weight to act on"):
        TrainingSpec.model_validate_json(json.dumps(spec))


@pytest.mark.parametrize(
    ("init", "variance"),
    # n_in = 32 · 9 and n_out = 32 · 9 for the second convolution, of 32 filters on 32 channels.
    [
        ("default", 1 / (3 * 288)),
        ("kaiming_normal", 2 / 288),
        ("kaiming_uniform", 2 / 288),
        ("xavier_normal", 2 / (288 + 288)),
        ("xavier_uniform", 2 / (288 + 288)),
        ("orthogonal", 1 / 288),
    ],
)
def test_weights_begin_with_the_variance_of_their_paper(init: str, variance: float) -> None:
    spec = spec_with({"type": "vgg_small"}).model_dump()
    torch.manual_seed(0)
    network = build_network(TrainingSpec.model_validate_json(json.dumps({**spec, "training": {"init": init}})))
    weight = network.get_parameter("conv2d2.weight").detach().flatten(1).double()
    assert weight.var().item() == pytest.approx(variance, rel=0.06)  # of 9,216 numbers: 4 standard errors
    if init == "orthogonal":
        torch.testing.assert_close(weight @ weight.T, torch.eye(32).double(), atol=1e-5, rtol=0)
    assert bool((network.get_parameter("fc.bias") == 0).all()) == (init != "default")


@pytest.mark.parametrize(
    ("training", "refused"),
    [
        ({"batch_size": 1}, True),
        ({"batch_size": 2, "drop_last": False}, False),
        ({"batch_size": 3, "drop_last": False}, True),
        ({"batch_size": 3}, False),
    ],
)
def test_batch_norm_of_a_single_value_is_refused(training: dict[str, Any], refused: bool) -> None:
    # At 28 x 28, the last stage of resnet18 has one position; 54,001 in threes leaves 1.
    spec = spec_with({"type": "resnet18"}).model_dump()
    spec = {**spec, "training": training, "split": {"val_fraction": 0.0, "num_train": 54_001 if refused else 54_000}}
    if refused:
        with pytest.raises(ValidationError, match="needs more than one value per channel") as caught:
            TrainingSpec.model_validate_json(json.dumps(spec))
        assert caught.value.errors()[0]["ctx"]["pointer"] == "/training/batch_size"
    else:
        TrainingSpec.model_validate_json(json.dumps(spec))


def test_images_too_small_for_a_torchvision_model_are_refused_with_its_place() -> None:
    with pytest.raises(ValidationError, match="convnext_tiny takes images of at least 32 × 32") as caught:
        spec_with({"type": "convnext_tiny"})
    assert caught.value.errors()[0]["ctx"]["pointer"] == "/model"


def test_lenet_is_as_large_as_its_paper_says() -> None:
    # With 28 x 28 padded to 32 x 32; C1 156, C3 with full connections 2,416, C5 48,120, F6 10,164, output 850.
    assert spec_with({"type": "lenet"}).plan().num_parameters == 156 + 2416 + 48120 + 10164 + 850


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_resnet_is_as_large_as_its_paper_says(depth: int, millions: float) -> None:
    spec = spec_with({"type": "resnet", "depth": depth})
    # The paper's table is for 3 channels and shortcuts without weights; ours have 2 * 1,536 + batch norm more.
    extra = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64) - 2 * 9 * 16
    assert (spec.plan().num_parameters - extra) / 1e6 == pytest.approx(millions, abs=0.006)
    assert len([name for name in spec.plan().weight_layers if "shortcut" not in name]) == depth


def test_whitening_decorrelates_the_patches_of_the_training_images(tmp_path: Path) -> None:
    images = torch.tensor(Digits().load(tmp_path).train_images[:500]) / 255
    layer = WhiteningConv2d(kernel_size=3, eps=1e-9)
    module = layer.build((1, 8, 8))
    module.load_state_dict(layer.fit(images))
    inner = module(images)[:, :9, 1:-1, 1:-1].double()  # without the padded border
    covariance = torch.cov(inner.transpose(0, 1).flatten(1), correction=0)
    torch.testing.assert_close(covariance, torch.eye(9, dtype=torch.float64), atol=1e-3, rtol=0)
    assert torch.equal(module.weight[9:], -module.weight[:9])


def test_the_whitening_of_a_run_comes_from_its_normalized_training_split(tmp_path: Path) -> None:
    spec = TrainingSpec.model_validate_json(
        json.dumps(
            {
                "dataset": {"type": "digits"},
                "model": {"type": "fast_net", "width": 16},
                "optimizer": {"type": "nesterov", "lr": 0.05},
                "training": {"epochs": 3, "batch_size": 64},
            }
        )
    )
    data = spec.dataset.load(tmp_path)
    events = list(train(spec, data, artifacts=tmp_path))
    (weights,) = [event.path for event in events if isinstance(event, Artifact) and event.name == "model.safetensors"]
    tensors = load_file(weights)
    kept, _ = stratified_split(data.train_labels, spec.split.val_fraction, spec.split.seed)
    images = torch.from_numpy(data.train_images[kept]).double()
    patches = ((images - images.mean()) / images.std(correction=0)).unfold(2, 3, 1).unfold(3, 3, 1).reshape(-1, 9)
    covariance = torch.cov(patches.T, correction=0)
    filters = tensors["whitening.weight"][:9].reshape(9, 9).double()
    # Each filter is an eigenvector over √(λ + eps): its response has the variance λ / (λ + eps).
    eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)
    expected = torch.diag(eigenvalues / (eigenvalues + 1e-2))
    torch.testing.assert_close(filters @ covariance @ filters.T, expected, atol=1e-4, rtol=0)
    assert isinstance(events[-1], Result)
    assert events[-1].test_accuracy > 0.8


def test_whitening_of_a_large_split_takes_a_sample_of_fixed_size() -> None:
    spec = spec_with({"type": "fast_net"}, dataset="digits")
    images = np.random.default_rng(0).integers(0, 256, (2 * MAX_FIT_IMAGES + 1, 1, 8, 8)).astype(np.uint8)
    fitted = []
    for split in (images, images[::3]):
        network = build_network(spec)
        fit_statistics(network, spec, split)
        fitted.append(network.state_dict()["whitening.weight"])
    torch.testing.assert_close(fitted[0], fitted[1], atol=1e-6, rtol=0)


def test_whitening_must_come_first() -> None:
    layers = [
        {"type": "relu"},
        {"type": "whitening_conv2d"},
        {"type": "flatten"},
        {"type": "linear", "out_features": 10},
    ]
    with pytest.raises(ValueError, match="must be the first layer"):
        spec_with({"type": "layers", "layers": layers})
