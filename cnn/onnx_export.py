"""The network as `model.onnx`, and the proof that it computes the same.

The exporter is torch's tracing one. That which is built on `torch.export` takes seconds longer for the same graph, more
than many a run here takes in all.
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn.errors import TrainingError

OPSET = 17
BATCH_SIZES = (1, 2, 7)
TOLERANCE = 1e-4
"""Largest difference of a logit, in units of the largest logit where that is above 1."""


class ExportFailed(TrainingError):
    """There is no ONNX model of this network; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__("export_failed", message, "platform")


def export_onnx(network: nn.Module, weights: Mapping[str, Tensor], images: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """The model, and a report in JSON of how far its logits are from torch's at three batch sizes.

    Its input `images` is uint8 (N, C, H, W), N free; the input normalization is inside. Its output is `logits`.

    Args:
        images: some of the test split, (N, C, H, W), to compare on.

    Raises:
        ExportFailed: a layer cannot be exported, or the logits differ by more than `TOLERANCE`.
    """
    network = _deliverable(network, weights)
    model = _traced(network, images)
    report = _parity(network, model, images)
    if not report["passed"]:
        raise ExportFailed(f"the logits of model.onnx are not those of torch: {json.dumps(report['batches'])}")
    return model, json.dumps(report, indent=2).encode() + b"\n"


def _deliverable(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy on the CPU that has these weights."""
    network = copy.deepcopy(network).cpu().eval()
    network.load_state_dict({name: tensor.cpu() for name, tensor in weights.items()})
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.padding == "same":
            # Said in pixels: onnxruntime's SAME knows no dilation.
            kernel, dilation = module.kernel_size[0], module.dilation[0]
            module.padding = (dilation * (kernel - 1) // 2,) * 2
    return network


def _traced(network: nn.Module, images: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter itself, and of sizes that it takes for constants
            torch.onnx.export(
                network,
                (torch.from_numpy(images[:2].copy()),),
                file,  # type: ignore[arg-type]  # this exporter writes to an open file, too
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
                dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise ExportFailed(f"torch cannot write this network as ONNX: {str(error).splitlines()[0]}") from error
    return file.getvalue()


def _parity(network: nn.Module, model: bytes, images: NDArray[np.uint8]) -> dict[str, Any]:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    rows = []
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for size in BATCH_SIZES:
            batch = np.resize(images, (size, *images.shape[1:]))
            with torch.inference_mode():
                expected = network(torch.from_numpy(batch)).numpy()
            [logits] = session.run(None, {"images": batch})
            difference = float(np.abs(logits - expected).max())
            rows.append({"batch_size": size, "max_difference": difference, "max_logit": float(np.abs(expected).max())})
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.NotImplemented) as error:
        raise ExportFailed(f"onnxruntime does not take the exported model: {str(error).splitlines()[0]}") from error
    return {
        "opset": OPSET,
        "onnxruntime": onnxruntime.__version__,
        "tolerance": TOLERANCE,
        "batches": rows,
        "passed": all(row["max_difference"] <= TOLERANCE * max(1.0, row["max_logit"]) for row in rows),
    }
