from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from cnn import checkpoints
from tests.integration.processes import wait_until
from worker.artifacts import BlobsInUse, BlobStore, attempt_folder, carry_over, newest_checkpoint, remove_attempts


def test_a_blob_is_named_by_its_bytes_and_outlives_its_source(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    source = tmp_path / "model.safetensors"
    source.write_bytes(content)
    blobs = BlobStore(tmp_path / "data")
    sha256, size = blobs.put(source)
    source.write_bytes(b"changed")
    assert (sha256, size) == (hashlib.sha256(content).hexdigest(), 3_000_000)
    assert blobs.path(sha256) == tmp_path / "data" / "blobs" / sha256[:2] / sha256
    assert blobs.path(sha256).read_bytes() == content


def test_storing_the_same_bytes_twice_keeps_one_blob_and_no_rest(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"bytes")
    blobs = BlobStore(tmp_path)
    assert blobs.put(source) == blobs.put(source)
    assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) == 1


def test_a_source_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        BlobStore(tmp_path).put(tmp_path / "missing")
    assert list((tmp_path / "blobs").iterdir()) == []


def test_what_a_killed_worker_left_goes_when_blobs_are_removed(tmp_path: Path) -> None:
    source = tmp_path / "file"
    os.mkfifo(source)  # for which it waits
    blobs = tmp_path / "blobs"
    put = f"from pathlib import Path; from worker.artifacts import *; BlobStore(Path({str(tmp_path)!r})).put("
    worker = subprocess.Popen([sys.executable, "-c", f"{put}Path({str(source)!r}))"])
    wait_until(lambda: any(blobs.glob(".new-*")))
    worker.kill()
    worker.wait()
    with BlobStore(tmp_path).removing():
        assert [path.name for path in blobs.iterdir()] == [".lock"]


def test_nothing_is_removed_while_somebody_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.artifacts.PATIENCE_SECONDS", 0.1)
    store = BlobStore(tmp_path)
    with store.adding(), store.adding(), pytest.raises(BlobsInUse), store.removing():
        pass
    with store.removing():
        pass


def test_who_removes_waits_until_what_is_added_has_a_row(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    order = []

    def remove() -> None:
        with store.removing():
            order.append("removed")

    removing = threading.Thread(target=remove)
    with store.adding():
        removing.start()
        time.sleep(0.2)
        order.append("added")
    removing.join()
    assert order == ["added", "removed"]


def test_blobs_can_be_locked_on_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the kernel makes locks of ranges of bytes of these."""
    monkeypatch.setattr(fcntl, "flock", fcntl.lockf)
    store = BlobStore(tmp_path)
    with store.adding():
        pass
    with store.removing():
        pass


def test_the_newest_checkpoint_is_that_of_the_highest_step_in_any_attempt(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, "job_1") is None
    for attempt, step in ((1, 90), (1, 100), (2, 110), (3, 95)):
        (attempt_folder(tmp_path, "job_1", attempt).checkpoints / f"step-{step}").mkdir(parents=True)
    (attempt_folder(tmp_path, "job_1", 3).checkpoints / ".step-200").mkdir()
    (attempt_folder(tmp_path, "job_2", 1).checkpoints / "step-300").mkdir(parents=True)
    expected = tmp_path / "jobs" / "job_1" / "attempt-2" / "checkpoints" / "step-110"
    assert newest_checkpoint(tmp_path, "job_1") == (110, expected)


def write_checkpoint(data_dir: Path, attempt: int, step: int, content: str) -> Path:
    folder = attempt_folder(data_dir, "job_1", attempt).checkpoints / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(content)
    return folder


def test_an_attempt_takes_over_the_checkpoints_of_those_before_it(tmp_path: Path) -> None:
    for attempt, step in ((1, 10), (2, 20), (2, 30), (3, 30)):
        source = write_checkpoint(tmp_path, attempt, step, f"{attempt}, {step}")
    (source.parent / ".step-40").mkdir()
    kept = (source / "state.json").stat().st_ino
    target = attempt_folder(tmp_path, "job_1", 4)
    target.create()
    (target.checkpoints / ".step-30").mkdir()  # a worker died while it did the same
    carry_over(tmp_path, "job_1", 4, first_attempt=2)
    found = {path.name: (path / "state.json").read_text() for path in target.checkpoints.iterdir()}
    assert found == {"step-20": "2, 20", "step-30": "3, 30"}
    assert (target.checkpoints / "step-30" / "state.json").stat().st_ino == kept
    assert newest_checkpoint(tmp_path, "job_1") == (30, target.checkpoints / "step-30")
    assert not [attempt for attempt in (1, 2, 3) if attempt_folder(tmp_path, "job_1", attempt).checkpoints.exists()]


def test_what_the_attempt_has_itself_stays(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, 10, "old")
    target = write_checkpoint(tmp_path, 2, 10, "new").parent
    carry_over(tmp_path, "job_1", 2)
    assert (target / "step-10" / "state.json").read_text() == "new"


def test_a_writer_that_lost_the_job_unknowingly_may_replace_what_is_carried_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (attempt_folder(tmp_path, "job_1", attempt).checkpoints for attempt in (1, 2))
    second.mkdir(parents=True)
    steps = iter(range(1, 7))
    for step in (next(steps), next(steps)):
        checkpoints.save(first, step, {}, {})
    link = os.link

    def late(source: Path, target: Path) -> None:
        for step in steps:
            checkpoints.save(first, step, {}, {})
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    carry_over(tmp_path, "job_1", 2)
    assert [path.name for path in checkpoints.generations(second)] == ["step-6", "step-5"]
    for path in checkpoints.generations(second):
        checkpoints.load(path, torch.device("cpu"))


def test_a_job_that_needs_its_checkpoints_no_more_keeps_its_log(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1, 10, "state").parents[2]
    (folder / "log.txt").touch()
    remove_attempts(tmp_path, "job_1")
    assert [path.name for path in folder.iterdir()] == ["log.txt"]
