"""What the bits of a run depend on beside its spec, its data and its seed."""

from __future__ import annotations

import torch

from cnn.native.library import used


def set_threads(threads: int) -> None:
    """Compute with so many threads, which take numbers below float32's normal range for 0: before anything is computed.

    The first moments of a dead unit's weights shrink to such numbers, each of which costs the CPU some hundred cycles:
    after a thousand steps of Adam its step would take three times as long. New threads inherit this from their starter.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)


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
