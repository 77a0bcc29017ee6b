from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli import app
from tests.server.seeding import SPEC, Seed
from tests.server.serving import Server
from worker.jobs import JobStatus
from worker.store import jobs

CONTENT = b"weights" * 1000


@pytest.fixture
def epochd(server: Server) -> Epochd:
    return Epochd(server.url)


class Epochd:
    """Runs the command against the server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, arguments, input=input, env={"EPOCHD_URL": self.url, "COLUMNS": "200"})


def test_a_spec_file_is_submitted_and_the_job_shown(epochd: Epochd, tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(SPEC))
    submitted = epochd("submit", str(file), "--name", "mine", "--tag", "a", "--tag", "b")
    assert submitted.exit_code == 0
    job_id = submitted.stdout.strip()
    shown = epochd("show", job_id, "--json")
    assert json.loads(shown.stdout)["tags"] == ["a", "b"]
    assert json.loads(epochd("show", job_id).stdout)["status"] == "queued"
    listed = epochd("ls")
    assert job_id in listed.stdout
    assert "mine" in listed.stdout
    cancelled = epochd("cancel", job_id)
    assert (cancelled.exit_code, cancelled.stdout.strip()) == (0, f"{job_id} is cancelled")


def test_a_job_is_submitted_with_all_that_can_be_asked(epochd: Epochd) -> None:
    def submit(*options: str) -> Result:
        return epochd("submit", "-", *options, "--json", input=json.dumps(SPEC))

    first = json.loads(submit("--priority", "7", "--max-runtime", "60", "--on-domain-change", "continue").stdout)
    assert (first["priority"], first["limits"], first["on_domain_change"]) == (
        7,
        {"max_runtime_seconds": 60},
        "continue",
    )
    assert json.loads(submit("--on-duplicate", "reuse").stdout)["id"] == first["id"]
    assert json.loads(submit().stdout)["id"] != first["id"]
    refused = submit("--on-duplicate", "reject")
    assert refused.exit_code == 2
    assert "expected a spec that no job has had" in refused.stderr
    for wrong in (("--on-duplicate", "replace"), ("--max-runtime", "0")):
        assert submit(*wrong).exit_code == 2


def test_a_spec_comes_from_standard_input_too(epochd: Epochd) -> None:
    result = epochd("submit", "-", "--json", input=json.dumps(SPEC))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "queued"


def test_watching_shows_the_result_and_exits_0(epochd: Epochd, seed: Seed) -> None:
    job = seed.succeeded({"model.safetensors": CONTENT})
    result = epochd("watch", job.id)
    assert result.exit_code == 0
    assert "test accuracy 0.9000, test loss 0.2500" in result.stdout
    lines = epochd("watch", job.id, "--json").stdout.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["succeeded"]


def test_watching_a_failed_job_says_why_and_exits_1(epochd: Epochd, seed: Seed) -> None:
    result = epochd("watch", seed.failed().id)
    assert result.exit_code == 1
    assert "(diverged): the loss is not finite at step 7" in result.stdout
    assert "lower lr" in result.stdout


def test_watching_prints_a_line_for_each_epoch(epochd: Epochd, seed: Seed) -> None:
    job = seed.running()
    seed.points(job, {"train_loss": [0.5, 0.25], "train_accuracy": [0.75, 0.875], "val_loss": [0.625, None]})
    with seed.database.write() as connection:
        held = jobs.lock(connection, job.id)
        jobs.move(connection, held, JobStatus.CANCELLED, reason="cancelled")
    result = epochd("watch", job.id)
    assert result.exit_code == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "epoch   1  train loss 0.5000  accuracy 0.7500   val loss 0.6250" in lines
    assert "epoch   2  train loss 0.2500  accuracy 0.8750   val loss not finite" in lines
    assert f"{job.id} cancelled" in lines


def test_metrics_and_logs_are_printed(epochd: Epochd, seed: Seed) -> None:
    job = seed.running()
    seed.points(job, {"val_loss": [0.5, None]})
    seed.log(job, "epoch 1\nepoch 2\n")
    table = epochd("metrics", job.id).stdout
    assert "0.5" in table
    assert "not finite" in table
    points = epochd("metrics", job.id, "--json", "--key", "val_loss").stdout.splitlines()
    assert [json.loads(line)["value"] for line in points] == [0.5, None]
    assert epochd("logs", job.id).stdout == "epoch 1\nepoch 2\n"
    assert epochd("logs", job.id, "--tail", "1").stdout == "epoch 2\n"
    assert epochd("logs", job.id, "--json").stdout == '{"line": "epoch 1"}\n{"line": "epoch 2"}\n'


def test_artifacts_are_downloaded_one_or_all(epochd: Epochd, seed: Seed, tmp_path: Path) -> None:
    job = seed.succeeded({"model.safetensors": CONTENT, "spec.json": b"{}"})
    one = epochd("download", job.id, "model.safetensors", "-o", str(tmp_path / "best.safetensors"))
    assert one.exit_code == 0
    assert (tmp_path / "best.safetensors").read_bytes() == CONTENT
    folder = tmp_path / "all" / "of it"
    every = epochd("download", job.id, "-o", str(folder), "--json")
    assert every.exit_code == 0
    assert [json.loads(line)["path"] for line in every.stdout.splitlines()] == [
        str(folder / "model.safetensors"),
        str(folder / "spec.json"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"),
        ("[]", "expected a JSON object, got list"),
        (json.dumps({**SPEC, "optimizer": {"type": "sgd", "lr": -1}}), "/spec/optimizer/lr: expected a finite number"),
    ],
)
def test_a_bad_spec_exits_2_and_says_where(epochd: Epochd, text: str, said: str) -> None:
    result = epochd("submit", "-", input=text)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_job_rests_goes_on_is_tried_again_and_deleted(epochd: Epochd, seed: Seed) -> None:
    job_id = seed.queued().id
    said = [
        epochd(*arguments).stdout.strip().removeprefix(f"{job_id} ")
        for arguments in [
            ("pause", job_id),
            ("resume", job_id),
            ("cancel", job_id, "--now"),
            ("retry", job_id, "--scratch"),
            ("cancel", job_id),
            ("rm", job_id),
        ]
    ]
    assert said == ["is paused", "is queued", "is cancelled", "is queued", "is cancelled", "is deleted"]
    assert epochd("show", job_id).exit_code == 4


@pytest.mark.parametrize(
    "arguments", [("submit", "no/such/file.json"), ("show",), ("dance",), ("logs", "x", "--tail", "-1")]
)
def test_wrong_usage_exits_2(epochd: Epochd, arguments: tuple[str, ...]) -> None:
    assert epochd(*arguments).exit_code == 2


@pytest.mark.parametrize(
    "command", ["show", "watch", "logs", "metrics", "cancel", "download", "pause", "resume", "retry", "rm"]
)
def test_an_unknown_job_exits_4(epochd: Epochd, command: str) -> None:
    result = epochd(command, "job_00000000000000000000000000")
    assert result.exit_code == 4
    assert "job_00000000000000000000000000" in result.stderr


def test_a_server_that_is_away_exits_3_and_says_how_to_start_it() -> None:
    result = Epochd("http://127.0.0.1:1")("ls")
    assert result.exit_code == 3
    assert "epochd up --dev" in result.stderr


def test_the_installed_command_lists_what_it_can() -> None:
    command = [str(Path(sys.executable).with_name("epochd")), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(
        name in text for name in ("up", "submit", "watch", "ls", "show", "logs", "metrics", "cancel", "download")
    )
