from __future__ import annotations

import json
import socket
from importlib.metadata import version
from pathlib import Path

import pytest
from sqlalchemy import text

from cnn.fetch import FILES
from server import doctor
from server.app import create_app
from server.doctor import Finding, examine
from tests.server.seeding import Seed
from tests.server.serving import serving
from tests.server.test_cli import Epochd
from worker.settings import Settings
from worker.store import keys, workers
from worker.store.keys import Scope


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """To import torch takes seconds; one test does."""
    monkeypatch.setattr(doctor, "ASK_TORCH", "print('[\"2.14\", [], null]')")


def look(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(settings)}


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_before_the_first_start_nothing_is_made_and_nothing_is_a_fault(tmp_path: Path) -> None:
    found = look(Settings(data_dir=tmp_path / "data", port=unused_port()))
    assert {check: finding.status for check, finding in found.items()} == {
        **dict.fromkeys(("python", "torch", "capacity", "gpu", "space", "queue"), "ok"),
        **dict.fromkeys(("native", "data", "database", "api", "mnist"), "warn"),
        "fashion_mnist": found["fashion_mnist"].status,  # the system may have it
    }
    assert "which is free" in found["api"].detail
    assert not list(tmp_path.iterdir())


def test_what_runs_is_well(settings: Settings, seed: Seed) -> None:
    with seed.database.write() as connection:
        workers.register(connection, worker_id="w-1", host="lab", pid=1, device="cpu", slots=1, threads=1)
        keys.create(connection, name="laptop", scope=Scope.SUBMIT)
    found = look(settings.model_copy(update={"auth": "keys", "port": unused_port()}))
    assert {check: found[check].status for check in ("data", "database", "worker", "keys", "datasets")} == {
        "data": "ok",
        "database": "ok",
        "worker": "ok",
        "keys": "ok",
        "datasets": "ok",
    }
    assert found["worker"].detail == "w-1 on lab (cpu)"


@pytest.mark.usefixtures("seed")
def test_without_keys_and_workers_it_says_how_to_get_them(settings: Settings) -> None:
    found = look(settings.model_copy(update={"auth": "keys", "port": unused_port()}))
    assert (found["worker"].status, found["keys"].status) == ("warn", "warn")
    assert "epochd keys create" in str(found["keys"].fix)
    open_to_all = look(settings.model_copy(update={"auth": "keys", "host": "0.0.0.0", "port": unused_port()}))
    assert open_to_all["keys"].status == "fail"
    off = look(settings.model_copy(update={"host": "0.0.0.0", "port": unused_port()}))
    assert (off["keys"].status, "binds loopback only" in off["keys"].detail) == ("fail", True)


def test_a_queue_that_is_away_is_a_fault(settings: Settings) -> None:
    found = look(settings.model_copy(update={"port": unused_port()}))
    assert (found["queue"].status, "EPOCHD_REDIS_URL" in found["queue"].detail) == ("fail", True)


def test_what_the_api_misses_is_told_in_its_words(settings: Settings) -> None:
    with serving(create_app(settings)) as server:
        found = look(settings.model_copy(update={"port": server.port}))
    assert found["api"].status == "fail"
    assert "expected an active worker" in found["api"].detail


def test_a_port_that_somebody_else_has_is_a_fault(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # taken, and nobody listens
        found = look(settings.model_copy(update={"port": other.getsockname()[1]}))
    assert (found["api"].status, found["api"].fix) == ("fail", "choose another EPOCHD_PORT")


@pytest.mark.parametrize(("revision", "status"), [("0001", "warn"), ("9999", "fail")])
def test_an_older_schema_is_migrated_and_a_newer_one_needs_newer_software(
    settings: Settings, seed: Seed, revision: str, status: str
) -> None:
    with seed.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    found = look(settings.model_copy(update={"port": unused_port()}))
    assert (found["database"].status, f"schema {revision}" in found["database"].detail) == (status, True)


@pytest.mark.parametrize("url", ["nonsense", "postgresql://epochd@127.0.0.1:1/epochd"])
def test_a_database_that_is_away_is_a_fault(settings: Settings, url: str) -> None:
    found = look(settings.model_copy(update={"database_url": url, "port": unused_port()}))
    assert (found["database"].status, "EPOCHD_DATABASE_URL" in str(found["database"].fix)) == ("fail", True)


def test_a_data_folder_below_a_file_is_a_fault(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = look(settings.model_copy(update={"data_dir": tmp_path / "file" / "data", "port": unused_port()}))
    assert (found["data"].status, "cannot be written to" in found["data"].detail) == ("fail", True)


def test_too_little_room_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "COMFORTABLE_BYTES", 2**62)
    assert look(settings)["space"].status == "warn"
    monkeypatch.setattr(doctor, "MIN_BYTES", 2**61)
    assert look(settings)["space"].status == "fail"


def test_damaged_dataset_files_are_a_fault(settings: Settings) -> None:
    folder = settings.data_dir / "datasets" / "mnist"
    folder.mkdir(parents=True)
    for name in FILES["mnist"]:
        (folder / name).write_bytes(b"no images")
    found = look(settings)["mnist"]
    assert (found.status, "expected SHA-256" in found.detail) == ("fail", True)
    assert f"python -m cnn.fetch mnist --data-dir {settings.data_dir}" == found.fix


def test_a_machine_without_torch_can_serve(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ASK_TORCH", "import torch_is_not_here")
    found = look(settings)["torch"]
    assert (found.status, found.fix) == ("warn", "pip install 'epochd[all]'")
    assert "No module named 'torch_is_not_here'" in found.detail


def test_compiled_kernels_are_named_missed_or_switched_off(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    missed = look(settings)["native"]
    assert (missed.status, str(missed.fix).partition(";")[0]) == ("warn", "python -m cnn.native")
    monkeypatch.setattr(doctor, "ASK_TORCH", 'print(\'["2.14", [], "/lib/kernels-1.so"]\')')
    named = look(settings)["native"]
    assert (named.status, named.detail) == ("ok", "trainers use /lib/kernels-1.so")
    off = look(settings.model_copy(update={"native": False}))["native"]
    assert (off.status, "EPOCHD_NATIVE is off" in off.detail) == ("ok", True)


def test_more_threads_than_cores_are_a_fault(settings: Settings) -> None:
    assert look(settings.model_copy(update={"threads": 1000}))["capacity"].status == "fail"


def test_a_gpu_that_torch_does_not_see_is_a_fault(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = look(settings)["gpu"]
    assert (found.status, found.detail) == ("fail", "the driver shows 1, torch 2.14 sees 0")


def test_the_command_prints_a_finding_a_line_and_exits_1_for_a_fault(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHD_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("EPOCHD_PORT", str(unused_port()))
    epochd = Epochd("http://127.0.0.1:1")
    well = epochd("doctor", "--json")
    assert well.exit_code == 0
    assert json.loads(well.stdout.splitlines()[0])["check"] == "python"
    monkeypatch.setenv("EPOCHD_THREADS", "1000")
    ill = epochd("doctor")
    assert ill.exit_code == 1
    assert "fail  capacity" in ill.stdout
    assert "-> lower EPOCHD_SLOTS or EPOCHD_THREADS" in ill.stdout


def test_torch_itself_is_asked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = look(settings)
    assert found["torch"].status == "ok"
    assert found["torch"].detail.startswith(version("torch"))
