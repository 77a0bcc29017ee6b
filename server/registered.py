"""Registered datasets in specs: what a client names by its id, the server knows the content of."""

from __future__ import annotations

import re

from fastapi import Depends, Request
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from cnn.datasets import Registered
from cnn.spec import TrainingSpec
from server.auth import Caller, CallerOf
from server.errors import DatasetNotFound, InvalidRequest
from server.schemas import ErrorItem
from server.services import ServicesOf
from server.wording import quoted
from worker.store import datasets
from worker.store.database import Database
from worker.store.datasets import Dataset, DatasetStatus

DATASET_ID = re.compile(r"ds_[0-9a-z]{26}")


def find_dataset(c: Connection, dataset_id: str, caller: Caller) -> Dataset:
    """The dataset with this id, if it exists for the caller.

    Raises:
        DatasetNotFound: there is none.
    """
    dataset = datasets.get(c, dataset_id) if DATASET_ID.fullmatch(dataset_id) else None
    if dataset is None or not caller.sees(dataset.owner_id):
        raise DatasetNotFound(f"expected the id of a dataset, got {quoted(dataset_id)}")
    return dataset


async def _fill_in(request: Request, services: ServicesOf, caller: CallerOf) -> None:
    """Write the dataset's content into the body that came, before the body is validated."""
    match getattr(request.state, "body", None):
        case {"spec": {"dataset": {"type": "registered", "id": str(dataset_id)} as sent}}:
            dataset = await run_in_threadpool(_get, services.database, dataset_id)
            sent["content"] = None
            if dataset is not None and caller.sees(dataset.owner_id):
                sent["content"] = dataset.content


def _get(database: Database, dataset_id: str) -> Dataset | None:
    with database.read() as c:
        return datasets.get(c, dataset_id)


FILLS_IN_DATASETS = Depends(_fill_in)
"""For routes whose body has a `spec`: only then can its network be checked against shape and classes."""


def check_dataset(c: Connection, spec: TrainingSpec) -> None:
    """A registered dataset must still be there, and stays until the transaction ends.

    Raises:
        InvalidRequest: it has been deleted meanwhile.
    """
    if not isinstance(spec.dataset, Registered):
        return
    dataset = datasets.get(c, spec.dataset.id, keep=True)
    if dataset is not None and dataset.status == DatasetStatus.READY:
        return
    message = f"expected the id of a dataset that is ready, got {quoted(spec.dataset.id)}"
    item: ErrorItem = {"pointer": "/spec/dataset/id", "code": "dataset_missing", "message": message}
    raise InvalidRequest(f"{item['pointer']}: {message}", errors=[item])
