from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from cnn.spec import TrainingSpec
from worker.jobs import JobStatus
from worker.store import attempts, dataset_tables, datasets, jobs, uploads
from worker.store.database import Database
from worker.store.datasets import Dataset, DatasetInUse, DatasetStatus

SHA256 = "ab" * 32
CONTENT: dict[str, Any] = {
    "digest": f"sha256:{'cd' * 32}", "shape": [1, 8, 8], "labels": ["a", "b"], "num_train": 100, "num_test": 20,
}  # fmt: skip


def registered(database: Database, owner_id: str | None = None) -> Dataset:
    with database.write() as c:
        upload, _ = uploads.create(c, owner_id=owner_id, filename="a.zip", size=5, sha256=SHA256)
        uploads.advance(c, upload.id, 5, complete=True)
        dataset = datasets.create(c, owner_id=owner_id, name="mine", format={"type": "npz"}, upload=upload)
    assert dataset is not None
    return dataset


def ready(database: Database, owner_id: str | None = None) -> Dataset:
    dataset = registered(database, owner_id)
    with database.write() as c:
        datasets.accept(c, dataset.id, content=CONTENT, num_bytes=7000, report={"findings": []})
        found = datasets.get(c, dataset.id)
    assert found is not None
    return found


def spec_on(dataset: Dataset) -> TrainingSpec:
    return TrainingSpec.model_validate(
        {
            "dataset": {"type": "registered", "id": dataset.id, "content": CONTENT},
            "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 2}]},
            "optimizer": {"type": "sgd"},
            "training": {"batch_size": 10},
        }
    )


def test_an_upload_is_found_again_by_its_owner_alone(database: Database) -> None:
    with database.write() as c:
        first, is_new = uploads.create(c, owner_id="k1", filename=None, size=5, sha256=SHA256)
        assert is_new
        assert uploads.create(c, owner_id="k1", filename="x", size=5, sha256=SHA256) == (
            uploads.existing(c, first.id), False,
        )  # fmt: skip
        others = [("k2", 5, SHA256), (None, 5, SHA256), ("k1", 6, SHA256), ("k1", 5, "cd" * 32)]
        for owner_id, size, sha256 in others:
            assert uploads.create(c, owner_id=owner_id, filename=None, size=size, sha256=sha256)[1]
        assert uploads.create(c, owner_id=None, filename=None, size=5, sha256=SHA256)[1] is False
        assert uploads.outstanding(c) == 5 + 5 + 5 + 6 + 5
        uploads.advance(c, first.id, 3, complete=False)
        assert uploads.outstanding(c) == 23
        assert uploads.stored(c, "k1") == 16


def test_expired_uploads_go_unless_a_dataset_is_read_from_them(database: Database) -> None:
    dataset = registered(database)
    with database.write() as c:
        other, _ = uploads.create(c, owner_id=None, filename=None, size=9, sha256=SHA256)
        kept, _ = uploads.create(c, owner_id=None, filename=None, size=10, sha256=SHA256)
        assert uploads.remove_expired(c) == []
        past = datetime.now(UTC) - timedelta(seconds=1)
        c.execute(update(dataset_tables.uploads).where(dataset_tables.uploads.c.id != kept.id).values(expires_at=past))
        assert uploads.in_use(c, dataset.upload_id)
        assert uploads.remove_expired(c) == [other.id]
        datasets.refuse(c, dataset.id, {"findings": []})
        assert not uploads.in_use(c, dataset.upload_id)
        assert uploads.remove_expired(c) == [dataset.upload_id]
        assert uploads.get(c, kept.id) is not None


def test_a_dataset_is_not_made_of_an_upload_that_has_gone(database: Database) -> None:
    with database.write() as c:
        upload, _ = uploads.create(c, owner_id=None, filename=None, size=5, sha256=SHA256)
        uploads.remove(c, upload.id)
        assert datasets.create(c, owner_id=None, name="x", format={}, upload=upload) is None
        assert uploads.advance(c, upload.id, 5, complete=True) is None


def test_the_life_of_a_dataset(database: Database) -> None:
    dataset = registered(database)
    assert (dataset.status, dataset.attempts) == (DatasetStatus.VALIDATING, 0)
    with database.write() as c:
        assert datasets.validating(c) == [dataset.id]
        begun = datasets.begin(c, dataset.id)
        assert begun is not None
        assert begun.attempts == 1
        datasets.give_back(c, dataset.id)
        assert datasets.begin(c, dataset.id) == begun
        datasets.accept(c, dataset.id, content=CONTENT, num_bytes=7000, report={"findings": []})
        accepted = datasets.get(c, dataset.id)
        assert accepted is not None
        assert (accepted.status, accepted.digest, accepted.content) == ("ready", CONTENT["digest"], CONTENT)
        datasets.refuse(c, dataset.id, {"findings": ["late"]})
        assert datasets.get(c, dataset.id) == accepted
        assert datasets.begin(c, dataset.id) is None
        assert datasets.validating(c) == []
        assert datasets.stored(c, None) == 7000


def test_pages_by_owner_and_status(database: Database) -> None:
    mine = [registered(database, "k1").id, ready(database, "k1").id]
    other = ready(database, "k2").id
    with database.read() as c:
        assert [d.id for d in datasets.page(c, limit=10)] == sorted([*mine, other], reverse=True)
        assert {d.id for d in datasets.page(c, limit=10, owner_id="k1")} == set(mine)
        (newest,) = datasets.page(c, limit=1)
        assert len(datasets.page(c, limit=10, before=newest.id)) == 2
        assert [d.id for d in datasets.page(c, limit=10, owner_id="k1", statuses=[DatasetStatus.READY])] == [mine[1]]


def test_a_dataset_stays_while_a_job_that_has_not_ended_needs_it(database: Database) -> None:
    dataset = ready(database)
    with database.write() as c:
        job = jobs.create(c, spec=spec_on(dataset), name=None)
        assert (job.dataset_id, job.dataset_digest) == (dataset.id, CONTENT["digest"])
        with pytest.raises(DatasetInUse, match=job.id):
            datasets.remove(c, dataset.id)
        claimed = attempts.claim(c, worker_id="w", device="cpu")
        assert claimed is not None
        with pytest.raises(DatasetInUse):
            datasets.remove(c, dataset.id)
        attempts.finish(c, job.id, claimed.token, JobStatus.CANCELLED, reason="cancelled")
        assert datasets.remove(c, dataset.id) == CONTENT["digest"]
        ended = jobs.get(c, job.id)
        assert ended is not None
        assert (ended.dataset_id, ended.dataset_digest) == (dataset.id, CONTENT["digest"])


def test_equal_arrays_are_needed_until_the_last_dataset_goes(database: Database) -> None:
    first, second, refused = ready(database, "k1"), ready(database, "k2"), registered(database)
    with database.write() as c:
        datasets.refuse(c, refused.id, {})
        assert datasets.remove(c, refused.id) is None
        assert datasets.remove(c, first.id) is None
        assert datasets.remove(c, second.id) == CONTENT["digest"]


def test_sheets_are_drawn_once_and_go_with_their_dataset(database: Database) -> None:
    dataset = ready(database)
    with database.write() as c:
        sheet = datasets.want_sheet(c, key="k", dataset_id=dataset.id, spec={"a": 1})
        assert datasets.want_sheet(c, key="k", dataset_id=dataset.id, spec={"a": 1}) == sheet
        assert datasets.waiting_sheets(c) == [sheet]
        datasets.finish_sheet(c, "k", "cannot")
        assert datasets.waiting_sheets(c) == []
        assert datasets.want_sheet(c, key="k", dataset_id=dataset.id, spec={"a": 1}).error == "cannot"
        c.execute(update(dataset_tables.sheets).values(finished_at=datetime.now(UTC) - timedelta(hours=2)))
        assert datasets.want_sheet(c, key="k", dataset_id=dataset.id, spec={"a": 1}).error is None
        datasets.remove(c, dataset.id)
        assert datasets.waiting_sheets(c) == []
