from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.up import UpError, free_port, up
from tests.integration.group import EPOCHD, Group
from tests.integration.processes import alive, command_line, hears_sigterm, wait_until
from worker.settings import Settings

DIGITS = Path(__file__).parents[2] / "examples" / "digits.json"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Group]]:
    groups: list[Group] = []

    def start() -> Group:
        groups.append(Group(tmp_path / "data"))
        return groups[-1]

    yield start
    for group in groups:
        group.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_everything_and_the_job_goes_on_later(
    start: Callable[[], Group], number: signal.Signals
) -> None:
    group = start()
    job_id = group.train()
    assert group.signal(number) == 0
    assert not alive(group.members)
    again = start()
    wait_until(lambda: again.client.get(f"/v1/jobs/{job_id}").json()["attempt"] == 2, seconds=30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_there_is_anything_to_stop_is_a_good_end(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [EPOCHD, "up", "--dev"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "EPOCHD_DATA_DIR": str(tmp_path / "data"), "EPOCHD_PORT": "0"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # whoever runs the tests may ignore it
    )
    wait_until(lambda: hears_sigterm(process.pid), pause=0.001)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, b"")
    assert not (tmp_path / "data").exists()


def test_a_hangup_ends_nothing_where_it_is_ignored(tmp_path: Path) -> None:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        group = Group(tmp_path / "data")
    finally:
        signal.signal(signal.SIGHUP, ignored)
    group.process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        group.process.wait(timeout=1)
    assert group.is_ready()
    group.close()


def test_nothing_outlives_a_kill(start: Callable[[], Group]) -> None:
    group = start()
    group.train()
    group.signal(signal.SIGKILL)
    wait_until(lambda: not alive(group.members), seconds=30)


@pytest.mark.parametrize("part", ["valkey-server", "-m worker", "-m server"])
def test_a_part_that_dies_is_started_again(start: Callable[[], Group], part: str) -> None:
    group = start()
    # `-m server.guardian` is no part of the service, hence the end of the line
    (pid,) = [pid for pid in group.members if re.search(rf"{part}( |$)", command_line(pid))]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "exited with -9; starting it again in 0.5 s" in group.log.read_text())
    wait_until(group.is_ready, seconds=30)
    job = group.client.post("/v1/jobs", json={"spec": json.loads(DIGITS.read_text())}).json()
    wait_until(lambda: group.client.get(job["links"]["self"]).json()["terminal"], seconds=60)
    assert group.client.get(job["links"]["self"]).json()["status"] == "succeeded"


def test_a_second_group_on_the_same_data_directory_is_refused(start: Callable[[], Group], tmp_path: Path) -> None:
    start()
    done = subprocess.run(
        [EPOCHD, "up", "--dev"],
        capture_output=True,
        text=True,
        env={**os.environ, "EPOCHD_DATA_DIR": str(tmp_path / "data"), "EPOCHD_PORT": "0"},
    )
    assert done.returncode == 1
    assert f"another epochd already runs on {tmp_path / 'data'}" in done.stderr


def test_a_part_that_cannot_start_ends_the_group_with_its_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data_dir=tmp_path, port=0, redis_url="nonsense://host")
    assert up(settings, dev=True) == 1
    captured = capfd.readouterr()
    assert re.search(r"error: (api|worker) exited with \d+ before the server was ready", captured.err)
    assert "nonsense" in captured.out


def test_a_port_in_use_is_said() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(
            UpError, match=r"cannot listen on 127\.0\.0\.1, port \d+: Address already in use; choose another"
        ),
    ):
        free_port("127.0.0.1", taken.getsockname()[1])
