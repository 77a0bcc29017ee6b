from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import alive, descendants, wait_until
from tests.worker.trainers import POLITE, STUBBORN, WITH_GRANDCHILDREN, program
from worker.process import TrainerProcess
from worker.starters import FreshStarter, StartFailed
from worker.store.attempts import Exit

PATH = {"PATH": os.environ["PATH"]}


def start(tmp_path: Path, body: str, request: dict[str, Any] | None = None) -> TrainerProcess:
    return TrainerProcess(
        FreshStarter(program(body)), environment=PATH, log=tmp_path / "log.txt", attempt=1, request=request or {}
    )


def received(trainer: TrainerProcess) -> list[dict[str, Any]]:
    messages = trainer.take()
    assert all(message.pop("at") for message in messages)
    return messages


def test_request_messages_log_and_exit_code_arrive(tmp_path: Path) -> None:
    body = """
send("environment", value=dict(os.environ))
send("request", value=request)
print("to stdout", flush=True)
print("to stderr", file=sys.stderr)
os._exit(7)
"""
    request = {"spec": "x" * 1_000_000}
    with start(tmp_path, body, request) as trainer:
        assert trainer.wait(20)
    environment, echoed = received(trainer)
    assert echoed["value"] == request
    assert environment["value"].keys() - {"LC_CTYPE"} == {"PATH"}
    assert trainer.exit == Exit(exit_code=7)
    assert (tmp_path / "log.txt").read_text().splitlines()[1:] == ["to stdout", "to stderr"]


def test_whoever_listens_hears_each_message_and_the_end(tmp_path: Path) -> None:
    with start(tmp_path, 'send("first"); sys.stdin.readline(); send("second")') as trainer:
        for told in ("first", "second"):
            while not (messages := received(trainer)):
                trainer.hear(60)
            assert messages == [{"type": told}]
        trainer.hear(60)
        assert trainer.wait(0)
        trainer.hear(60)


def test_a_signal_is_the_exit(tmp_path: Path) -> None:
    with start(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)") as trainer:
        assert trainer.wait(20)
    assert trainer.exit == Exit(signal=signal.SIGSEGV)


def test_it_is_pinged_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.process.PING_SECONDS", 0.05)
    with start(tmp_path, 'assert [sys.stdin.readline() for _ in range(3)] == ["ping\\n"] * 3') as trainer:
        assert trainer.wait(20)
    assert trainer.exit == Exit(exit_code=0)


def test_what_is_not_a_whole_line_of_json_is_dropped(tmp_path: Path) -> None:
    body = """
os.write(3, b"not json\\n")
send("last")
os.write(3, b'{"type": "cut of')
os.kill(os.getpid(), signal.SIGKILL)
"""
    with start(tmp_path, body) as trainer:
        assert trainer.wait(20)
    assert received(trainer) == [{"type": "last"}]


def test_leaving_kills_a_trainer_that_ignores_sigterm(tmp_path: Path) -> None:
    with start(tmp_path, STUBBORN) as trainer:
        wait_until(lambda: bool(trainer.take()))
        trainer.terminate()
        assert not trainer.wait(0.5)
    assert trainer.exit == Exit(signal=signal.SIGKILL)
    assert not alive({trainer.pid})


def test_sigterm_lets_a_trainer_end_by_itself(tmp_path: Path) -> None:
    with start(tmp_path, POLITE) as trainer:
        wait_until(lambda: bool(trainer.take()))
        trainer.terminate()
        assert trainer.wait(10)
    assert trainer.exit == Exit(exit_code=75)
    assert received(trainer)[-1]["type"] == "stopped"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_its_grandchildren_end_with_it_though_they_hold_its_pipe(tmp_path: Path, how: signal.Signals) -> None:
    with start(tmp_path, WITH_GRANDCHILDREN) as trainer:
        wait_until(lambda: bool(trainer.take()))
        family = descendants(trainer.pid) | {trainer.pid}
        assert len(family) >= 3
        os.kill(trainer.pid, how)
        assert trainer.wait(10)
        wait_until(lambda: not alive(family))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with start(tmp_path, "pass") as trainer:
            assert trainer.wait(20)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_program_that_does_not_exist_is_an_error_and_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StartFailed, match="No such file"):
        TrainerProcess(FreshStarter(["/missing"]), environment={}, log=tmp_path / "log.txt", attempt=1, request={})
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_trainer_whose_messages_can_wait_nowhere_waits_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.spool.MAX_LINES_IN_MEMORY", 1)
    monkeypatch.setattr("worker.spool.MAX_BYTES_ON_DISK", 1000)
    monkeypatch.setattr("worker.process.PING_SECONDS", 0.05)
    body = """
for number in range(300):
    send("filler", number=number, padding="x" * 1000)
"""
    with start(tmp_path, body) as trainer:
        assert not trainer.wait(1.5)
        found: list[dict[str, Any]] = []
        while not trainer.wait(0.05):
            found += trainer.take()
        while taken := trainer.take():
            found += taken
    assert trainer.exit == Exit(exit_code=0)
    assert [message["number"] for message in found] == list(range(300))
