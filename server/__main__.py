"""`python -m server`: the API alone; workers and the queue are started elsewhere."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI

from server import auth
from server.app import create_app
from server.auth import InsecureBind
from worker import log_format
from worker.settings import Settings
from worker.store.database import DatabaseUnavailable

TICK_SECONDS = 1.0
"""How often the date in the answers is renewed. Uvicorn's own loop wakes ten times as often, to see whether it should
stop, and takes time from the jobs that train on this machine."""
STOP_SECONDS = 3
"""How long a request that is being answered may hold up the shutdown."""


class Server(uvicorn.Server):
    """Ends open streams and waiting requests when it is told to stop, instead of waiting for their clients."""

    def __init__(self, app: FastAPI, *, host: str = "127.0.0.1", port: int = 0, log_level: str | None = None) -> None:
        self._app = app
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level=log_level,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            server_header=False,
        )
        super().__init__(config)
        self._told_to_stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_stop.wait(), TICK_SECONDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, as a signal makes it; may be called from any thread."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told_to_stop.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.services.tailer.end_streams()
        await super().shutdown(sockets)


def main() -> int:
    settings = Settings()
    try:
        auth.prepare(settings)
    except (InsecureBind, DatabaseUnavailable) as error:
        sys.stderr.write(f"the API cannot start: {error}\n")
        return 2
    log_format.configure(settings)
    server = Server(create_app(settings), host=settings.host, port=settings.port)
    gc.collect()
    gc.freeze()  # otherwise each full collection looks at all modules and routes again, and every answer waits for it
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
