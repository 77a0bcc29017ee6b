"""What a step on a GPU launches, and how long the host needs for it; on a CPU the same of its operations, to try it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch._C._autograd import DeviceType

STEPS = 5
HEADER = ["", "host (ms)", "device (ms)", "host over device", "together (ms)", "launches"]
EXPLAINED = (
    "Host is the time until a step is enqueued, device what its kernels take by torch's profiler, together what a step "
    "takes where they follow each other. Above 1 of host over device, the GPU waits for the host."
)


def wait(device: torch.device) -> None:
    """For all that the device was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def launches(step: Callable[[], object], device: torch.device) -> list[str]:
    """The cells of a row, those of `HEADER` but the first."""
    for _ in range(STEPS):
        step()
    host = []
    for _ in range(4 * STEPS):  # one at a time: the queue of a GPU holds some thousand launches
        wait(device)
        host.append(_seconds(step, 1))
    wait(device)
    together = _seconds(step, 4 * STEPS, device) / (4 * STEPS)
    busy, count = _profiled(step, device)
    enqueuing = statistics.median(host)
    share = f"{enqueuing / busy:.2f}" if busy else "not known"
    return [
        *(f"{1000 * seconds:.3f}" for seconds in (enqueuing, busy)),
        share,
        f"{1000 * together:.3f}",
        f"{count:.0f}",
    ]


def _seconds(step: Callable[[], object], number: int, device: torch.device | None = None) -> float:
    start = time.perf_counter()
    for _ in range(number):
        step()
    if device:
        wait(device)
    return time.perf_counter() - start


def _profiled(step: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of kernels and their number in a step; 0 where the driver does not let torch count."""
    on_gpu, activity = device.type == "cuda", torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU, *([activity.CUDA] if on_gpu else [])]) as profile:
        _seconds(step, STEPS, device)
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [event for event in profile.events() or [] if event.device_type == kind]
    spent = sum(event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events)
    return spent / 1e6 / STEPS, len(events) / STEPS
