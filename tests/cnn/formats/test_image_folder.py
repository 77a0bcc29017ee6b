from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn.errors import DataCorrupt, DatasetMissing
from cnn.formats.image_folder import ImageFolder, decode
from tests.cnn.formats.written import CLASSES, TRAIN_LABELS, image_folder, pictures


def test_train_and_test_folders(tmp_path: Path) -> None:
    folder = ImageFolder(image_folder(tmp_path), None, 3, None)
    data, info = folder.read(), folder.info()
    assert (info.shape, info.labels, info.num_train, info.num_test) == ((3, 8, 8), CLASSES, 30, 9)
    assert data.train_labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert data.test_labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    expected = pictures(TRAIN_LABELS, (8, 8, 3))[TRAIN_LABELS == 1]
    assert np.array_equal(data.train_images[10:20], expected.transpose(0, 3, 1, 2))


def test_a_test_fraction_of_every_class(tmp_path: Path) -> None:
    folder = ImageFolder(image_folder(tmp_path) / "train", None, 3, 0.2)
    data, info = folder.read(), folder.info()
    assert np.bincount(data.test_labels).tolist() == [2, 2, 2]
    assert np.bincount(data.train_labels).tolist() == [8, 8, 8]
    assert (info.num_train, info.num_test) == (24, 6)
    assert data.digest == folder.read().digest


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "jpg", "JPEG"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    data = ImageFolder(image_folder(tmp_path, suffix), None, 3, None).read()
    lossless = suffix in ("png", "bmp")
    expected = pictures(TRAIN_LABELS, (8, 8, 3))[0].transpose(2, 0, 1).astype(int)
    assert np.abs(data.train_images[0].astype(int) - expected).mean() <= (0 if lossless else 20)


def test_grey_is_the_luma_of_itu_r_601(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (4, 4), (200, 100, 50)).save(file)
    # (200 · 299 + 100 · 587 + 50 · 114) / 1000 = 124.2
    assert decode(file, None, 1).tolist() == [[[124] * 4] * 4]


@pytest.mark.parametrize(("mode", "colour"), [("1", 1), ("L", 255), ("LA", (255, 0)), ("RGBA", (255, 255, 255, 0))])
def test_modes_become_rgb_without_transparency(tmp_path: Path, mode: str, colour: int) -> None:
    file = tmp_path / "a.png"
    Image.new(mode, (4, 4), colour).save(file)
    assert (decode(file, None, 3) == 255).all()


def test_images_are_resized_with_antialiasing(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    stripes = np.tile(np.array([0, 0, 0, 240], dtype=np.uint8), (64, 16))
    Image.fromarray(stripes).save(file)
    small = decode(file, (16, 4), 1)
    assert small.shape == (1, 16, 4)
    # Without antialiasing each value would be that of two columns alone: 0 or 120, not about the mean of 60.
    assert np.abs(small.astype(int) - 60).max() <= 12


def test_sizes_differ(tmp_path: Path) -> None:
    image_folder(tmp_path)
    odd = tmp_path / "train" / "bee" / "odd.png"
    Image.new("RGB", (9, 8)).save(odd)
    folder = ImageFolder(tmp_path, None, 3, None)
    with pytest.raises(DataCorrupt) as caught:
        folder.read()
    assert caught.value.message.startswith(f"{odd}: it is 8 × 9 (height × width), the images before it are 8 × 8")
    assert "image_size" in (caught.value.hint or "")
    assert ImageFolder(tmp_path, (6, 5), 3, None).read().train_images.shape == (31, 3, 6, 5)


def png_start(width: int, height: int) -> bytes:
    """A PNG file whose pixels never come."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"")


def test_every_corrupt_file_is_named_and_why(tmp_path: Path) -> None:
    image_folder(tmp_path)
    bad = {
        "ant/text.png": (b"hello", "cannot identify image file"),
        "bee/cut.png": ((tmp_path / "train" / "ant" / "000.png").read_bytes()[:60], "truncated"),
        "cat/start.png": (png_start(8, 8), ""),
        "cat/empty.jpg": (b"", "cannot identify"),
        "cat/gif.png": (b"GIF89a" + b"\0" * 40, "cannot identify"),
        "cat/bomb.png": (png_start(10_000, 5_001), "expected at most 50,000,000 pixels, got 10000 × 5001"),
        "cat/huge.png": (png_start(20_000, 20_000), "exceeds limit"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / "train" / name).write_bytes(content)
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "test" / "cat" / "deep.png")
    with pytest.raises(DataCorrupt, match=r"^8 of 47 files cannot be used: ") as caught:
        ImageFolder(tmp_path, None, 3, None).read()
    for name, (_, reason) in bad.items():
        assert name in caught.value.message
        assert reason in caught.value.message
    assert "deep.png: expected 8 bits a channel, got Pillow's mode I;16" in caught.value.message


def test_of_many_corrupt_files_ten_are_named(tmp_path: Path) -> None:
    image_folder(tmp_path)
    for index in range(12):
        (tmp_path / "train" / "cat" / f"z{index:02}.png").write_bytes(b"")
    with pytest.raises(DataCorrupt, match=r"^12 of 51 files .*z09\.png.* and 2 more$"):
        ImageFolder(tmp_path, None, 3, None).read()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train/notes.txt", r"train/notes\.txt: expected only folders here"),
        ("train/ant/notes.txt", r"notes\.txt: expected image files \(\.png, "),
        ("train/ant/more/a.png", r"train/ant/more: expected image files"),
        ("test/dog/a.png", r"test: the classes dog are not in .*train"),
    ],
)
def test_what_does_not_belong_there_is_refused(tmp_path: Path, path: str, message: str) -> None:
    image_folder(tmp_path)
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_bytes(b"")
    with pytest.raises(DataCorrupt, match=message):
        ImageFolder(tmp_path, None, 3, None).info()


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    image_folder(tmp_path)
    (tmp_path / "train" / ".DS_Store").write_bytes(b"")
    (tmp_path / "train" / "ant" / ".DS_Store").write_bytes(b"")
    assert ImageFolder(tmp_path, None, 3, None).info().num_train == 30


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"There is no folder .*/train\. Expected <path>/train/<class>/<image>"):
        ImageFolder(tmp_path, None, 3, None)
    with pytest.raises(DataCorrupt, match="expected folders, one for each class, got none"):
        ImageFolder(tmp_path, None, 3, 0.5)
    (tmp_path / "ant").mkdir()
    with pytest.raises(DataCorrupt, match=r"ant: expected image files .* got none"):
        ImageFolder(tmp_path, None, 3, 0.5).info()
