from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import torch
from cnn.determinism import set_threads
set_threads(2)
numbers = torch.full((2**20,), 1e-30, requires_grad=True)
product = numbers * 1e-12
product.backward(torch.full_like(product, 1e-30))
print(torch.get_num_threads(), int(product.count_nonzero()), int(numbers.grad.count_nonzero()))
"""


def test_all_threads_take_subnormal_numbers_for_zero() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["2", "0", "0"]
