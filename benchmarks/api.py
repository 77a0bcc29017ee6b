"""What an answer of the API takes, beside MLflow's tracking server and Ray's jobs doing what is nearest to it.

python -m benchmarks.api --peers-venv ~/.cache/epochd-peers        about five minutes; installs MLflow and Ray there

First one caller asks both servers in turn, so that whatever else the machine does meets both. Then calls come at a
fixed rate, whatever the answers take, and each is timed from when it was due (an open model: a slow answer does not
hold up the next call). Last, one job after another is submitted to epochd and to Ray.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.alternation import table, write
from benchmarks.servers import Running, epochd, install_peers, mlflow, ray

WHOLE = "create, with its spec"
STORED = 300
"""Jobs or runs that are there before anything is timed."""
PAGE = 50
ROUNDS = 80
JOBS = 8
PAUSE_SECONDS = 1.5
"""Between two jobs, so that each finds an idle worker."""
POLL_SECONDS = 0.02
DEADLINE_SECONDS = 120.0
THREADS = 32
PARTS = {"API": "server", "supervisor": "worker"}
STAGES = ("running", "first step")
RATES = {
    "quiet": {"create": 2, "status": 4, "list": 1, "metrics": 2, "events": 2},
    "busy": {"create": 10, "status": 20, "list": 5, "metrics": 10, "events": 10},
}
"""Calls a second. The quiet ones are what one process of MLflow can answer on a core of its own."""
ONE_STEP: dict[str, Any] = {
    "dataset": {"type": "digits"},
    "split": {"num_train": 64},
    "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 10}]},
    "optimizer": {"type": "sgd", "lr": 0.1},
    "training": {"epochs": 1, "batch_size": 64},
}
WAITING = {**ONE_STEP, "training": {"epochs": 1, "batch_size": 64, "device": "cuda"}}
"""Nobody takes it, so that only the API works."""
RAY_STEP = """
import sys, time, torch
model = torch.nn.Linear(64, 10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.nn.functional.cross_entropy(model(torch.randn(64, 64)), torch.zeros(64, dtype=torch.long)).backward()
optimizer.step()
open(sys.argv[1], "w").write(str(time.time()))
"""

NOTES = (
    f"Milliseconds. First {ROUNDS} calls of each kind by one caller, epochd and MLflow in turn, with {STORED} jobs or "
    f"runs stored and lists of {PAGE} of a tag. Then calls at fixed rates (a second: "
    f"{', '.join(f'{rate} {name}' for name, rate in RATES['quiet'].items())}), each timed from when it was due. "
    "MLflow has no events, and takes two calls for a run with its spec, as params, which its stored runs have. Jobs "
    "of epochd wait for a GPU there: its answers tell places in a queue of hundreds.",
    f"Last, {JOBS} jobs of one training step, each on an idle worker or cluster. epochd tells the times by its events; "
    f"Ray's state is asked for every {1000 * POLL_SECONDS:.0f} ms, and its job is a script that imports torch, makes "
    "one step and writes the time. The supervisor is without the warm launcher that trainers are forked from.",
)

Calls = Mapping[str, Callable[[], None]]
Times = Mapping[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description="Time the API and its peers.")
    parser.add_argument("--peers-venv", type=Path, default=Path.home() / ".cache" / "epochd-peers")
    parser.add_argument("--seconds", type=float, default=20, help="of each rate of calls")
    arguments = parser.parse_args()
    commands = install_peers(arguments.peers_venv.absolute())
    with tempfile.TemporaryDirectory(prefix="epochd-api-") as name:
        folder = Path(name)
        with epochd(folder / "epochd", slots=1, threads=1, rate_limit=1_000_000) as ours:
            started = list(start_jobs(ours))
            with mlflow(commands, folder / "mlflow") as theirs:
                tables = compare_answers(ours, theirs, arguments.seconds)
                sizes = {f"epochd, {part}": ours.megabytes(f" -m {module}") for part, module in PARTS.items()}
                sizes["MLflow"] = theirs.megabytes()
        with ray(commands, folder / "ray") as cluster:
            started_by_ray = list(start_ray_jobs(cluster, folder))
            sizes["Ray"] = cluster.megabytes()
    tables.append(compare("submitted until", "Ray", by_stage(started), by_stage(started_by_ray)))
    rows = [[name, f"{shared:.0f}", f"{private:.0f}"] for name, (shared, private) in sizes.items()]
    tables.append(table(("memory, MB", "proportional", "private"), rows))
    write("api", "Answers of the API", tables, NOTES)


def compare_answers(epochd: Running, mlflow: Running, seconds: float) -> list[str]:
    """Tables of calls in turn, and of calls at each rate; MLflow is asked at the quiet one alone."""
    done = epochd.http.get("/v1/jobs", params={"status": "succeeded", "limit": 1}).json()["data"][0]
    ours, theirs = our_calls(epochd, done["links"]), mlflow_calls(mlflow, done["spec"])
    for _ in range(STORED):
        ours[WHOLE]()
        theirs[WHOLE]()
    pairs = [in_turn(ours[name], theirs[name]) for name in theirs]
    first, second = ({name: pair[side] for name, pair in zip(theirs, pairs, strict=True)} for side in (0, 1))
    tables = [compare("in turn", "MLflow", first, second)]
    quiet = at_rates(ours, RATES["quiet"], seconds)
    tables.append(compare("at quiet rates", "MLflow", quiet, at_rates(theirs, RATES["quiet"], seconds)))
    busy = at_rates(ours, RATES["busy"], seconds)
    rows = [[name, str(RATES["busy"][name]), *cells(times)] for name, times in busy.items()]
    tables.append(table(("at busy rates", "a second", "epochd p50", "p99"), rows))
    return tables


def our_calls(server: Running, done: Mapping[str, str]) -> Calls:
    """What a script does with jobs; `done` are the links of one that has series and events."""
    http = server.http
    body = {"spec": WAITING, "name": "waiting", "tags": ["waiting"]}
    create = partial(ask, http, "POST", "/v1/jobs", json=body)
    return {
        "create": create,
        WHOLE: create,
        "status": lambda: ask(http, "GET", done["self"]),
        "list": lambda: ask(http, "GET", "/v1/jobs", params={"limit": PAGE, "tag": "waiting"}),
        "metrics": lambda: ask(http, "GET", done["metrics"]),
        "events": lambda: ask(http, "GET", done["events"]),
    }


def mlflow_calls(server: Running, spec: Mapping[str, Any]) -> Calls:
    """What is nearest to it: runs of an experiment, with a tag, and the resolved spec as params."""
    http, path = server.http, "/api/2.0/mlflow"
    tags = [{"key": "state", "value": "waiting"}]
    new = {"experiment_id": "0", "run_name": "waiting", "start_time": 0, "tags": tags}
    params = [{"key": key, "value": value} for key, value in flattened(spec).items()]

    def create() -> str:
        answer = http.post(f"{path}/runs/create", json=new).raise_for_status()
        return str(answer.json()["run"]["info"]["run_id"])

    def create_whole() -> None:
        ask(http, "POST", f"{path}/runs/log-batch", json={"run_id": create(), "params": params})

    run_id = create()
    for step in range(10):
        point = {"run_id": run_id, "key": "train_loss", "value": 1.0, "timestamp": step, "step": step}
        ask(http, "POST", f"{path}/runs/log-metric", json=point)
    search = {"experiment_ids": ["0"], "max_results": PAGE, "filter": "tags.state = 'waiting'"}
    history = {"run_id": run_id, "metric_key": "train_loss"}
    return {
        "create": lambda: ask(http, "POST", f"{path}/runs/create", json=new),
        WHOLE: create_whole,
        "status": lambda: ask(http, "GET", f"{path}/runs/get", params={"run_id": run_id}),
        "list": lambda: ask(http, "POST", f"{path}/runs/search", json=search),
        "metrics": lambda: ask(http, "GET", f"{path}/metrics/get-history", params=history),
    }


def flattened(value: object, path: str = "spec") -> dict[str, str]:
    """A spec as an experiment tracker keeps it: a text for each of its values."""
    if isinstance(value, dict):
        parts = [flattened(part, f"{path}.{key}") for key, part in value.items()]
    elif isinstance(value, list):
        parts = [flattened(part, f"{path}.{index}") for index, part in enumerate(value)]
    else:
        return {path: str(value)}
    return {key: text for part in parts for key, text in part.items()}


def ask(http: httpx.Client, method: str, path: str, **content: Any) -> None:
    http.request(method, path, **content).raise_for_status()


def in_turn(*calls: Callable[[], None]) -> tuple[list[float], ...]:
    """Milliseconds of each, one after the other, `ROUNDS` times."""
    times: tuple[list[float], ...] = tuple([] for _ in calls)
    for _ in range(ROUNDS):
        for call, found in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            found.append(1000 * (time.perf_counter() - begin))
    return times


def at_rates(calls: Calls, rates: Mapping[str, float], seconds: float) -> Times:
    """Milliseconds from when each call was due to its answer."""
    due = sorted(
        (index / rates[name], name) for name in rates.keys() & calls for index in range(int(seconds * rates[name]))
    )
    times: dict[str, list[float]] = {name: [] for name in rates if name in calls}

    def call(name: str, at: float) -> None:
        calls[name]()
        times[name].append(1000 * (time.perf_counter() - at))

    begin = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        pending = []
        for at, name in due:
            time.sleep(max(0.0, begin + at - time.perf_counter()))
            pending.append(pool.submit(call, name, begin + at))
    for future in pending:
        future.result()
    return times


def start_jobs(server: Running) -> Iterator[dict[str, float]]:
    """Milliseconds from each submission to the stages of the job, as its events tell them."""
    http = server.http
    for number in range(JOBS + 1):
        time.sleep(PAUSE_SECONDS)
        begin = time.time()
        links = http.post("/v1/jobs", json={"spec": ONE_STEP}).raise_for_status().json()["links"]
        wait_until(lambda: http.get(links["self"]).json()["status"] == "succeeded")  # noqa: B023
        events = http.get(links["events"], params={"limit": 200}).json()["data"]
        at = {stage: min(when(event) for event in events if shows(stage, event)) for stage in STAGES}
        if number:  # before the first, the launcher still imports
            yield {stage: 1000 * (moment - begin) for stage, moment in at.items()}


def by_stage(runs: Sequence[Mapping[str, float]]) -> Times:
    return {stage: [run[stage] for run in runs] for stage in STAGES}


def when(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


def shows(stage: str, event: Mapping[str, Any]) -> bool:
    """Whether the job was there when this happened."""
    if stage == "running":
        return event["type"] == "job.status" and event["data"]["to"] == "running"
    return event["type"] == "job.metric" and event["data"]["step"] >= 1


def start_ray_jobs(cluster: Running, folder: Path) -> Iterator[dict[str, float]]:
    """The same stages of jobs that run a script with this Python: the state is asked for, the script tells its step."""
    http, script, mark = cluster.http, folder / "step.py", folder / "step.txt"
    script.write_text(RAY_STEP)
    for number in range(JOBS + 1):
        mark.unlink(missing_ok=True)
        time.sleep(PAUSE_SECONDS)
        begin = time.time()
        body = {"entrypoint": f"{sys.executable} {script} {mark}"}
        path = f"/api/jobs/{http.post('/api/jobs/', json=body).raise_for_status().json()['submission_id']}"
        wait_until(lambda: http.get(path).json()["status"] in ("RUNNING", "SUCCEEDED"))  # noqa: B023
        running = time.time()
        wait_until(lambda: http.get(path).json()["status"] == "SUCCEEDED")  # noqa: B023
        if number:
            yield {"running": 1000 * (running - begin), "first step": 1000 * (float(mark.read_text()) - begin)}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"a job was not there after {DEADLINE_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def compare(what: str, peer: str, ours: Times, theirs: Times) -> str:
    """A table of milliseconds, with how many times as long the peer takes in the median."""
    rows = []
    for name, times in ours.items():
        if name in theirs:
            ratio = statistics.median(theirs[name]) / statistics.median(times)
            rows.append([name, *cells(times), *cells(theirs[name]), f"{ratio:.1f}"])
        else:
            rows.append([name, *cells(times), "", "", ""])
    return table((what, "epochd p50", "p99", f"{peer} p50", "p99", "ratio"), rows)


def cells(times: list[float]) -> list[str]:
    ordered = sorted(times)
    return [f"{statistics.median(ordered):.1f}", f"{ordered[int(0.99 * (len(ordered) - 1))]:.1f}"]


if __name__ == "__main__":
    main()
