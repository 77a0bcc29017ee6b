from __future__ import annotations

import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource
import torch
from cnn.memory import keep_freed_memory

torch.set_num_threads(1)

def steps():
    for size in (250_000, 1_000_000, 2_000_000):
        [torch.ones(size) for _ in range(20_000_000 // size)]  # of 80 MB glibc gives back what lies at the top

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

steps()
before = faults()
steps()
by_default = faults() - before
keep_freed_memory()
steps()
before = faults()
steps()
print(by_default, faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")
def test_a_step_finds_the_memory_of_the_last_one() -> None:
    command = [sys.executable, "-c", PAGE_FAULTS]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    by_default, kept = map(int, output.split())
    assert by_default > 1000
    assert kept < 100
