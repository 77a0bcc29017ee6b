from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnn.native import library
from cnn.native.library import Library


@contextmanager
def using(folder: Path) -> Iterator[Library]:
    """This process uses the library of the folder meanwhile."""
    found = library.find(folder)
    assert found
    library.use(found)
    try:
        yield found
    finally:
        library.use(None)
