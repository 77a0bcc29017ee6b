"""An installation that nobody disturbs keeps every promise, and the checks see each promise that is broken by hand."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing

from cnn.spec import TrainingSpec
from tests.faults.conftest import Settle, Start
from tests.faults.installation import Installation
from tests.faults.invariants import violations
from tests.faults.reference import Outcome
from tests.integration.processes import wait_until
from worker.logs import log_path
from worker.store.database import Database

COPY = "DROP TABLE IF EXISTS temp.copy; CREATE TEMP TABLE copy AS SELECT * FROM"
BREAKS = {
    "I1": "UPDATE jobs SET status = 'queued', result = NULL, finished_at = NULL",
    "I2": "UPDATE jobs SET name = '05-adam/of nobody'",
    "I3": f"{COPY} jobs; UPDATE copy SET id = 'job_2'; INSERT INTO jobs SELECT * FROM copy",
    "I4": "UPDATE attempts SET ended_at = NULL, reason = NULL",
    "I5": "UPDATE attempts SET token = token + 1",
    "I6": "UPDATE artifacts SET bytes = bytes + 1",
    "I7": "INSERT INTO metrics (job_id, key, step, epoch, timing, at) "
    "SELECT id, 'val_loss', 7777, 1, false, created_at FROM jobs",
    "I8": "DELETE FROM events WHERE id = 2",
    "I9": "UPDATE workers SET slots = 0",
    "I11": ";".join(
        f"{COPY} attempts WHERE number = 1; UPDATE copy SET number = {n}, reason = 'worker_lost'; "
        "INSERT INTO attempts SELECT * FROM copy"
        for n in (2, 3, 4, 5, 6)
    ),
    "I12": "UPDATE metrics SET value = value + 1e-9 WHERE key = 'val_loss' AND step = (SELECT min(step) FROM metrics)",
}


def test_an_undisturbed_installation_keeps_every_promise(
    start: Start, mix: dict[str, TrainingSpec], expected: dict[str, Outcome], settle: Settle
) -> None:
    installation = start()
    job_id = installation.submit("05-adam/broken later", mix["05-adam"])
    settle(installation)
    seen = {number: broken(installation, statement, expected) for number, statement in BREAKS.items()}
    assert seen == {number: True for number in BREAKS}
    with log_path(installation.data_dir, job_id).open("a") as log:
        left = subprocess.Popen(["sleep", "60"], stdout=log)
    wait_until(lambda: f"I10: process {left.pid} of {job_id} is left" in violations(installation, expected))
    left.kill()
    left.wait()


def broken(installation: Installation, statement: str, expected: dict[str, Outcome]) -> bool:
    """Whether a change of a copy of the database is seen as what it breaks."""
    (number,) = [number for number, known in BREAKS.items() if known == statement]
    copy = installation.folder / f"{number}.db"
    original = installation.database
    with closing(sqlite3.connect(installation.data_dir / "epochd.db")) as source, closing(sqlite3.connect(copy)) as to:
        source.backup(to)
        to.execute("PRAGMA ignore_check_constraints = ON")
        to.executescript(statement)
    installation.database = Database(f"sqlite:///{copy}")
    try:
        return any(sentence.startswith(f"{number}:") for sentence in violations(installation, expected))
    finally:
        installation.database.close()
        installation.database = original
