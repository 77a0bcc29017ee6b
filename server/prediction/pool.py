"""Keeps the processes that answer predictions: each has one model, and those that were asked last stay warm.

All of this runs in the event loop of the API, which itself never looks into an image.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.prediction_schemas import Layout
from worker.settings import trainer_environment

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "server.prediction.process")
MAX_ANSWER_BYTES = 2**26
ALARM_SECONDS = 5
"""How much later than we a process gives itself up, for the case that nobody is left to do it."""


class PoolFull(Exception):
    """More is asked than can be answered soon."""


class ProcessFailed(Exception):
    """A process gave no answer; the message says why."""


@dataclass(frozen=True)
class Model:
    """The files that a process loads; their names change with their content."""

    network: Path
    labels: Path


@dataclass(frozen=True)
class Question:
    """Images as the body of a request, and what is wanted of them."""

    body: bytes
    content_type: str
    top_k: int
    mirror: bool
    layout: Layout | None = None
    """Axes of arrays; None to tell them by the network's images."""


@dataclass(frozen=True)
class Limits:
    """How many processes there are at most, and seconds after which something ends."""

    processes: int
    idle: float
    """A process that nobody asks."""
    wait: float = 10.0
    """The patience of a question for which no process is free."""
    start: float = 60.0
    """The start of a process."""
    answer: int = 30
    """The work of a process at one question."""
    questions: int = 16
    """How many there are at once, with their bodies in memory."""


class Pool:
    """Answers questions, each by the process of its model.

    Args:
        command: starts a process, when the paths of the model's files are added.
    """

    def __init__(self, limits: Limits, command: Sequence[str] = COMMAND) -> None:
        self.num_images = self.num_answers = self.num_starts = self.num_failures = 0
        self.seconds = 0.0
        self._limits = limits
        self._command = command
        self._num_questions = 0
        self._processes: set[_Process] = set()
        self._idle: dict[Model, _Process] = {}
        """Those that wait, the one that was asked last at the end."""
        self._busy: set[Model] = set()
        """Models of those that answer, or are about to start."""
        self._released = asyncio.Event()
        self._sweeping = asyncio.create_task(self._sweep())

    @property
    def num_processes(self) -> int:
        return len(self._processes)

    async def close(self) -> None:
        self._sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeping
        for process in list(self._processes):
            await self._end(process)

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Held while a question is there, from before its body is read.

        Raises:
            PoolFull: there are too many.
        """
        if self._num_questions >= self._limits.questions:
            raise PoolFull(f"expected at most {self._limits.questions} requests at once")
        self._num_questions += 1
        try:
            yield
        finally:
            self._num_questions -= 1

    async def ask(self, model: Model, question: Question) -> tuple[Mapping[str, Any], float]:
        """The answer, and for how many seconds no process was ready for the question.

        Raises:
            PoolFull: all processes have had other models to answer with.
            ProcessFailed: there is no answer; what has failed is gone, and the next question gets a new process.
        """
        began = time.monotonic()
        await self._claim(model)
        process = None
        try:
            process = await self._idle_process(model) or await self._start(model)
            waited = time.monotonic() - began
            answer = await process.ask(question, self._limits.answer)
        except BaseException as error:
            if isinstance(error, ProcessFailed):
                self.num_failures += 1
                logger.warning("no prediction by model %s: %s", model.network.name, error)
            if process is not None:  # it may be in the middle of something
                await self._end(process)
            process = None
            raise
        finally:
            self._release(model, process)
        self.num_images += len(answer.get("data", ()))
        self.num_answers += 1
        self.seconds += time.monotonic() - began
        return answer, waited

    async def _claim(self, model: Model) -> None:
        """Wait until the model's process is free, or there is room to start it."""
        try:
            async with asyncio.timeout(self._limits.wait):
                while model in self._busy or len(self._busy) >= self._limits.processes:
                    self._released.clear()
                    await self._released.wait()
        except TimeoutError as error:
            raise PoolFull(f"no process was free for {self._limits.wait:g} s") from error
        self._busy.add(model)

    def _release(self, model: Model, process: _Process | None) -> None:
        self._busy.remove(model)
        if process is not None:
            process.idle_since = time.monotonic()
            self._idle[model] = process
        self._released.set()

    async def _idle_process(self, model: Model) -> _Process | None:
        """The model's process, no longer idle; None when one must be started, for which room is made."""
        process = self._idle.pop(model, None)
        if process is not None and process.has_ended:
            await self._end(process)
            process = None
        if process is None and self._idle and len(self._busy) + len(self._idle) > self._limits.processes:
            await self._end(self._idle.pop(next(iter(self._idle))))
        return process

    async def _start(self, model: Model) -> _Process:
        self.num_starts += 1
        began = time.monotonic()
        try:
            process = _Process(
                await asyncio.create_subprocess_exec(
                    *(*self._command, str(model.network), str(model.labels)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env=trainer_environment(threads=1, gpu=None),
                    limit=MAX_ANSWER_BYTES,
                )
            )
        except OSError as error:
            raise ProcessFailed(f"no process can be started: {error}") from error
        self._processes.add(process)
        try:
            await process.hear(self._limits.start)
        except BaseException:
            await self._end(process)
            raise
        seconds = time.monotonic() - began
        logger.info("model %s answers from process %d, after %.2f s", model.network.name, process.pid, seconds)
        return process

    async def _end(self, process: _Process) -> None:
        try:
            await process.end()
        finally:
            self._processes.discard(process)

    async def _sweep(self) -> None:
        """End what nobody asks."""
        while True:
            await asyncio.sleep(self._limits.idle / 4)
            for model, process in list(self._idle.items()):
                if time.monotonic() - process.idle_since > self._limits.idle and self._idle.get(model) is process:
                    del self._idle[model]
                    await self._end(process)


class _Process:
    """A process with a model."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._questions = process.stdin
        self._answers = process.stdout
        self.idle_since = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._answers.at_eof()

    async def ask(self, question: Question, seconds: int) -> Mapping[str, Any]:
        head = {
            "num_bytes": len(question.body),
            "seconds": seconds + ALARM_SECONDS,
            "content_type": question.content_type,
            "top_k": question.top_k,
            "mirror": question.mirror,
            "layout": question.layout,
        }
        self._questions.write(json.dumps(head).encode() + b"\n")
        self._questions.write(question.body)
        return await self.hear(seconds)

    async def hear(self, seconds: float) -> Mapping[str, Any]:
        """The next line, after at most this time.

        Raises:
            ProcessFailed: there is none.
        """
        try:
            async with asyncio.timeout(seconds):
                line = await self._answers.readline()
                if not line:
                    raise ProcessFailed(f"the process ended with {await self._process.wait()}")
        except TimeoutError as error:
            raise ProcessFailed(f"the process was not done within {seconds:g} s") from error
        answer: Mapping[str, Any] = json.loads(line)
        return answer

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
