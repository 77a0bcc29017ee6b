"""A proxy that cuts connections after some bytes of the answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.server.serving import Server


@contextmanager
def cutting(server: Server, limit: Callable[[bytes], int | None]) -> Iterator[Server]:
    """The server behind a proxy; `limit` gets the head of a request, and says how many bytes of the answer may pass."""

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection((server.host, server.port)) as upstream:
            head = client.recv(65536)
            left = limit(head)
            upstream.sendall(head.replace(b"keep-alive", b"close"))  # every request comes over its own connection
            threading.Thread(target=_copy, args=(client, upstream), daemon=True).start()
            while (left is None or left > 0) and (block := upstream.recv(left or 65536)):
                client.sendall(block)
                left = None if left is None else left - len(block)
            client.shutdown(socket.SHUT_RDWR)  # closing it would wait for the other thread

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield Server("127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(65536):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)
