from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnn.costs import memory
from cnn.spec import TrainingSpec
from tests.worker.conftest import GREEDY, GROUP_BYTES
from worker.memory import OomKills, machine_bytes, oom_kills, shortage


@pytest.mark.usefixtures("in_small_cgroup")
def test_a_kill_in_the_own_group_is_counted() -> None:
    before = oom_kills()
    assert subprocess.run([sys.executable, "-c", GREEDY]).returncode == -9
    assert oom_kills() == OomKills(before.count + 1, of_own_group=True)


def test_a_kill_in_another_group_is_not_counted(small_cgroup: Path) -> None:
    before = oom_kills()
    join = f"open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write('0'); "
    assert subprocess.run([sys.executable, "-c", join + GREEDY]).returncode == -9
    assert oom_kills() == before


def test_without_a_group_every_kill_of_the_machine_counts(
    small_cgroup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.memory.GROUPS", tmp_path)
    before = oom_kills()
    join = f"open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write('0'); "
    assert subprocess.run([sys.executable, "-c", join + GREEDY]).returncode == -9
    assert not before.of_own_group
    assert oom_kills().count > before.count


@pytest.mark.usefixtures("in_small_cgroup")
def test_a_group_has_no_more_than_its_limit() -> None:
    assert machine_bytes() == GROUP_BYTES


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
