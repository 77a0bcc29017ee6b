from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from cnn.costs import memory
from cnn.spec import TrainingSpec
from worker.memory import machine_bytes, num_oom_kills, shortage


def test_a_kill_for_lack_of_memory_is_counted(small_cgroup: Path) -> None:
    before = num_oom_kills()
    program = f"open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write('0'); bytearray(256 * 2**20)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    assert num_oom_kills() == before + 1


def test_the_hint_is_the_largest_half_that_fits(spec: TrainingSpec) -> None:
    def needed(batch_size: int) -> int:
        return memory(with_batch_size(spec, batch_size)).total

    found = shortage(with_batch_size(spec, 1024), needed(300))
    assert needed(1024) > needed(300)
    assert found.hint.startswith("training.batch_size 256 would need about ")
    assert f"{needed(1024) // 2**20} MB with training.batch_size 1024" in found.predicted
    # It has not had enough though the prediction said that it would.
    assert shortage(with_batch_size(spec, 1024), needed(2048)).hint.startswith("training.batch_size 512 ")


def test_a_model_that_does_not_fit_at_all_is_said(spec: TrainingSpec) -> None:
    assert "make the model smaller" in shortage(spec, 1000).hint


def with_batch_size(spec: TrainingSpec, batch_size: int) -> TrainingSpec:
    return spec.model_copy(update={"training": spec.training.model_copy(update={"batch_size": batch_size})})


def test_a_machine_has_no_more_than_its_memory() -> None:
    (kilobytes,) = re.findall(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert 2**20 < machine_bytes() <= int(kilobytes) * 1024
