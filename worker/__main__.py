"""`python -m worker`: claims jobs and trains them, until SIGTERM or Ctrl-C sends its jobs back to the queue."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    # Before the imports, which take a while: until they are done there is nothing to put in order.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    from worker.service import serve  # noqa: PLC0415

    return serve()


if __name__ == "__main__":
    sys.exit(main())
