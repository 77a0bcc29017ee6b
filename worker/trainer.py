"""`python -m worker.trainer`: the process that trains one attempt at a job, and nothing else.

It reads its request and then pings from descriptor 0, writes its messages to descriptor 3, and ends at once when nobody
pings it any more. SIGTERM asks it to stop after the current step. It exits with 0 after `result`, 1 after `error`, and
75 after `stopped`; anything else is a crash.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from worker.disk import is_disk_full
from worker.memory import Shortage, machine_bytes, shortage

PING_TIMEOUT_SECONDS = 8.0
REQUESTS = 0
EVENTS = 3
EXIT_ERROR = 1
EXIT_STOPPED = 75
EXIT_ABANDONED = 70


class Channel:
    """The pipe to the supervisor: one JSON object per line, each written whole."""

    def __init__(self) -> None:
        os.set_inheritable(EVENTS, False)
        self._lock = threading.RLock()  # a signal handler may send while the main thread does

    def send(self, type: str, **fields: object) -> None:
        line = json.dumps({"type": type, **_json(fields)}, allow_nan=False).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(EVENTS, line) :]

    def send_event(self, event: Any) -> None:
        """Send a dataclass of `cnn.events` under its name in snake case."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__.rstrip("_")).lower()
        self.send(name, **dataclasses.asdict(event))


class StopSwitch:
    """Turned by SIGTERM. Before training has begun there is nothing to save, so the process ends at once."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._training = False
        self._on = False
        signal.signal(signal.SIGTERM, self._turn)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the supervisor's to handle

    def training_begins(self) -> None:
        self._training = True

    def __call__(self) -> bool:
        return self._on

    def _turn(self, *_: object) -> None:
        self._on = True
        if not self._training:
            self._channel.send("stopped", epoch=0, step=0)
            os._exit(EXIT_STOPPED)


def main() -> NoReturn:
    request = _read_request()
    if sys.platform == "linux":
        # Where memory runs out, the kernel should kill the process that took it, not its worker or the database.
        Path("/proc/self/oom_score_adj").write_text("500")
    channel = Channel()
    stop = StopSwitch(channel)
    threading.Thread(target=_watch, name="watchdog", daemon=True).start()
    code = _train(request, channel, stop)
    with suppress(OSError):  # where the disk is full, what matters was said through the pipe
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # what libraries do at a normal exit cannot turn a finished job into a crash


def _train(request: Mapping[str, Any], channel: Channel, stop: StopSwitch) -> int:
    """Run the request and report why it cannot go on, if so; returns the exit code."""
    from safetensors import SafetensorError  # noqa: PLC0415

    from cnn.errors import TrainingError, is_out_of_memory  # noqa: PLC0415

    device = request["device"]
    try:
        _prepare_torch(request["threads"], device, request["native"], channel)
        # A worker that wants to know its determinism domain sends no spec.
        return _tell(request, channel, stop) if "spec" in request else 0
    except TrainingError as error:
        channel.send("error", code=error.code, message=error.message, blame=error.blame, hint=error.hint)
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        hint = "the job goes on by itself when there is room"
        channel.send("error", code="disk_full", message=f"the disk is full: {error}", blame="capacity", hint=hint)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        lacked = _shortage(request["spec"], device)
        message = f"not enough memory on {device}: {(str(error).splitlines() or ['no details'])[0]}; {lacked.predicted}"
        channel.send("error", code="out_of_memory", message=message, blame="capacity", hint=lacked.hint)
    return EXIT_ERROR


def _prepare_torch(threads: int, device: str, native: bool, channel: Channel) -> None:
    # The watchdog and the signal handler stand before these seconds of imports begin.
    import torch  # noqa: PLC0415

    from cnn.determinism import determinism_domain, set_threads  # noqa: PLC0415
    from cnn.errors import TrainingError  # noqa: PLC0415
    from cnn.native import library  # noqa: PLC0415

    set_threads(threads)
    if native:
        library.use(library.find())
    if torch.get_num_threads() != threads:
        message = f"the job trains with {threads} threads, but torch takes {torch.get_num_threads()}"
        raise TrainingError("internal", message, "platform", "the operation that came before is a defect")
    if device == "cuda" and not torch.cuda.is_available():
        message = "the job was claimed for a GPU, but torch finds none that it can use"
        hint = "check the driver and the installed torch build on the worker"
        raise TrainingError("device_unavailable", message, "platform", hint)
    determinism = determinism_domain(torch.device(device))
    channel.send("started", pid=os.getpid(), threads=threads, device=device, determinism=determinism)


def _tell(request: Mapping[str, Any], channel: Channel, stop: StopSwitch) -> int:
    """Load the data, train, and send every event; those for people go to the log, too."""
    from cnn.events import Phase, Stopped, describe  # noqa: PLC0415
    from cnn.spec import TrainingSpec  # noqa: PLC0415
    from cnn.training import train  # noqa: PLC0415

    channel.send("phase", phase="preparing_data")
    spec = TrainingSpec.model_validate_json(json.dumps(request["spec"]))
    data = spec.dataset.load(Path(request["dataset_dir"]))
    channel.send("dataset", digest=data.digest)
    stop.training_begins()
    init_weights, resume_from = request["init_weights"], request["resume_from"]
    event = None
    for event in train(
        spec,
        data,
        device=request["device"],
        checkpoints=Path(request["checkpoints_dir"]),
        artifacts=Path(request["artifacts_dir"]),
        init_weights=None if init_weights is None else Path(init_weights),
        resume_from=None if resume_from is None else Path(resume_from),
        stop=stop,
    ):
        if event == Phase("preparing_data"):
            continue  # it began above
        if line := describe(event):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()  # the log must have it even when this process is killed next
        channel.send_event(event)
    return EXIT_STOPPED if isinstance(event, Stopped) else 0


def _shortage(spec: Mapping[str, Any], device: str) -> Shortage:
    import torch  # noqa: PLC0415

    from cnn.spec import TrainingSpec  # noqa: PLC0415

    available = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else machine_bytes()
    return shortage(TrainingSpec.model_validate_json(json.dumps(spec)), available)


def _read_request() -> dict[str, Any]:
    """The first line of descriptor 0; what came behind it are pings."""
    buffer = b""
    while b"\n" not in buffer:
        chunk = os.read(REQUESTS, 65536)
        if not chunk:
            sys.exit("worker.trainer is started by a worker: it expects a line of JSON on its standard input")
        buffer += chunk
    line: dict[str, Any] = json.loads(buffer.partition(b"\n")[0])
    return line


def _watch() -> None:
    """End the process when the supervisor is gone, or too silent to be the holder of the job any more."""
    while True:
        readable, _, _ = select.select([REQUESTS], [], [], PING_TIMEOUT_SECONDS)
        if not readable or not os.read(REQUESTS, 4096):
            os.write(2, b"the supervisor is gone: this trainer ends\n")
            os._exit(EXIT_ABANDONED)


def _json(value: Any) -> Any:
    """The value as JSON can carry it: null for a float that is not finite, text for a path."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    main()
