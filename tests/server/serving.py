"""A real uvicorn in a thread, on a free port."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import FastAPI

from server.__main__ import Server as Uvicorn


@dataclass(frozen=True)
class Server:
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def serving(app: FastAPI) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Uvicorn(app, log_level="error")
        thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),), daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server ended before it served"
            assert time.monotonic() < deadline, "the server did not start"
            thread.join(0.01)
        yield Server("127.0.0.1", listener.getsockname()[1])
        server.handle_exit(signal.SIGTERM, None)
        thread.join(20)
        assert not thread.is_alive()
