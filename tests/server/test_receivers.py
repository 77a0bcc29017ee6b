"""Which URLs webhooks may have: nothing is sent where only this server can reach."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from server.receivers import AddressGuard, ReceiverRefused, receiver_url
from worker.settings import Settings, parse_networks

pytestmark = pytest.mark.anyio

PUBLIC = AddressGuard(())


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.9.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",
        "localhost",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.254",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.7",
        "198.18.0.1",
        "[::1]",
        "[::]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2001::7f00:1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:db8::1]",
    ],
)
async def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(ReceiverRefused, match=r"expected a host on the public internet or in a network of EPOCHD_WEBH"):
        await PUBLIC.addresses(receiver_url(f"http://{host}/hooks"))


@pytest.mark.parametrize("host", ["93.184.215.14", "[2606:4700::1111]", "[::ffff:93.184.215.14]"])
async def test_public_addresses_pass(host: str) -> None:
    plain = host.strip("[]").removeprefix("::ffff:")
    assert await PUBLIC.addresses(receiver_url(f"https://{host}/")) == [plain]


async def test_the_operator_may_allow_networks() -> None:
    guard = AddressGuard(parse_networks("10.1.0.0/16, ::1/128,"))
    assert guard.allowed == (ip_network("10.1.0.0/16"), ip_network("::1/128"))
    for host, address in (("10.1.2.3", "10.1.2.3"), ("[::ffff:10.1.2.3]", "10.1.2.3"), ("[::1]", "::1")):
        assert await guard.addresses(receiver_url(f"http://{host}:8080/")) == [address]
    for host in ("10.2.0.1", "127.0.0.1"):
        with pytest.raises(ReceiverRefused, match=host):
            await guard.addresses(receiver_url(f"http://{host}/"))


async def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in ("93.184.215.14", "192.168.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
    with pytest.raises(ReceiverRefused, match=r'got "both.example" at 192.168.0.1'):
        await PUBLIC.addresses(receiver_url("https://both.example/"))


@pytest.mark.parametrize("host", ["receiver.invalid", "xn--", "a..b", f"{'a' * 64}.example"])
async def test_a_name_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ReceiverRefused, match="expected a host that can be resolved, got"):
        await PUBLIC.addresses(receiver_url(f"https://{host}/"))


async def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr("server.receivers.RESOLVE_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(20))
    with pytest.raises(ReceiverRefused, match=r'expected a host that can be resolved within 0.1 s, got "slow.example"'):
        await PUBLIC.addresses(receiver_url("https://slow.example/"))
    released.set()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://example.com/", "https:// or http://"),
        ("file:///etc/passwd", "https:// or http://"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "https:// or http://"),
        ("https:///hooks", "a host"),
        ("//example.com/", "https:// or http://"),
        ("https://user:word@example.com/", "without user name, password and fragment"),
        ("https://example.com/#part", "without user name, password and fragment"),
        ("http://example.com:22/", "port 80, 443 or one of 1024 to 65535, got 22"),
        ("http://example.com:0/", "port 80, 443 or one of 1024 to 65535, got 0"),
        ("http://example.com:65536/", "Port out of range"),
        ("http://[::1/", "expected a URL such as"),
        ("http://example.com/\r\nHost: x", "a URL in ASCII"),
        ("http://exam\nple.com/", "a URL in ASCII"),
        ("http://exa%20mple/", "a host"),
        ("http://example.com\\.evil.example/", "a host"),
        ("http://bücher.example/", "a URL in ASCII"),
        ("http://[fe80::1%25eth0]/", "a host"),
        ("http:/example.com/", "https:// or http://"),
    ],
)
def test_urls_that_mean_something_else_are_refused(url: str, expected: str) -> None:
    with pytest.raises(ReceiverRefused, match=expected):
        receiver_url(url)


@pytest.mark.parametrize("url", ["https://example.com/", "http://example.com:80/x?y=z", "https://example.com:8443/"])
def test_urls_of_the_web_pass(url: str) -> None:
    assert receiver_url(url).host == "example.com"


@pytest.mark.parametrize("text", ["10.0.0.5/8", "lab.example", "10.0.0.0/8;::1/128"])
def test_a_setting_that_names_no_networks_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="webhook_allow"):
        Settings(webhook_allow=text)
