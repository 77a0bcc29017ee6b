from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from cnn.spec import TrainingSpec
from worker.store import idempotency, jobs
from worker.store.database import Database
from worker.store.idempotency import KeptAnswer


def test_of_many_at_once_one_does_the_work_and_all_get_its_answer(database: Database, spec: TrainingSpec) -> None:
    together = threading.Barrier(8)

    def request(_: int) -> str:
        together.wait(10)
        with database.write() as c:
            kept = idempotency.take(c, owner="o", key="k", request_digest="d")
            if kept is not None:
                return kept.body
            body = jobs.create(c, spec=spec, name=None).id
            idempotency.keep(c, owner="o", key="k", status_code=201, headers={"A": "b"}, body=body)
            return body

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(request, range(8)))
    with database.write() as c:
        assert answers == {job.id for job in jobs.page(c, limit=10)}
        [body] = answers
        kept = idempotency.take(c, owner="o", key="k", request_digest="other")
        assert kept == KeptAnswer(request_digest="d", status_code=201, headers={"A": "b"}, body=body)
        assert idempotency.take(c, owner="somebody else", key="k", request_digest="d") is None


def test_a_failed_transaction_gives_the_key_back(database: Database) -> None:
    for _ in range(2):
        try:
            with database.write() as c:
                assert idempotency.take(c, owner="o", key="k", request_digest="d") is None
                raise KeyError
        except KeyError:
            continue
