"""Train a CNN over HTTP with nothing but httpx: submit, watch, download, verify.

python examples/demo.py [--url http://127.0.0.1:8000] [--spec examples/fashion.json] [--output .]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 60


def wait_until_ready(client: httpx.Client) -> None:
    """The server may still be starting: ask until it, its queue and a worker are there."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            response = client.get("/readyz")
            if response.is_success:
                return
            reason = response.text
        except httpx.TransportError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            sys.exit(f"{client.base_url} is not ready after {START_SECONDS} s: {reason}")
        time.sleep(0.2)


def progress_line(job: dict[str, Any]) -> str:
    if job["progress"] is None or job["progress"]["num_steps"] is None:
        return f"{job['status']} {job['phase'] or ''}"
    progress, metrics = job["progress"], job["latest_metrics"] or {}
    bar = "█" * int(30 * progress["fraction"])
    shown = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    values = " ".join(f"{key} {metrics[key]:.4f}" for key in shown if metrics.get(key) is not None)
    place = f"epoch {progress['epoch']}/{progress['epochs']} step {progress['step']}"
    return f"{job['phase'] or job['status']} │{bar:<30}│ {place} {values}"


def watch(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Print what changes until the job is in a terminal status: over one line in a terminal, else a line an epoch."""
    printed = None
    while True:
        job = client.get(job["links"]["self"]).raise_for_status().json()
        if sys.stdout.isatty():
            print(f"\r\x1b[K{progress_line(job)}", end="" if not job["terminal"] else "\n", flush=True)
        else:
            mark = (job["status"], job["phase"], job["progress"] and job["progress"]["epoch"])
            if mark != printed:
                print(progress_line(job), flush=True)
                printed = mark
        if job["terminal"]:
            return job
        time.sleep(0.5)


def download(client: httpx.Client, job: dict[str, Any], name: str, folder: Path) -> str:
    """Save an artifact; its SHA-256, which is that of the bytes received and that of the API's list."""
    listed = {artifact["name"]: artifact for artifact in client.get(job["links"]["artifacts"]).json()["data"]}
    digest = hashlib.sha256()
    with (folder / name).open("wb") as file, client.stream("GET", f"{job['links']['artifacts']}/{name}") as response:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != listed[name]["sha256"]:
        sys.exit(f"{name}: the API announced SHA-256 {listed[name]['sha256']}, the bytes give {digest.hexdigest()}")
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--spec", type=Path, default=Path(__file__).parent / "fashion.json")
    parser.add_argument("--output", type=Path, default=Path())
    arguments = parser.parse_args()

    with httpx.Client(base_url=arguments.url, timeout=30) as client:
        wait_until_ready(client)
        spec = json.loads(arguments.spec.read_text())
        response = client.post("/v1/jobs", json={"spec": spec, "name": arguments.spec.stem})
        if response.status_code != 201:
            sys.exit(response.text)
        job = response.json()
        print(f"submitted {arguments.spec} as {job['id']}")
        try:
            job = watch(client, job)
        except KeyboardInterrupt:
            client.post(f"{job['links']['self']}/cancel")
            print(f"\ncancelled {job['id']}")
            sys.exit(130)
        if job["status"] != "succeeded":
            sys.exit(f"{job['id']} {job['status']}: {json.dumps(job['error'], indent=2)}")
        arguments.output.mkdir(parents=True, exist_ok=True)
        download(client, job, "spec.json", arguments.output)
        sha256 = download(client, job, "model.safetensors", arguments.output)
    print(f"test accuracy {job['result']['test_accuracy']}")
    print(f"weights       {arguments.output / 'model.safetensors'}")
    print(f"SHA-256       {sha256} (as the API says)")


if __name__ == "__main__":
    main()
