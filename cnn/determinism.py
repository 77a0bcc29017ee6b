"""What the bits of a run depend on beside its spec, its data and its seed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cnn.native.library import used


def set_threads(threads: int) -> None:
    """Compute with so many threads, which take numbers below float32's normal range for 0: before anything is computed.

    The first moments of a dead unit's weights shrink to such numbers, each of which costs the CPU some hundred cycles:
    after a thousand steps of Adam its step would take three times as long. New threads inherit this from their starter.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)


@contextmanager
def numerics(device: torch.device, precision: str, *, deterministic: bool) -> Iterator[None]:
    """Meanwhile a GPU rounds factors to tensorfloat32 only where `precision` says so, and gives the same bytes again.

    To be entered before the GPU has multiplied anything. On a CPU there is nothing to do.
    """
    if device.type != "cuda":
        yield
        return
    os.putenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS results depend on the stream's history
    multiplied = "tf32" if precision == "tensorfloat32" else "ieee"
    wanted = (deterministic, not deterministic, multiplied, multiplied)
    before = _settings()
    _set(*wanted)
    # Of use to find reads of memory that nothing was written to, at the price of writing all of it once more.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        _set(*before)


def _settings() -> tuple[bool, bool, str, str]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    exact = torch.are_deterministic_algorithms_enabled()
    return exact, cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision  # type: ignore[attr-defined]


def _set(deterministic: bool, benchmark: bool, convolutions: str, products: str) -> None:
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.conv.fp32_precision = convolutions  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = products


def determinism_domain(device: torch.device) -> dict[str, str | int]:
    """Within one domain, equal runs give equal bytes.

    Measured to matter: the build of torch, the instruction set of the CPU, the number of threads, the kind of device,
    and on the CPU the library of `cnn.native` where this process uses it.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    domain: dict[str, str | int] = {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": name,
    }
    library = used()
    return domain | {"native": library.digest} if library and device.type == "cpu" else domain
