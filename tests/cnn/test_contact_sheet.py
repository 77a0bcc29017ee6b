from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn.contact_sheet import EPOCHS, contact_sheet
from cnn.data import Data
from cnn.sheets import GAP, LABEL_WIDTH, MIN_CELL
from tests.cnn.plain import small_spec


def cells(png: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
    """The pictures (rows, columns, side, side) of a sheet of grey digits, whose 8 pixels are enlarged to MIN_CELL."""
    sheet = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    step = MIN_CELL + GAP
    assert sheet.shape == (rows * step + GAP, LABEL_WIDTH + columns * step + GAP)
    return np.stack(
        [
            [
                sheet[GAP + r * step :, LABEL_WIDTH + c * step + (GAP if c else 0) :][:MIN_CELL, :MIN_CELL]
                for c in range(columns)
            ]
            for r in range(rows)
        ]
    )


def test_originals_of_all_classes_stand_beside_their_versions(digits: Data) -> None:
    spec = small_spec(augmentation=[{"type": "horizontal_flip", "mode": "alternating"}])
    pictures = cells(contact_sheet(spec, digits), 10, EPOCHS + 1)
    plain = pictures[:, 0, 3::6, 3::6]
    places = [np.flatnonzero((digits.train_images[:, 0] == picture).all(axis=(1, 2))) for picture in plain]
    assert [int(digits.train_labels[place[0]]) for place in places] == list(range(10))
    first, second, third = (pictures[:, column] for column in (1, 2, 3))
    assert (first == second[:, :, ::-1]).all()
    assert (first == third).all()


def test_equal_arguments_give_equal_bytes_and_float_images_are_drawn(digits: Data) -> None:
    spec = small_spec(augmentation=[{"type": "rotate"}, {"type": "brightness"}, {"type": "mixup"}])
    sheet = contact_sheet(spec, digits, rows=3, epochs=2)
    assert sheet == contact_sheet(spec, digits, rows=3, epochs=2)
    pictures = cells(sheet, 3, 3)
    assert not (pictures[:, 1] == pictures[:, 2]).all()
    assert sheet != contact_sheet(small_spec(), digits, rows=3, epochs=2)


def test_the_command_writes_the_sheet_or_says_what_is_wrong(tmp_path: Path, digits: Data) -> None:
    def run(spec: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "spec.json").write_text(spec)
        command = [sys.executable, "-m", "cnn.contact_sheet", "spec.json", "-o", "sheet.png", "--epochs", "2"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})

    spec = small_spec(augmentation=[{"type": "zoom"}])
    done = run(spec.model_dump_json())
    assert (done.returncode, done.stdout) == (0, "sheet.png\n"), done.stderr
    assert (tmp_path / "sheet.png").read_bytes() == contact_sheet(spec, digits, epochs=2)
    bad = json.loads(spec.model_dump_json()) | {"augmentation": [{"type": "hue"}]}
    done = run(json.dumps(bad))
    assert done.returncode == 2
    assert "hue: needs images with the three channels" in done.stderr


ROOT = Path(__file__).parents[2]
