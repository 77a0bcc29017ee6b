"""Bodies that no JSON library of ours would make: bytes that crash careless servers.

Each is (name, body, content type). `SPEC_TEXT` is a valid request, so that only the fault under test is wrong.
"""

from __future__ import annotations

import gzip
import json

from tests.server.seeding import SPEC

JSON = "application/json"
SPEC_TEXT = json.dumps({"spec": SPEC})


def _with_lr(literal: str) -> bytes:
    assert '"lr": 0.1' in SPEC_TEXT
    return SPEC_TEXT.replace('"lr": 0.1', f'"lr": {literal}').encode()


def _with_name(literal: str) -> bytes:
    return (SPEC_TEXT[:-1] + f', "name": {literal}}}').encode()


MALFORMED: list[tuple[str, bytes, str | None]] = [
    ("empty", b"", JSON),
    ("blank", b" \n\t", JSON),
    ("null", b"null", JSON),
    ("number", b"1", JSON),
    ("string", b'"spec"', JSON),
    ("list", b"[]", JSON),
    ("truncated object", SPEC_TEXT[:-20].encode(), JSON),
    ("truncated string", b'{"spec": "abc', JSON),
    ("truncated escape", b'{"spec": "\\u12', JSON),
    ("lone backslash at the end", b'{"spec": "\\', JSON),
    ("escaped quotes without an end", b'{"spec": "' + b'\\"' * 100_000 + b"\\", JSON),
    ("trailing garbage", SPEC_TEXT.encode() + b"x", JSON),
    ("two documents", SPEC_TEXT.encode() * 2, JSON),
    ("trailing comma", SPEC_TEXT[:-1].encode() + b",}", JSON),
    ("comment", b"/* spec */" + SPEC_TEXT.encode(), JSON),
    ("single quotes", SPEC_TEXT.replace('"', "'").encode(), JSON),
    ("bare word", b"{spec: 1}", JSON),
    ("Python literals", b'{"spec": None, "name": True}', JSON),
    ("control character in a string", b'{"name": "a\x01b"}', JSON),
    ("raw newline in a string", b'{"name": "a\nb"}', JSON),
    ("NaN", _with_lr("NaN"), JSON),
    ("Infinity", _with_lr("Infinity"), JSON),
    ("-Infinity", _with_lr("-Infinity"), JSON),
    ("1e999", _with_lr("1e999"), JSON),
    ("-1e999", _with_lr("-1e999"), JSON),
    ("huge exponent", _with_lr("1e" + "9" * 5000), JSON),
    ("5000 digits", _with_lr("1" * 5000), JSON),
    ("integer beyond 64 bits", _with_lr(str(2**63)), JSON),
    ("400 digits", _with_lr("9" * 400), JSON),
    ("leading zero", _with_lr("01"), JSON),
    ("leading plus", _with_lr("+1"), JSON),
    ("hexadecimal", _with_lr("0x1"), JSON),
    ("lone high surrogate", _with_name('"\\ud800"'), JSON),
    ("lone low surrogate", _with_name('"\\udfff"'), JSON),
    ("reversed surrogates", _with_name('"\\udc00\\ud800"'), JSON),
    ("lone surrogate as a key", b'{"\\ud800": 1}', JSON),
    ("surrogate encoded in UTF-8", b'{"name": "\xed\xa0\x80"}', JSON),
    ("NUL escaped", _with_name('"a\\u0000b"'), JSON),
    ("NUL raw", b'{"name": "a\x00b"}', JSON),
    ("NUL bytes only", b"\x00" * 64, JSON),
    ("byte order mark", b"\xef\xbb\xbf" + SPEC_TEXT.encode(), JSON),
    ("UTF-16", SPEC_TEXT.encode("utf-16"), JSON),
    ("UTF-16 without a mark", SPEC_TEXT.encode("utf-16-le"), JSON),
    ("UTF-32", SPEC_TEXT.encode("utf-32"), JSON),
    ("Latin-1", '{"name": "café"}'.encode("latin-1"), JSON),
    ("overlong UTF-8", b'{"name": "\xc0\xaf"}', JSON),
    ("random bytes", bytes(range(256)), JSON),
    ("duplicate key", b'{"spec": 1, "spec": 2}', JSON),
    ("duplicate key inside", SPEC_TEXT.replace('"lr": 0.1', '"lr": 0.1, "lr": 0.2').encode(), JSON),
    ("lists 10,000 deep", b'{"spec": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", JSON),
    ("objects 10,000 deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, JSON),
    ("open lists 500,000 deep", b"[" * 500_000, JSON),
    ("65 deep", b"[" * 65 + b"]" * 65, JSON),
    ("many keys", b"{" + b",".join(b'"k%d": 0' % n for n in range(20_000)) + b"}", JSON),
    ("long key", b'{"' + b"k" * 500_000 + b'": 0}', JSON),
    ("constructor keys", b'{"__proto__": {}, "__class__": "os.system"}', JSON),
    ("unpaired brackets", b'{"spec": [}', JSON),
    ("gzip bytes", gzip.compress(SPEC_TEXT.encode()), JSON),
    ("no content type", SPEC_TEXT.encode(), None),
    ("text", SPEC_TEXT.encode(), "text/plain"),
    ("form", b"spec=1", "application/x-www-form-urlencoded"),
    ("multipart", b"--b\r\n\r\n--b--", "multipart/form-data; boundary=b"),
    ("YAML", b"spec: {}", "application/yaml"),
    ("pickle", b"\x80\x04N.", "application/octet-stream"),
    ("JSON in UTF-16 by name", SPEC_TEXT.encode("utf-16"), "application/json; charset=utf-16"),
    ("odd content type", SPEC_TEXT.encode(), "application/json, text/plain"),
    ("content type without a value", SPEC_TEXT.encode(), ";"),
]
