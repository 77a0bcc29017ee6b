"""Small programs that speak the trainer's protocol, for tests of what supervises trainers."""

from __future__ import annotations

import sys

PRELUDE = """
import json, os, pathlib, signal, subprocess, sys, threading, time
request = json.loads(sys.stdin.readline())
artifacts = pathlib.Path(request["artifacts_dir"]) if "artifacts_dir" in request else None
def send(type, **fields):
    os.write(3, (json.dumps({"type": type, **fields}) + "\\n").encode())
if "threads" in request and "spec" not in request:
    send("started", pid=os.getpid(), threads=1, device="cpu", determinism={"device": "cpu"})
    sys.exit()
def train_forever():
    send("started", pid=os.getpid(), threads=1, device="cpu", determinism={"device": "cpu"})
    while True:
        time.sleep(0.01)
def stop_politely(*_):
    send("stopped", epoch=1, step=3)
    os._exit(75)
"""

RESULT = """
(artifacts / "model.safetensors").write_bytes(b"weights")
send("artifact", name="model.safetensors", path=str(artifacts / "model.safetensors"),
     media_type="application/octet-stream", step=20)
send("result", test_loss=0.5, test_accuracy=0.75, weights="best", epoch=2, step=20)
"""

SUCCEEDS = f"""
send("started", pid=os.getpid(), threads=1, device="cpu", determinism={{"device": "cpu"}})
send("dataset", digest="sha256:0")
send("phase", phase="training")
send("progress", epoch=1, epochs=2, step=10, num_steps=20)
send("metrics", epoch=1, step=10, values={{"val_loss": 0.5}}, timings={{"seconds": 1.0}})
send("warning", message="careful")
send("progress", epoch=2, epochs=2, step=20, num_steps=20)
send("metrics", epoch=2, step=20, values={{"val_loss": None}}, timings={{"seconds": 1.0}})
{RESULT}
"""

POLITE = "signal.signal(signal.SIGTERM, stop_politely); train_forever()"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); train_forever()"
WITH_GRANDCHILDREN = """
signal.signal(signal.SIGTERM, stop_politely)
for ignore in ("", "trap '' TERM; "):
    subprocess.Popen(["sh", "-c", ignore + "while :; do sleep 1; done"], pass_fds=(3,))
train_forever()
"""


def program(body: str) -> list[str]:
    """The command of a trainer that reads its request and then runs `body`."""
    return [sys.executable, "-c", PRELUDE + body]
