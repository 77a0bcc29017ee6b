"""`python -m server`: the API alone; workers and the queue are started elsewhere."""

from __future__ import annotations

import uvicorn

from server.app import create_app
from worker.settings import Settings


def main() -> None:
    settings = Settings()
    # An open event stream would hold up the shutdown without the limit.
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=3,
        server_header=False,
    )


if __name__ == "__main__":
    main()
