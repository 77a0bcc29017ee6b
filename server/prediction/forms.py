"""Takes files out of the body of a request: one that is the whole body, or the files of a form (RFC 7578)."""

from __future__ import annotations

from dataclasses import dataclass
from email import message_from_string
from email.message import Message

from server.prediction_schemas import MAX_IMAGES

FORM = "multipart/form-data"
MAX_HEAD_BYTES = 8192
_BLANK = b"\r\n\r\n"


class MalformedForm(Exception):
    """The body is no form of files; the message says where it is wrong."""


@dataclass(frozen=True)
class SentFile:
    name: str | None
    content: bytes


def files_of(body: bytes, content_type: str) -> list[SentFile]:
    """The files of a body, in their order; at most one more than `MAX_IMAGES`.

    Raises:
        MalformedForm: the body is announced as a form, and is none.
    """
    head = Message()
    head["Content-Type"] = content_type
    if head.get_content_type() != FORM:
        return [SentFile(None, body)] if body else []
    boundary = head.get_boundary()
    if not boundary or len(boundary) > 70:
        raise MalformedForm("expected a boundary of 1 to 70 characters in the Content-Type of the form")
    delimiter = b"\r\n--" + boundary.encode("utf-8", "replace")
    # What stands before the first delimiter, the parts, and what was not split because there are too many.
    _, *parts = (b"\r\n" + body).split(delimiter, MAX_IMAGES + 2)
    files: list[SentFile] = []
    for part in parts:
        if part.startswith(b"--"):
            return files
        files.append(_file_of(part, len(files)))
        if len(files) > MAX_IMAGES:
            return files
    raise MalformedForm(f"expected the form to end with its boundary and two hyphens, got none after {len(body)} bytes")


def _file_of(part: bytes, number: int) -> SentFile:
    """What stands between two delimiters: the rest of the first one's line, headers, a blank line, and the file."""
    end = part.find(_BLANK, 0, MAX_HEAD_BYTES)
    if end < 0:
        raise MalformedForm(f"part {number}: expected headers and a blank line within {MAX_HEAD_BYTES} bytes")
    padding, _, headers = part[:end].partition(b"\r\n")
    if padding.strip(b" \t"):
        raise MalformedForm(f"part {number}: expected a line of its own for the boundary")
    head = message_from_string(headers.decode("utf-8", "replace"))
    name = head.get_filename()
    if name is None:
        field = head.get_param("name", "", "Content-Disposition")
        raise MalformedForm(f"part {number}: expected a file, as of curl -F image=@x.png, got the field {field!r}")
    return SentFile(name, part[end + len(_BLANK) :])
