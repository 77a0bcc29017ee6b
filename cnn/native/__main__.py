"""`python -m cnn.native`: compile the kernels for this machine, with its own C++ compiler."""

from __future__ import annotations

import sys
from pathlib import Path

from cnn.native.build import FOLDER, BuildError, build, library_path


def main(folder: Path = FOLDER) -> int:
    path = library_path(folder)
    if path.exists():
        print(f"{path} is there already: training uses it")
        return 0
    try:
        build(folder)
    except (BuildError, OSError) as error:
        print(f"no kernels were built, so training uses torch's own layers: {error}", file=sys.stderr)
        return 1
    print(f"{path} was built: training uses it from its next start on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
