from __future__ import annotations

from typing import Any

import pytest

from worker.endings import Cancelled, Crashed, Drained, Failed, Paused, Stop, Succeeded, classify
from worker.memory import Shortage
from worker.store.attempts import UNSEEN, Exit

RESULT = {"type": "result"}
STOPPED = {"type": "stopped", "epoch": 1, "step": 3}
ERROR = {"type": "error", "code": "diverged", "message": "step 3", "blame": "user", "hint": "lower lr"}
NOTHING: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("exit", "last", "stop", "ending"),
    [
        (Exit(exit_code=0), RESULT, None, Succeeded),
        # It was faster than the request to stop.
        (Exit(exit_code=0), RESULT, Stop.CANCEL, Succeeded),
        (Exit(exit_code=0), RESULT, Stop.DRAIN, Succeeded),
        # A result counts only together with the exit that says that all of it is there.
        (Exit(signal=9), RESULT, None, Crashed),
        (Exit(exit_code=75), STOPPED, Stop.CANCEL, Cancelled),
        (Exit(signal=9), NOTHING, Stop.CANCEL, Cancelled),
        (Exit(exit_code=1), ERROR, Stop.CANCEL, Cancelled),
        (Exit(exit_code=75), STOPPED, Stop.DRAIN, Drained),
        (Exit(signal=9), NOTHING, Stop.DRAIN, Drained),
        (Exit(exit_code=75), STOPPED, Stop.PAUSE, Paused),
        (Exit(signal=9), NOTHING, Stop.PAUSE, Paused),
        (Exit(exit_code=0), RESULT, Stop.PAUSE, Succeeded),
        (Exit(exit_code=1), ERROR, Stop.PAUSE, Failed),
        # It would diverge elsewhere too.
        (Exit(exit_code=1), ERROR, Stop.DRAIN, Failed),
        (Exit(exit_code=1), ERROR, None, Failed),
        # Nobody asked it to stop.
        (Exit(exit_code=75), STOPPED, None, Crashed),
        (Exit(exit_code=0), NOTHING, None, Crashed),
        (Exit(exit_code=3), NOTHING, None, Crashed),
        (Exit(signal=11), NOTHING, None, Crashed),
    ],
)
def test_the_end_of_a_trainer(exit: Exit, last: dict[str, Any], stop: Stop | None, ending: type) -> None:
    assert type(classify(exit, last, stop, ())) is ending


def test_a_reported_error_keeps_its_words() -> None:
    ending = classify(Exit(exit_code=1), ERROR, None, ("last line",))
    assert isinstance(ending, Failed)
    assert (ending.error.code, ending.error.message, ending.error.hint) == ("diverged", "step 3", "lower lr")
    assert (ending.error.blame, ending.error.retryable, ending.error.log_tail) == ("user", False, ("last line",))


def test_a_signal_is_named() -> None:
    ending = classify(Exit(signal=9), {}, None, ())
    assert isinstance(ending, Crashed)
    assert ending.error.code == "killed_by_signal"
    assert "signal 9 (SIGKILL)" in ending.error.message


def test_a_trainer_that_the_kernel_killed_for_lack_of_memory_says_what_fits() -> None:
    shortage = Shortage("predicted were 9 MB", "training.batch_size 2 would fit", proven=True)
    ending = classify(Exit(signal=9), {}, None, (), shortage)
    assert isinstance(ending, Crashed)
    assert (ending.error.code, ending.error.blame) == ("out_of_memory", "capacity")
    assert ending.error.message.endswith("lack of memory; predicted were 9 MB")
    assert ending.error.hint == "training.batch_size 2 would fit"
    other = classify(Exit(signal=11), {}, None, (), shortage)
    assert isinstance(other, Crashed)
    assert other.error.code == "killed_by_signal"


def test_a_lack_of_memory_that_is_not_proven_is_said_as_a_doubt() -> None:
    shortage = Shortage("predicted were 9 MB", "training.batch_size 2 would fit", proven=False)
    ending = classify(Exit(signal=9), {}, None, (), shortage)
    assert isinstance(ending, Crashed)
    assert (ending.error.code, ending.error.blame, ending.error.hint) == ("killed_by_signal", "platform", shortage.hint)
    assert "perhaps for lack of memory" in ending.error.message


def test_an_end_that_nobody_saw_is_said() -> None:
    ending = classify(UNSEEN, {}, None, ())
    assert isinstance(ending, Crashed)
    assert (ending.error.code, ending.error.retryable) == ("trainer_crashed", True)
    assert "launcher" in ending.error.message


def test_an_exit_code_is_named() -> None:
    ending = classify(Exit(exit_code=3), {}, None, ("Traceback", "ValueError"))
    assert isinstance(ending, Crashed)
    assert (ending.error.code, ending.error.log_tail) == ("trainer_crashed", ("Traceback", "ValueError"))
    assert "exit code 3" in ending.error.message
