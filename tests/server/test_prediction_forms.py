from __future__ import annotations

import random

import httpx
import pytest

from server.prediction.forms import MAX_HEAD_BYTES, MalformedForm, SentFile, files_of
from server.prediction_schemas import MAX_IMAGES

FORM = "multipart/form-data; boundary=abc"


def test_a_form_of_httpx_comes_apart_again() -> None:
    contents = [random.Random(n).randbytes(n) for n in (0, 1, 1000, 100_000)] + [b"\r\n", b"--", b"\r\n\r\n--a\r\n"]
    files = [("image", (f"ä {number}.png", content)) for number, content in enumerate(contents)]
    request = httpx.Request("POST", "http://x", files=files)
    found = files_of(request.read(), request.headers["content-type"])
    assert [(image.name, image.content) for image in found] == [file for _, file in files]


def test_quotes_long_names_and_other_headers_are_read() -> None:
    body = (
        b"what stands before is skipped\r\n"
        b"--abc \t\r\n"
        b'content-disposition: form-data; name="x"; filename="a \\"b\\".png"\r\nContent-Type: image/png\r\n\r\none\r\n'
        b"--abc\r\nContent-Disposition: form-data; filename*=UTF-8''%e2%82%ac.png\r\n\r\ntwo\r\n"
        b"--abc--\r\nand what stands behind"
    )
    for content_type in (FORM, 'Multipart/Form-Data; charset=utf-8; boundary="abc"'):
        assert files_of(body, content_type) == [SentFile('a "b".png', b"one"), SentFile("€.png", b"two")]


def test_another_body_is_one_file() -> None:
    assert files_of(b"bytes", "image/png") == [SentFile(None, b"bytes")]
    assert files_of(b"", "image/png") == []


PART = b"--abc\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nx\r\n"


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (PART, "multipart/form-data", "boundary of 1 to 70"),
        (PART, f"multipart/form-data; boundary={'b' * 71}", "boundary of 1 to 70"),
        (b"", FORM, "got none after 0 bytes"),
        (PART, FORM, "end with its boundary"),
        (PART + b"--ab", FORM, "end with its boundary"),
        (PART + b"--abc\r\nno headers", FORM, "part 1: expected headers"),
        (b"--abcd" + PART, FORM, "part 0: expected a line of its own"),
        (b"--abc\r\nA: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n\r\n--abc--", FORM, "part 0: expected headers"),
        (b"--abc\r\nContent-Disposition: form-data; name=top_k\r\n\r\n3\r\n--abc--", FORM, "got the field 'top_k'"),
    ],
)
def test_what_is_no_form_of_files_is_refused(body: bytes, content_type: str, message: str) -> None:
    with pytest.raises(MalformedForm, match=message):
        files_of(body, content_type)


def test_parts_beyond_the_limit_are_not_taken_apart() -> None:
    assert len(files_of(PART * 100_000 + b"--abc--", FORM)) == MAX_IMAGES + 1
    assert len(files_of(PART * MAX_IMAGES + b"--abc--", FORM)) == MAX_IMAGES


def test_no_bytes_do_more_than_be_refused() -> None:
    chance = random.Random(0)
    pieces = [b"\r\n", b"--abc", b"--", b"\r\n\r\n", b"Content-Disposition: form-data; filename=", b'"', b"\xff", b"\0"]
    for _ in range(2000):
        body = b"".join(chance.choices(pieces, k=chance.randrange(20)))
        try:
            found = files_of(body, FORM)
        except MalformedForm:
            continue
        assert all(isinstance(image, SentFile) for image in found)
