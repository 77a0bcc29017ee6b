"""What the bits of a run depend on beside its spec, its data and its seed."""

from __future__ import annotations

import torch


def determinism_domain(device: torch.device) -> dict[str, str | int]:
    """Within one domain, equal runs give equal bytes.

    Measured to matter: the build of torch, the instruction set of the CPU, the number of threads, the kind of device.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": name,
    }
