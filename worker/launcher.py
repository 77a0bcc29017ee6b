"""`python -m worker.launcher`: the warm process that forks trainers, so that none of them has to import torch.

It has one thread, never computes and never asks about CUDA: after threaded computing a fork hangs, and after a question
to CUDA its children cannot use any.

Descriptor 3 is a socket to the worker. Each message on it asks for one trainer, with its environment as JSON and four
descriptors: its input, its log, its events, and a tie to the worker. On the tie the trainer says `pid <n>`, and the
launcher later `exit <code>`, negative for a signal. As long as the worker keeps its end, the trainer that has ended
stays a zombie, so that its process group is nobody else's; when that end is closed, the group is killed. The launcher
ends with its worker.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import torch._dynamo  # noqa: F401  (the first optimizer would import it)
import torchmetrics.functional.classification  # noqa: F401
import torchvision.models  # noqa: F401

import cnn.formats
import cnn.gan
import cnn.native.network
import cnn.nn
import cnn.optim
import cnn.training
import cnn.transforms
from worker import trainer
from worker.settings import replace_environment

PACKAGES = (cnn.formats, cnn.gan, cnn.nn, cnn.optim, cnn.transforms)
"""What families import when they build something; what else a trainer needs comes with `cnn.training`."""
CONTROL = 3
MAX_ORDER_BYTES = 256 * 1024
READY = b"ready"


@dataclass
class Order:
    """A trainer that the worker wants."""

    environment: dict[str, str]
    stdin: int
    log: int
    events: int
    tie: socket.socket

    def close(self) -> None:
        for descriptor in (self.stdin, self.log, self.events):
            os.close(descriptor)


@dataclass
class Child:
    """A trainer that was forked; it is reaped when it has ended and the worker has let go of its tie."""

    pid: int
    pidfd: int
    tie: socket.socket
    ended: bool = False
    released: bool = False

    def close(self) -> None:
        os.close(self.pidfd)
        self.tie.close()


class Launcher:
    """Forks a trainer for each order that arrives."""

    def __init__(self, worker: socket.socket) -> None:
        self._worker = worker
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(worker, selectors.EVENT_READ)

    def serve(self) -> Order | None:
        """Work until the worker is gone. In a forked trainer it returns too, with what was ordered."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._worker:
                    order = _receive(self._worker)
                    if order is None:
                        self._kill_all()
                        return None
                    if self._fork(order):
                        return order
                else:
                    self._attend(key.data, ended=key.fd == key.data.pidfd)

    def close(self) -> None:
        """Close what belongs to the launcher, in itself or in a forked trainer."""
        self._selector.close()
        self._worker.close()
        for child in self._children:
            child.close()

    def _fork(self, order: Order) -> bool:
        """Whether this is the trainer now."""
        if _is_closed(order.tie):  # the worker did not want to wait so long
            order.close()
            order.tie.close()
            return False
        pid = os.fork()
        if pid == 0:
            return True
        order.close()
        child = Child(pid, os.pidfd_open(pid), order.tie)
        self._children.append(child)
        for ending in (child.pidfd, child.tie):
            self._selector.register(ending, selectors.EVENT_READ, child)
        return False

    def _attend(self, child: Child, *, ended: bool) -> None:
        """The child has ended, or the worker has let go of it."""
        if ended:
            child.ended = True
            self._selector.unregister(child.pidfd)
            with suppress(BrokenPipeError):
                child.tie.send(f"exit {_exit_code(child.pid)}".encode())
        else:
            child.released = True
            self._selector.unregister(child.tie)
            _kill_group(child.pid)
        if child.ended and child.released:
            child.close()
            self._children.remove(child)
            os.waitpid(child.pid, 0)  # last: who sees the process gone finds nothing of it here

    def _kill_all(self) -> None:
        for child in self._children:
            _kill_group(child.pid)


def main() -> None:
    for package in PACKAGES:
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    gc.collect()
    gc.freeze()  # the collector of a trainer need not write to pages that all of them share
    _call_itself("epochd-launcher")
    with socket.socket(fileno=CONTROL) as worker:
        with suppress(BrokenPipeError):  # that it is gone already is seen below
            worker.send(READY)
        launcher = Launcher(worker)
        order = launcher.serve()
        launcher.close()
    if order is not None:
        _become(order)
        trainer.main()


def _become(order: Order) -> None:
    """Turn this fork into what a fresh `python -m worker.trainer` finds at its start."""
    os.setsid()
    _call_itself("epochd-trainer")
    replace_environment(order.environment)
    for descriptor, target in ((order.stdin, 0), (order.log, 1), (order.log, 2), (order.events, trainer.EVENTS)):
        os.dup2(descriptor, target)  # none of the first is among the second: 0 to 3 were taken when they arrived
    order.close()
    with order.tie:
        order.tie.send(f"pid {os.getpid()}".encode())


def _call_itself(name: str) -> None:
    """Give the process a name of at most 15 characters, for `ps` and `top`."""
    Path("/proc/self/comm").write_text(name)


def _receive(worker: socket.socket) -> Order | None:
    """The next order; None when the worker is gone."""
    message, descriptors, _, _ = socket.recv_fds(worker, MAX_ORDER_BYTES, 4)
    if not message:
        return None
    stdin, log, events, tie = descriptors
    return Order(json.loads(message), stdin, log, events, socket.socket(fileno=tie))


def _is_closed(tie: socket.socket) -> bool:
    try:
        return not tie.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _exit_code(pid: int) -> int:
    """The exit code of a process that has ended, negative for a signal; it stays a zombie."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
