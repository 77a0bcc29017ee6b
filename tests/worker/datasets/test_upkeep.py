"""Validation and drawing in real processes, and what happens when these or their workers die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cnn.datasets import registered_folder
from cnn.spec import TrainingSpec
from tests.integration.processes import alive, command_line, descendants, wait_until
from tests.worker.datasets.test_validation import good, zip_of
from worker.datasets import upkeep
from worker.datasets.incoming import upload_path
from worker.datasets.keeping import claimed, delete_dataset, remove_leftovers, samples_path, sheet_path, work_folder
from worker.datasets.upkeep import Upkeep
from worker.settings import Settings
from worker.store import datasets, uploads
from worker.store.database import Database
from worker.store.datasets import Dataset


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", poll_seconds=0.05)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    opened = Database(settings.resolved_database_url())
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def keeper(database: Database, settings: Settings) -> Iterator[Upkeep]:
    keeper = Upkeep(database, settings)
    yield keeper
    keeper.stop()


def register(database: Database, settings: Settings, content: bytes, format: dict[str, Any] | None = None) -> str:
    """The id of a dataset that waits."""
    with database.write() as c:
        upload, _ = uploads.create(c, owner_id=None, filename="set.zip", size=len(content), sha256="ab" * 32)
        uploads.advance(c, upload.id, len(content), complete=True)
        path = upload_path(settings.data_dir, upload.id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        wanted = format or {"type": "image_folder"}
        dataset = datasets.create(c, owner_id=None, name="mine", format=wanted, upload=upload)
    assert dataset is not None
    return dataset.id


def get(database: Database, dataset_id: str) -> Dataset:
    with database.read() as c:
        dataset = datasets.get(c, dataset_id)
    assert dataset is not None
    return dataset


def codes(dataset: Dataset) -> list[str]:
    assert dataset.report is not None
    return [finding["code"] for finding in dataset.report["findings"]]


def stalled(database: Database, settings: Settings) -> tuple[str, Path]:
    """The id of a dataset that waits, and its upload: a pipe that nobody writes to, so that reading it does not end."""
    dataset_id = register(database, settings, zip_of(good()))
    path = upload_path(settings.data_dir, get(database, dataset_id).upload_id)
    path.unlink()
    os.mkfifo(path)
    return dataset_id, path


def test_a_dataset_becomes_ready(database: Database, settings: Settings, keeper: Upkeep) -> None:
    dataset_id = register(database, settings, zip_of(good()))
    keeper.validate_all()
    dataset = get(database, dataset_id)
    assert (dataset.status, codes(dataset), dataset.attempts) == ("ready", [], 1)
    assert dataset.content is not None
    assert dataset.digest is not None
    folder = registered_folder(settings.data_dir, dataset.digest)
    assert dataset.bytes == sum(path.stat().st_size for path in folder.iterdir())
    with Image.open(samples_path(settings.data_dir, dataset.digest)) as sheet:
        assert sheet.format == "PNG"
    assert list((settings.data_dir / "datasets" / "work").iterdir()) == []
    spec = TrainingSpec.model_validate(
        {
            "dataset": {"type": "registered", "id": dataset_id, "content": dataset.content},
            "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 2}]},
            "optimizer": {"type": "sgd"},
            "training": {"batch_size": 4},
        }
    )
    assert spec.dataset.load(settings.data_dir).digest == dataset.digest


def test_a_dataset_is_refused_with_its_report(database: Database, settings: Settings, keeper: Upkeep) -> None:
    damaged = register(database, settings, zip_of({**good(), "train/ant/0.png": b"x"}))
    attack = register(database, settings, zip_of({**good(), "../../evil": b"x"}))
    keeper.validate_all()
    assert codes(get(database, damaged)) == ["unreadable_image"]
    assert codes(get(database, attack)) == ["unsafe_path"]
    assert get(database, attack).status == "refused"
    assert not (settings.data_dir / "datasets" / "registered").exists()


def test_a_validation_that_needs_too_much(
    database: Database, settings: Settings, keeper: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "VALIDATION_SECONDS", 0.5)
    dataset_id, _ = stalled(database, settings)
    keeper.validate_all()
    dataset = get(database, dataset_id)
    assert (dataset.status, codes(dataset)) == ("refused", ["validation_failed"])
    assert dataset.report is not None
    assert "more memory or time" in dataset.report["findings"][0]["message"]


def test_a_validation_whose_process_is_killed(database: Database, settings: Settings, keeper: Upkeep) -> None:
    dataset_id, _ = stalled(database, settings)
    thread = threading.Thread(target=keeper.validate_all)
    thread.start()
    wait_until(lambda: bool(validations(os.getpid())))
    os.kill(validations(os.getpid()).pop(), signal.SIGSEGV)
    thread.join(20)
    assert codes(get(database, dataset_id)) == ["validation_failed"]


def validations(pid: int) -> set[int]:
    return {child for child in descendants(pid) if "worker.datasets.validation" in command_line(child)}


def test_stopping_breaks_a_validation_off_and_it_does_not_count(
    database: Database, settings: Settings, keeper: Upkeep
) -> None:
    dataset_id, _ = stalled(database, settings)
    keeper.start()
    wait_until(lambda: bool(validations(os.getpid())))
    keeper.stop()
    assert not validations(os.getpid())
    dataset = get(database, dataset_id)
    assert (dataset.status, dataset.attempts) == ("validating", 0)
    with claimed(settings.data_dir, dataset_id) as lock:
        assert lock is not None


def test_another_worker_takes_up_what_a_killed_one_has_begun(
    database: Database, settings: Settings, keeper: Upkeep
) -> None:
    dataset_id, upload = stalled(database, settings)
    program = """
import sys
from pathlib import Path
from worker.datasets.upkeep import Upkeep
from worker.settings import Settings
from worker.store.database import Database
settings = Settings(data_dir=Path(sys.argv[1]))
Upkeep(Database(settings.resolved_database_url()), settings).validate_all()
"""
    first = subprocess.Popen([sys.executable, "-c", program, str(settings.data_dir)])
    wait_until(lambda: bool(validations(first.pid)))
    child = validations(first.pid)
    keeper.validate_all()  # somebody else works on it
    assert get(database, dataset_id).status == "validating"
    first.kill()
    first.wait()
    wait_until(lambda: not alive(child))
    upload.unlink()
    upload.write_bytes(zip_of(good()))
    keeper.validate_all()
    dataset = get(database, dataset_id)
    assert (dataset.status, dataset.attempts) == ("ready", 2)


def test_what_kills_every_worker_is_given_up(database: Database, settings: Settings, keeper: Upkeep) -> None:
    dataset_id = register(database, settings, zip_of(good()))
    with database.write() as c:
        for _ in range(datasets.MAX_ATTEMPTS):
            datasets.begin(c, dataset_id)
    keeper.validate_all()
    assert codes(get(database, dataset_id)) == ["validation_failed"]


def test_equal_datasets_share_their_arrays_until_both_are_deleted(
    database: Database, settings: Settings, keeper: Upkeep
) -> None:
    first, second = register(database, settings, zip_of(good())), register(database, settings, zip_of(good()) + b"")
    keeper.validate_all()
    digest = get(database, first).digest
    assert digest == get(database, second).digest
    assert digest is not None
    delete_dataset(database, settings.data_dir, first)
    assert registered_folder(settings.data_dir, digest).is_dir()
    delete_dataset(database, settings.data_dir, second)
    assert not registered_folder(settings.data_dir, digest).exists()


def sheet_of(database: Database, dataset_id: str, key: str, augmentation: list[dict[str, Any]]) -> None:
    dataset = get(database, dataset_id)
    spec = {
        "dataset": {"type": "registered", "id": dataset_id, "content": dataset.content},
        "augmentation": augmentation,
        "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 2}]},
        "optimizer": {"type": "sgd", "lr": 0.1},
        "split": {"val_fraction": 0},
        "training": {"batch_size": 1},
    }
    with database.write() as c:
        datasets.want_sheet(c, key=key, dataset_id=dataset_id, spec=json.loads(json.dumps(spec)))


def test_sheets_are_drawn_and_those_that_cannot_be_say_why(
    database: Database, settings: Settings, keeper: Upkeep
) -> None:
    dataset_id = register(database, settings, zip_of(good()))
    keeper.validate_all()
    sheet_of(database, dataset_id, "good", [{"type": "horizontal_flip", "p": 1.0}])
    sheet_of(database, dataset_id, "bad", [{"type": "no_such_thing"}])
    keeper.draw_all()
    with Image.open(sheet_path(settings.data_dir, "good")) as sheet:
        assert sheet.format == "PNG"
    with database.write() as c:
        assert datasets.waiting_sheets(c) == []
        error = datasets.want_sheet(c, key="bad", dataset_id=dataset_id, spec={}).error
    assert error
    assert not work_folder(settings.data_dir, "good").exists()


def test_a_dataset_that_is_deleted_while_it_is_read_leaves_nothing(
    database: Database, settings: Settings, keeper: Upkeep
) -> None:
    dataset_id, upload = stalled(database, settings)
    thread = threading.Thread(target=keeper.validate_all)
    thread.start()
    wait_until(lambda: bool(validations(os.getpid())))
    delete_dataset(database, settings.data_dir, dataset_id)
    upload.write_bytes(b"")  # it reads an empty file, and ends
    thread.join(20)
    assert not thread.is_alive()
    assert list((settings.data_dir / "datasets" / "work").iterdir()) == []
    assert not (settings.data_dir / "datasets" / "registered").exists()


def test_what_killed_validations_leave_and_old_sheets_are_removed(settings: Settings) -> None:
    left, held = (work_folder(settings.data_dir, name) for name in ("left", "held"))
    old, new = (sheet_path(settings.data_dir, key) for key in ("old", "new"))
    for path in (left / "file", held / "file", old, new):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    with claimed(settings.data_dir, "held"):
        remove_leftovers(settings.data_dir)
    assert [path.exists() for path in (left, held, old, new)] == [False, True, False, True]
