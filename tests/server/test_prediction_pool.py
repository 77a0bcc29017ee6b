"""The processes behind predictions: kept, replaced, limited, and gone with whoever asked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from server.prediction.pool import COMMAND, Limits, Model, Pool, PoolFull, ProcessFailed, Question
from tests.integration.processes import descendants
from tests.server.predicting import picture, trained
from tests.server.seeding import SPEC

pytestmark = pytest.mark.anyio

LIMITS = Limits(processes=2, idle=60)
STUBBORN = (sys.executable, "-c", "import time; print('{}', flush=True); time.sleep(100)")
CRASHING = (sys.executable, "-c", "import os; print('{}', flush=True); input(); os.abort()")
TELLING = (
    sys.executable,
    "-c",
    "import json, os, sys; print('{}', flush=True)\n"
    "for line in sys.stdin: print(json.dumps({'pid': os.getpid(), 'environment': sorted(os.environ)}), flush=True)",
)
"""Take a question without a body."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """The same network under three names."""
    folder = tmp_path_factory.mktemp("trained")
    files = trained({**SPEC, "training": {"epochs": 1}}, folder / "artifacts", folder / "data")
    for number in range(3):
        (folder / f"network-{number}").write_bytes(files["model.onnx"])
    (folder / "labels").write_bytes(files["labels.json"])
    return [Model(folder / f"network-{number}", folder / "labels") for number in range(3)]


@pytest.fixture
async def pool() -> AsyncIterator[Callable[..., Pool]]:
    pools: list[Pool] = []

    def make(limits: Limits = LIMITS, *command: str) -> Pool:
        pools.append(Pool(limits, command) if command else Pool(limits))
        return pools[-1]

    yield make
    for one in pools:
        await one.close()
        assert one.num_processes == 0


def question() -> Question:
    return Question(picture(np.full((1, 8, 8), 100, np.uint8)), "image/png", 3, False)


EMPTY = Question(b"", "image/png", 1, False)


def children() -> set[int]:
    return set(descendants(os.getpid()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_process_stays_for_the_next_question(pool: Callable[..., Pool], models: list[Model]) -> None:
    made = pool()
    first, waited = await made.ask(models[0], question())
    for _ in range(5):
        again, less = await made.ask(models[0], question())
        assert again["data"] == first["data"]
        assert less < waited
    assert (made.num_starts, made.num_processes, made.num_images, made.num_failures) == (1, 1, 6, 0)
    assert made.num_answers == 6
    assert made.seconds > waited


async def test_the_one_that_was_asked_longest_ago_makes_room(pool: Callable[..., Pool], models: list[Model]) -> None:
    made = pool()
    for model, num_starts in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):
        await made.ask(models[model], question())
        assert (made.num_starts, made.num_processes) == (num_starts, min(2, num_starts))


async def test_one_model_answers_many_at_once_by_one_process(pool: Callable[..., Pool], models: list[Model]) -> None:
    made = pool()
    answers = await asyncio.gather(*(made.ask(models[number % 2], question()) for number in range(12)))
    assert len({json.dumps(answer["data"]) for answer, _ in answers}) == 1
    assert (made.num_starts, made.num_processes, made.num_images) == (2, 2, 12)


async def test_nobody_asks_and_it_ends(pool: Callable[..., Pool], models: list[Model]) -> None:
    before = children()
    made = pool(replace(LIMITS, idle=0.2))
    await made.ask(models[0], question())
    await until(lambda: made.num_processes == 0)
    assert children() == before
    await made.ask(models[0], question())
    assert made.num_starts == 2


async def test_one_that_was_killed_is_replaced(pool: Callable[..., Pool], models: list[Model]) -> None:
    before = children()
    made = pool()
    await made.ask(models[0], question())
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while made.num_starts == 1:
            with suppress(ProcessFailed):  # of a question that comes before the news
                await made.ask(models[0], question())
    assert (made.num_starts, made.num_processes) == (2, 1)
    assert made.num_failures <= 1
    assert pid not in children()


async def test_one_that_does_not_answer_in_time_is_killed(pool: Callable[..., Pool], models: list[Model]) -> None:
    before = children()
    made = pool(replace(LIMITS, answer=1), *STUBBORN)
    with pytest.raises(ProcessFailed, match="was not done within 1 s"):
        await made.ask(models[0], EMPTY)
    assert (made.num_processes, made.num_failures, children()) == (0, 1, before)


async def test_one_that_crashes_is_told_of_and_the_next_one_is_new(
    pool: Callable[..., Pool], models: list[Model]
) -> None:
    made = pool(LIMITS, *CRASHING)
    for number in (1, 2):
        with pytest.raises(ProcessFailed, match=f"ended with -{signal.SIGABRT.value}"):
            await made.ask(models[0], EMPTY)
        assert (made.num_starts, made.num_failures, made.num_processes) == (number, number, 0)


async def test_what_cannot_be_loaded_or_started_is_told(
    pool: Callable[..., Pool], models: list[Model], tmp_path: Path
) -> None:
    (tmp_path / "damaged").write_bytes(b"no network")
    for model in (Model(tmp_path / "damaged", models[0].labels), Model(tmp_path / "absent", models[0].labels)):
        with pytest.raises(ProcessFailed, match="ended with 1"):
            await pool().ask(model, question())
    with pytest.raises(ProcessFailed, match="no process can be started"):
        await pool(LIMITS, str(tmp_path / "no-program")).ask(models[0], question())


async def test_a_question_waits_for_a_process_but_not_for_long(pool: Callable[..., Pool], models: list[Model]) -> None:
    made = pool(Limits(processes=1, idle=60, wait=0.3, answer=20), *STUBBORN)
    slow = asyncio.create_task(made.ask(models[0], EMPTY))
    await until(lambda: made.num_processes == 1)
    for model in models[:2]:
        with pytest.raises(PoolFull, match=r"no process was free for 0\.3 s"):
            await made.ask(model, EMPTY)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert made.num_processes == 0  # it was in the middle of a question that nobody waits for


async def test_only_so_many_questions_are_let_in(pool: Callable[..., Pool]) -> None:
    made = pool(replace(LIMITS, questions=2))
    refused = pytest.raises(PoolFull, match="at most 2 requests at once")
    with made.admission(), made.admission(), refused, made.admission():
        pass
    with made.admission():
        pass


async def test_a_process_knows_no_secrets(
    pool: Callable[..., Pool], models: list[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHD_DATABASE_URL", "postgresql://user:password@host/db")
    answer, _ = await pool(LIMITS, *TELLING).ask(models[0], EMPTY)
    assert "PATH" in answer["environment"]
    assert not [name for name in answer["environment"] if name.startswith("EPOCHD")]


async def test_no_image_takes_more_memory_than_a_process_may_have(
    pool: Callable[..., Pool], models: list[Model]
) -> None:
    """The limit of the address space is there, and decoding the largest image that is allowed stays below it."""
    before = children()
    made = pool()
    largest = picture(np.zeros((3, 7000, 7000), np.uint8), "jpeg")
    answer, _ = await made.ask(models[0], Question(largest, "image/jpeg", 1, False))
    assert answer["data"][0]["height"] == 7000
    (pid,) = children() - before
    limits = Path(f"/proc/{pid}/limits").read_text()
    (soft,) = [int(line.split()[3]) for line in limits.splitlines() if line.startswith("Max address space")]
    assert 2**31 <= soft < 2**32


async def started(model: Model) -> asyncio.subprocess.Process:
    """A process as the pool starts it."""
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, str(model.network), str(model.labels)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline()) == {"ready": True}
    return process


async def test_it_ends_with_the_api(models: list[Model]) -> None:
    """Whose end is the end of its input, also when nothing could be cleaned up."""
    process = await started(models[0])
    process.send_signal(signal.SIGINT)  # a Ctrl-C is for the API
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0


async def test_it_gives_itself_up_when_its_time_is_over(models: list[Model]) -> None:
    """In the middle of a decoder, and though nobody looks."""
    largest = picture(np.zeros((3, 7000, 7000), np.uint8), "jpeg")
    form = httpx.Request("POST", "http://x", files=[("image", (str(n), largest)) for n in range(20)])
    body = form.read()
    head = {
        "num_bytes": len(body),
        "seconds": 1,
        "content_type": form.headers["content-type"],
        "top_k": 1,
        "layout": None,
    }
    process = await started(models[0])
    assert process.stdin is not None
    process.stdin.write(json.dumps({**head, "mirror": False}).encode() + b"\n" + body)
    assert await process.wait() == -signal.SIGALRM
