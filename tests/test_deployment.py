from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.settings import Settings

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_only_the_api_is_published_and_on_this_machine_alone() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "server": ["127.0.0.1:8000:8000"]
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_an_init_process(name: str) -> None:
    assert SERVICES[name]["init"] is True


@pytest.mark.parametrize("name", ["server", "worker", "worker-gpu"])
def test_our_services_share_data_and_name_settings_that_exist(name: str) -> None:
    service = SERVICES[name]
    assert service["volumes"] == [f"data:{service['environment']['EPOCHD_DATA_DIR']}"]
    settings = {f"EPOCHD_{field.upper()}" for field in Settings.model_fields}
    assert set(service["environment"]) <= settings


@pytest.mark.parametrize("name", ["server", "worker", "worker-gpu"])
def test_images_are_built_from_files_that_exist_and_are_sent(name: str) -> None:
    dockerfile = ROOT / SERVICES[name]["build"]["dockerfile"]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [line.split()[1:-1] for line in dockerfile.read_text().splitlines() if line.startswith("COPY")]
    sources = {source for copy in copies for source in copy}
    assert sources <= sent
    assert all((ROOT / source).exists() for source in sources)


def test_the_server_image_has_no_torch() -> None:
    assert "torch" not in (ROOT / "server" / "Dockerfile").read_text().partition("FROM")[2]
    assert "torch==" in (ROOT / "worker" / "Dockerfile").read_text()


def test_the_gpu_worker_starts_with_its_profile_only() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"worker-gpu"}
    assert SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
