"""What matters on a GPU. Each test runs on the CPU too, to be tried; where a GPU is, it means something.

`pytest tests/cnn/test_gpu.py` on a machine with a GPU takes a minute or two.
"""

from __future__ import annotations

import io
import json
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnn import base, randomness
from cnn.augmentation import Augmentation, build_augmentation
from cnn.checkpoints import generations
from cnn.data import Data
from cnn.determinism import numerics
from cnn.errors import Diverged
from cnn.evaluation import evaluate
from cnn.events import Artifact, Event, Metrics, Result, Stopped, Warning_
from cnn.models import build_network
from cnn.nn import deterministic
from cnn.normalization import Normalization
from cnn.pooling import AdaptiveAvgPool2d
from cnn.run import Run
from cnn.spec import TrainingSpec
from cnn.training import train
from cnn.transforms import policies
from cnn.transforms.draws import Draws
from tests.cnn.plain import small_spec
from tests.cnn.test_augmentation import MEMBERS as TRANSFORMS
from tests.cnn.test_layers import MEMBERS as LAYERS
from tests.cnn.test_layers import VARIANTS, example
from tests.cnn.test_models import EXAMPLES as MODELS
from tests.cnn.test_models import model_id, pictures
from tests.cnn.test_training import OPTIMIZERS, stop_after

pytestmark = pytest.mark.filterwarnings("error:.*determini")
"""Also where `-W default` lets what a driver warns of pass."""

CPU, META = torch.device("cpu"), torch.device("meta")
CONV = {"type": "conv2d", "out_channels": 4, "kernel_size": 3, "padding": "same"}
ENDING = [{"type": "flatten"}, {"type": "linear", "out_features": 10}]
PLAIN = {"type": "layers", "layers": [CONV, {"type": "relu"}, {"type": "max_pool2d", "kernel_size": 4}, *ENDING]}
RANDOM = ("dropout", "spatial_dropout", "stochastic_depth", "drop_block")
"""Layers whose masks are others on another kind of device."""
TRAINING = {"batch_size": 16, "epochs": 100}
FULL = {**TRAINING, "ema": {"decay": 0.9}, "max_grad_norm": 0.5, "accumulate": 2}
REGULARIZERS = [{"type": "l2"}, {"type": "l1"}, {"type": "max_norm", "max_value": 0.3}]


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU is here")
    return torch.device(request.param)


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no GPU is here")
    return torch.device("cuda")


def cifar_spec(**parts: Any) -> TrainingSpec:
    content = {"dataset": {"type": "cifar10"}, "model": PLAIN, "optimizer": {"type": "sgd"}, "training": TRAINING}
    return TrainingSpec.model_validate_json(json.dumps({**content, **parts}))


def around(layer: base.Layer) -> dict[str, Any]:
    """A network with this layer behind another one, where that may be."""
    content = layer.model_dump(mode="json")
    if layer.type == "linear" or getattr(getattr(layer, "layer", None), "type", None) == "linear":
        layers = [{"type": "flatten"}, content, ENDING[-1]]
    else:
        before = [] if layer.is_fitted else [CONV]
        shape = layer.cost((3 if layer.is_fitted else 4, 32, 32)).shape
        layers = [*before, content, *(ENDING if len(shape) == 3 else ENDING[1:])]
    return {"type": "layers", "layers": layers}


EVERY_LAYER = [*(example(member) for member in LAYERS), *(layer for layer, _ in VARIANTS)]
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{layer.type}-{number}": {"model": around(layer), "optimizer": {"type": "momentum", "lr": 0.01}}
        for number, layer in enumerate(EVERY_LAYER)
    },
    **{name: {"optimizer": {"type": name}, "training": FULL, "regularizers": REGULARIZERS} for name in OPTIMIZERS},
    "momentum of 0": {"optimizer": {"type": "momentum", "momentum": 0.0}},
    **{
        name: {"normalization": {"type": name}}
        for name in (member.model_fields["type"].default for member in get_args(get_args(Normalization.__value__)[0]))
        if name != "zca_whitening"  # of some images whose matrix is 3072 × 3072
    },
    "smoothed": {"loss": {"type": "cross_entropy", "label_smoothing": 0.1, "class_weights": [0.5] * 10}},
    "soft": {"augmentation": [{"type": "mixup"}], "loss": {"type": "cross_entropy", "label_smoothing": 0.1}},
    "features": {"augmentation": [{"type": "feature_space", "layer": "conv2d1"}]},
    "noisy features": {"augmentation": [{"type": "feature_space", "layer": "conv2d1", "mode": "noise"}]},
    "frozen": {"training": {**TRAINING, "frozen": ["conv*"]}},
}
NAMED = [model for model in MODELS if model.type != "layers"]
DRAWN = ("soft", "features", "noisy features")


@contextmanager
def refused_waits(device: torch.device) -> Iterator[None]:
    """On a GPU: what waits for it raises."""
    if device.type != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is new, and does not find all
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def trained(spec: TrainingSpec, device: torch.device, *, steps: int = 3) -> dict[str, Tensor]:
    """The state after some steps, on the CPU. The last of them does not wait for the device, but in float16.

    Pytest makes an error of every warning: of an operation, too, that has no deterministic implementation there.
    """
    with numerics(device, spec.training.precision, deterministic=True):
        run = Run(spec, pictures(spec, 128), device, None)
        for _ in range(steps - 1):
            run.advance()
        with refused_waits(device) if spec.training.precision != "float16" else nullcontext():
            run.advance()
        run.check()
        return {name: tensor.cpu().clone() for name, tensor in run.learner.tensors().items()}


def assert_equal(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    assert some.keys() == others.keys()
    assert [name for name in some if not torch.equal(some[name], others[name])] == []


def assert_close(some: Mapping[str, Tensor], others: Mapping[str, Tensor], begin: Mapping[str, Tensor]) -> None:
    """The weights, in relation to how far they have moved."""
    names = [name for name in begin if name.startswith("network.") and begin[name].is_floating_point()]
    flat = [torch.cat([state[name].flatten() for name in names]).double() for state in (some, others, begin)]
    assert (flat[0] - flat[1]).norm() < 0.02 * (flat[1] - flat[2]).norm()


@pytest.mark.parametrize("case", CASES)
def test_steps_have_one_result_which_is_that_of_the_cpu(case: str, device: torch.device) -> None:
    """Every layer, optimizer, normalization and loss, without a warning of an operation that sums in any order."""
    spec = cifar_spec(**CASES[case])
    state = trained(spec, device)
    assert_equal(state, trained(spec, device))
    if case.startswith(RANDOM) or case in DRAWN:
        return
    begin = Run(spec, pictures(spec, 128), CPU, None).learner.tensors()
    assert_close(state, state if device == CPU else trained(spec, CPU), begin)


@pytest.mark.parametrize("model", NAMED, ids=model_id)
@pytest.mark.parametrize("precision", ["float32", "tensorfloat32", "bfloat16", "float16"])
def test_every_model_has_one_result(precision: str, model: Any, gpu: torch.device) -> None:
    parts = {"model": model.model_dump(mode="json"), "optimizer": {"type": "adam"}}
    spec = cifar_spec(**parts, training={**TRAINING, "precision": precision})
    state = trained(spec, gpu)
    assert_equal(state, trained(spec, gpu))
    assert all(tensor.isfinite().all() for tensor in state.values())


class Moved(Draws):
    """The numbers that a CPU draws, on another device."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in {*NUMBERS, "samples"}:
            return found
        if name == "samples":
            return found.to(Moved.device)
        drawn = Draws(self.generator, super().__getattribute__("samples").cpu(), self.epoch, self.seed)
        return lambda *arguments: getattr(drawn, name)(*arguments).to(Moved.device)

    device = CPU


NUMBERS = ("uniform", "bytes", "log_uniform", "normal", "integers", "chance", "sign", "beta", "permutation", "one")


@pytest.mark.parametrize("member", TRANSFORMS, ids=lambda member: member.model_fields["type"].default)
def test_augmentation_is_that_of_the_cpu_for_the_same_draws(
    member: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    content: dict[str, Any] = {"type": member.model_fields["type"].default}
    if content["type"] == "random_erasing":
        content["value"] = 7  # of noise, a CPU draws what is needed alone
    augment = build_augmentation([TypeAdapter(Augmentation).validate_python(content)], 10)
    images = torch.randint(0, 256, (32, 3, 12, 10), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    labels, samples = torch.arange(32) % 10, torch.arange(32)
    monkeypatch.setattr(Moved, "device", device)

    def augmented(kind: type[Draws], place: torch.device) -> tuple[Tensor, Tensor]:
        draws = kind(torch.Generator().manual_seed(2), samples, epoch=1, seed=0)
        changed, targets = augment(images.to(place), labels.to(place), draws)
        return changed.cpu().float(), targets.cpu().float()

    for found, expected in zip(augmented(Moved, device), augmented(Draws, CPU), strict=True):
        off = (found - expected).abs() > 0.01
        assert off.float().mean() < 0.002  # a rounded number may be another one


class OneDevice(TorchDispatchMode):
    """Refuses operations of tensors on "meta" that would mix devices on a GPU, or copy to it and so wait for it.

    There is no data on that device, so that to ask for some raises by itself. `count` is how many were let pass.
    """

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        kinds = {tensor.device.type for tensor in tensors if tensor.ndim or func.overloadpacket in COPIES}
        if (kwargs or {}).get("device") == META:
            kinds.add("meta")
        assert len(kinds) < 2, f"{func} of tensors on {' and '.join(kinds)}"
        self.count += not func.is_view
        return WITHOUT_META.get(func.overloadpacket, func)(*args, **(kwargs or {}))


COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
WITHOUT_META: dict[object, Callable[..., Any]] = {
    torch.ops.aten._fused_sgd_: lambda *_, **__: None,
    torch.ops.aten._fused_adagrad_: lambda *_, **__: None,
    torch.ops.aten._standard_gamma: lambda shapes, *_: torch.empty_like(shapes),
}
"""Operations of which torch, or a torch before 2.14, does not know what becomes of shapes."""


class TorchWithGenerators:
    """Torch, but with generators of the CPU where none is for the device."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def Generator(self, _device: object) -> torch.Generator:  # noqa: N802
        return torch.Generator()


STEPS: dict[str, dict[str, Any]] = {
    **CASES,
    **{
        member.model_fields["type"].default: {"augmentation": [{"type": member.model_fields["type"].default}]}
        for member in TRANSFORMS
    },
    "gan": {"augmentation": [{"type": "gan", "width": 4, "batch_size": 16, "epochs": 1}]},
    **{model_id(model): {"model": model.model_dump(mode="json")} for model in NAMED},
}


@pytest.mark.parametrize(
    "case",
    STEPS,
)
def test_a_step_neither_mixes_devices_nor_waits_for_one(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second step: the first may copy constants, and the order of the epoch."""
    tensor = torch.tensor

    def on_cpu(*arguments: Any, device: Any = None, **options: Any) -> Tensor:
        assert device is None or torch.device(device) == CPU, "a copy to the device waits for it"
        return tensor(*arguments, **options)

    monkeypatch.setattr(randomness, "torch", TorchWithGenerators())
    spec = cifar_spec(**STEPS[case])
    run = Run(spec, pictures(spec, 128), META, None)
    for stage in (run.gan, run) if run.gan else (run,):
        for refuses in (False, True):
            with OneDevice() if refuses else Unchecked():
                monkeypatch.setattr(torch, "tensor", on_cpu if refuses else tensor)
                stage.advance()


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "muon"])
def test_a_step_launches_little_beside_forward_and_backward(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network waits for the host, which needs some microseconds for each operation: none is for one weight."""
    monkeypatch.setattr(randomness, "torch", TorchWithGenerators())
    spec = cifar_spec(model={"type": "resnet18"}, optimizer={"type": optimizer}, training={**TRAINING, "ema": {}})
    run = Run(spec, pictures(spec, 128), META, None)
    with Unchecked():
        run.advance()
    with OneDevice() as step:
        run.advance()
    network, labels = run.learner.network, torch.empty(16, dtype=torch.int64, device=META)
    network.zero_grad()
    with OneDevice() as bare:
        torch.autograd.backward(cross_entropy(network(torch.empty(16, 3, 32, 32, device=META)), labels))
    assert step.count < bare.count + 60


class Unchecked(OneDevice):
    """Lets all pass."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return WITHOUT_META.get(func.overloadpacket, func)(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x + torch.ones(4),
        lambda x: x[torch.tensor([0, 2])],
        lambda x: x.copy_(torch.ones(())),
        lambda x: torch.ones(4).to(x.device),
        lambda x: x.tolist(),
    ],
)
def test_what_waits_or_mixes_is_found(act: Callable[[Tensor], Any]) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), OneDevice():
        act(torch.empty(4, device=META))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_layers_of_other_operations_are_the_same(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that replace what torch has no deterministic gradient of on a GPU, here on the CPU."""
    images = torch.randn(3, 6, 7, 9).contiguous(memory_format=torch.channels_last)
    layers = AdaptiveAvgPool2d(output_size=size).build((6, 7, 9)), deterministic.LocalResponseNorm(size, 0.1, 0.6, 2.0)
    for layer in layers:
        results = []
        for name in ("cpu", "another"):
            monkeypatch.setattr(deterministic, "EXACT_ON", name)
            x = images.clone().requires_grad_()
            y = layer(x)
            torch.autograd.backward(y.square().sum())
            results.append((y.detach(), x.grad))
        torch.testing.assert_close(*results)


def test_policies_change_all_samples_as_they_change_those_that_drew_it() -> None:
    images, drawn = torch.rand(64, 3, 9, 8) * 255, torch.arange(64) % 14
    strength, among = torch.linspace(-1, 1, 64), policies.operations(3)
    expected = policies.apply_drawn(images, drawn, strength, policies.WIDE, among)
    torch.testing.assert_close(policies._all_of_all(images, drawn, strength, policies.WIDE, among), expected)


EVERYTHING: dict[str, Any] = {
    "augmentation": [
        *({"type": name} for name in ("random_crop", "horizontal_flip", "rotate", "zoom", "perspective")),
        {"type": "color_jitter", "saturation": 0.2, "hue": 0.1},
        *({"type": name} for name in ("patch_blur", "gaussian_blur", "random_erasing", "rand_augment", "mixup")),
    ],
    "model": {
        "type": "layers",
        "layers": [CONV, {"type": "batch_norm"}, {"type": "relu"}, {"type": "dropout", "keep_prob": 0.8}, *ENDING],
    },
    "regularizers": REGULARIZERS,
    "training": {"batch_size": 16, "epochs": 3, "ema": {"decay": 0.9}, "max_grad_norm": 2.0},
}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Data]:
    """120 pictures in colour, 8 × 8, of ten classes, a fifth of them for testing."""
    path = tmp_path_factory.mktemp("colours") / "colours.npz"
    labels = np.arange(120) % 10
    noise = np.random.default_rng(0).integers(0, 100, (120, 8, 8, 3))
    np.savez(path, images=(noise + 15 * labels[:, None, None, None]).astype(np.uint8), labels=labels)
    dataset = {"type": "npz", "path": str(path), "test_fraction": 0.2}
    return dataset, small_spec(dataset=dataset).dataset.load(path.parent)


def run(spec: TrainingSpec, data: Data, device: torch.device, folder: Path, **options: Any) -> list[Event]:
    return list(train(spec, data, device=device.type, checkpoints=folder, artifacts=folder / "files", **options))


def told(events: list[Event]) -> tuple[dict[str, bytes], list[Any], Event]:
    """The bytes of all files, the series, and how it ended."""
    files = {event.name: event.path.read_bytes() for event in events if isinstance(event, Artifact)}
    return files, [event.values for event in events if isinstance(event, Metrics)], events[-1]


GAN = {"type": "gan", "width": 4, "batch_size": 16, "epochs": 1}
FEATURES = {"type": "feature_space", "layer": "conv2d1", "neighbors_from": "split", "mode": "interpolate"}
RUNS: dict[str, dict[str, Any]] = {
    **{name: {"optimizer": {"type": name, "lr": 0.01}} for name in ("adam", "nesterov", "muon", "nadam", "adadelta")},
    "gan": {"optimizer": {"type": "momentum"}, "augmentation": [GAN, *EVERYTHING["augmentation"][:2]]},
    "features": {"optimizer": {"type": "rmsprop"}, "augmentation": [*EVERYTHING["augmentation"][:2], FEATURES]},
}


@pytest.mark.parametrize("parts", RUNS)
def test_a_run_ends_with_the_same_bytes_however_often_it_was_stopped(
    parts: str, colours: tuple[dict[str, Any], Data], device: torch.device, tmp_path: Path
) -> None:
    dataset, data = colours
    spec = small_spec(**{**EVERYTHING, **RUNS[parts]}, dataset=dataset)
    expected = told(run(spec, data, device, tmp_path / "whole"))
    assert isinstance(expected[-1], Result)
    assert told(run(spec, data, device, tmp_path / "again")) == expected
    saved = None
    for steps in (1, 4, 5):
        events = run(spec, data, device, tmp_path / "parts", stop=stop_after(steps), resume_from=saved)
        assert isinstance(events[-1], Stopped)
        saved = generations(tmp_path / "parts")[0]
    assert saved is not None
    assert saved.name == "step-10"
    assert told(run(spec, data, device, tmp_path / "parts", resume_from=saved)) == expected


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32", "bfloat16", "float16"])
def test_what_a_run_delivers_works_on_a_cpu(
    precision: str, colours: tuple[dict[str, Any], Data], device: torch.device, tmp_path: Path
) -> None:
    dataset, data = colours
    training = {"batch_size": 16, "epochs": 6, "precision": precision}
    spec = small_spec(dataset=dataset, optimizer={"type": "adam", "lr": 0.01}, training=training)
    events = run(spec, data, device, tmp_path)
    result = events[-1]
    assert isinstance(result, Result)
    assert [event for event in events if isinstance(event, Warning_)] == []
    assert {"model.onnx", "bundle.tar"} < told(events)[0].keys()
    weights, network = load_file(tmp_path / "files" / "model.safetensors"), build_network(spec)
    score = evaluate(network, weights, torch.from_numpy(data.test_images), torch.from_numpy(data.test_labels))
    with tarfile.open(tmp_path / "files" / "bundle.tar") as bundle:
        golden = [bundle.extractfile(f"model/golden_{name}.npy") for name in ("images", "logits")]
        images, logits = (np.load(io.BytesIO(file.read())) for file in golden if file)
    network.load_state_dict(weights)
    with torch.no_grad():
        found = network.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4 * max(1, np.abs(logits).max()))
    assert score.loss == pytest.approx(result.test_loss, rel=0.02)
    assert score.accuracy == pytest.approx(result.test_accuracy, abs=1 / len(data.test_labels) + 1e-9)
    assert result.test_accuracy > 0.4


def test_divergence_is_found_late_and_has_spoiled_nothing(
    colours: tuple[dict[str, Any], Data], device: torch.device, tmp_path: Path
) -> None:
    """On a GPU the host asks seldom; the steps after the first bad one must leave the weights as they were."""
    dataset, data = colours
    spec = small_spec(dataset=dataset, optimizer={"type": "sgd", "lr": 1e6}, training={"batch_size": 8, "epochs": 3})
    with pytest.raises(Diverged) as caught:
        run(spec, data, device, tmp_path)
    assert 1 < caught.value.step <= 10
    assert caught.value.layer in ("conv1", "fc1")
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "files/last_good.safetensors").values())


def test_two_gpus_give_the_same_bytes_again_and_after_a_stop(
    colours: tuple[dict[str, Any], Data], tmp_path: Path
) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there are no two GPUs here")
    dataset, data = colours
    parts = {**EVERYTHING, "training": {**EVERYTHING["training"], "devices": 2}}
    spec, cuda = small_spec(**parts, dataset=dataset), torch.device("cuda")
    expected = told(run(spec, data, cuda, tmp_path / "whole"))
    run(spec, data, cuda, tmp_path / "parts", stop=stop_after(5))
    resumed = run(spec, data, cuda, tmp_path / "parts", resume_from=generations(tmp_path / "parts")[0])
    assert told(resumed) == expected
