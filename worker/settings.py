"""Settings of every process, from `EPOCHD_…` environment variables: the one place that reads the environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals with the prefix `EPOCHD_`."""

    model_config = SettingsConfigDict(env_prefix="EPOCHD_", frozen=True, use_attribute_docstrings=True)

    data_dir: Path = Path("epochd-data")
    """Folder for database, logs, checkpoints, artifacts and datasets; API and workers share it."""

    database_url: str | None = None
    """`sqlite:///…` or `postgresql://…`; the default is `epochd.db` in the data folder."""

    redis_url: str | None = None
    """`redis://[:password@]host:port/db` or `redis+socket://[:password@]/path`. Where it is not set, `epochd up` starts
    a server of its own, and a worker or API that is started alone looks at `redis://127.0.0.1:6379/0`."""

    host: str = "127.0.0.1"
    """Address that the API binds."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port that the API binds."""

    auth: Literal["keys", "off"] = "keys"
    """`off` asks nobody for an API key, and binds loopback only."""

    rate_limit: int = Field(default=6000, ge=1)
    """Requests that each key may make in a minute, at once or spread; counted by each API process for itself."""

    allowed_hosts: str = ""
    """Further names, separated by commas, under which clients may ask the API, such as `lab.example,server`;
    loopback's names and `host` always may."""

    allowed_origins: str = ""
    """Further origins, separated by commas, whose pages may ask for changes, such as `https://lab.example`."""

    webhook_allow: str = ""
    """Networks, separated by commas, such as `10.0.0.0/8,::1/128`, whose receivers webhooks may reach besides the
    public internet; `epochd up --dev` adds loopback."""

    slots: int | None = Field(default=None, ge=1)
    """Jobs that a worker trains at once; the default is one per `EPOCHD_GPUS_PER_SLOT` GPUs, else one."""

    threads: int | None = Field(default=None, ge=1)
    """CPU threads of each trainer; the default shares the cores among the slots."""

    gpus_per_slot: int = Field(default=1, ge=1)
    """GPUs of each slot. A worker with GPUs takes only jobs whose `training.devices` is at most this."""

    launcher: Literal["warm", "fresh"] | None = None
    """`warm`: trainers are forked from a process that has torch imported, and begin at once; `fresh`: each starts by
    itself, which takes seconds. The default is `warm` on Linux, the only place where it is possible."""

    native: bool = True
    """Whether trainers use the kernels that `python -m cnn.native` has compiled on their machine. Workers with and
    without them give other last bits, so a job that has begun does not change between them."""

    heartbeat_seconds: float = Field(default=2.0, gt=0)
    """How often a worker says that it is there, and raises its jobs' heartbeat counters."""

    lease_seconds: float = Field(default=10.0, gt=0)
    """How long a job's counter must stand still before an observer takes the job back."""

    cancel_grace_seconds: float = Field(default=30.0, ge=0)
    """Time between asking a trainer to stop and killing it."""

    drain_grace_seconds: float = Field(default=10.0, ge=0)
    """The same when the worker itself must stop: the job goes on elsewhere from its newest checkpoint."""

    poll_seconds: float = Field(default=2.0, gt=0)
    """How often a worker with a free slot looks for queued jobs without having been rung."""

    max_fruitless_attempts: int = Field(default=3, ge=1)
    """Consecutive attempts that may end badly without a newer checkpoint before the job fails."""

    max_upload_bytes: int = Field(default=10 * 2**30, ge=1)
    """Size of a file that may be uploaded."""

    max_dataset_bytes: int = Field(default=4 * 2**30, ge=1)
    """Size of the pixels of a dataset that may be registered, and about the memory that its validation may use."""

    predict_processes: int = Field(default=2, ge=1)
    """Networks that answer predictions at once, each in a process of its own beside the API."""

    predict_idle_seconds: float = Field(default=300.0, gt=0)
    """How long such a process waits for the next images before it ends."""

    retry_backoff_seconds: float = Field(default=1.0, ge=0)
    """Wait before the attempt after a crash; doubles with each further fruitless one."""

    log_format: Literal["text", "json"] = "text"
    """How API and workers write their logs: lines for people, or one JSON object a line with request and job ids."""

    @field_validator("webhook_allow")
    @classmethod
    def _holds_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    def resolved_redis_url(self) -> str:
        """The URL of the queue's server, with the default filled in."""
        return self.redis_url or "redis://127.0.0.1:6379/0"

    def resolved_database_url(self) -> str:
        """The URL of the database, with the default filled in."""
        if self.database_url is not None:
            return self.database_url
        return f"sqlite:///{self.data_dir.absolute() / 'epochd.db'}"


def parse_networks(text: str) -> tuple[Network, ...]:
    """The networks of a list with commas.

    Raises:
        ValueError: a part of it is no network.
    """
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


KEPT_VARIABLES = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
)  # fmt: skip
"""What a trainer may see of our environment: no credentials, and no OMP_… that would contradict the slot's threads."""


def child_environment(settings: Settings) -> dict[str, str]:
    """Our environment, changed so that a process that is started with it reads the same settings."""
    values = {f"EPOCHD_{name.upper()}": str(value) for name, value in settings if value is not None}
    return {**os.environ, **values}


def visible_gpus() -> tuple[str, ...] | None:
    """The GPUs that whoever started us lets us use; None for all."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if listed is None else tuple(name.strip() for name in listed.split(",") if name.strip())


def trainer_environment(*, threads: int, gpu: str | None) -> dict[str, str]:
    """The scrubbed environment of a trainer with `threads` CPU threads that sees these GPUs, with commas, or none."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {
        **kept,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",  # NumPy's: it would start threads at its import, and the launcher must have one
        "CUDA_VISIBLE_DEVICES": gpu or "",
    }


def replace_environment(environment: Mapping[str, str]) -> None:
    """Give this process another environment: what it starts, and what it loads from now on, sees nothing else."""
    os.environ.clear()
    os.environ.update(environment)
