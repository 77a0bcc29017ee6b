"""`epochd plan`, `compare`, `workers`, errors and exit codes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cnn.spec import TrainingSpec
from server.app import create_app
from server.cli import app
from server.compare_cli import different, leaves
from server.plan_cli import bytes_text, seconds_text
from tests.server.seeding import SPEC, Seed
from tests.server.serving import Server, serving
from tests.server.test_cli import Epochd
from worker.jobs import Job
from worker.settings import Settings
from worker.store import jobs, keys, workers
from worker.store.keys import Scope


@pytest.fixture
def epochd(server: Server) -> Epochd:
    return Epochd(server.url)


def submit(seed: Seed, name: str, **changes: object) -> Job:
    with seed.database.write() as connection:
        return jobs.create(connection, spec=TrainingSpec.model_validate({**SPEC, **changes}), name=name)


def test_a_plan_shows_layers_totals_and_warnings(epochd: Epochd, tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    decays = {"type": "adamw", "weight_decay": 0.01}
    file.write_text(json.dumps({**SPEC, "optimizer": decays, "regularizers": [{"type": "l2"}]}))
    shown = epochd("plan", str(file)).stdout
    rows = [line.split() for line in shown.splitlines()]
    # 4 filters of 1 x 3 x 3 with bias, at 8 x 8 places: 40 parameters, 4 · 9 · 64 products
    conv = next(row for row in rows if row[:2] == ["conv1", "conv2d"])
    assert conv[2:5] == ["4x8x8", "40", "2,304"]
    # 256 inputs to 10 outputs: 2,560 weights and 10 biases
    fc = next(row for row in rows if row[:2] == ["fc1", "linear"])
    assert fc[3:5] == ["2,570", "2,560"]
    assert "2,610 parameters, 10.2 KiB" in shown
    assert "…" not in shown  # nothing is cut at 80 columns
    assert "no worker is there that could train it" in shown
    assert "warning   /spec/regularizers/0: weights shrink twice: " in shown
    document = json.loads(epochd("plan", "-", "--json", input=file.read_text()).stdout)
    assert document["totals"]["num_parameters"] == 2610
    assert epochd("ls", "--json").stdout == ""


def test_a_plan_of_a_wrong_spec_exits_2_and_says_where(epochd: Epochd) -> None:
    result = epochd("plan", "-", input=json.dumps({**SPEC, "optimizer": {"type": "sgd", "lr": -1}}))
    assert result.exit_code == 2
    assert "/spec/optimizer/lr: expected a finite number" in result.stderr


def test_a_file_that_is_not_there_is_named_once(epochd: Epochd) -> None:
    result = epochd("plan", "no-such.json")
    assert (result.exit_code, result.stderr) == (2, "no-such.json: No such file or directory\n")


def test_a_comparison_shows_what_differs_and_the_metrics(epochd: Epochd, seed: Seed) -> None:
    first, second = seed.succeeded({"model.safetensors": b"weights"}), submit(seed, "wide", split={"seed": 7})
    document = json.loads(epochd("compare", first.id, second.id, "--json").stdout)
    assert document["different"] == {"/split/seed": [0, 7]}
    assert document["metrics"]["test_accuracy"] == [0.9, None]
    assert [each["status"] for each in document["jobs"]] == ["succeeded", "queued"]
    shown = epochd("compare", first.id, second.id).stdout
    assert [line.split() for line in shown.splitlines() if line.strip().startswith("test_accuracy")] == [
        ["test_accuracy", "0.9", "–"]
    ]
    assert "wide" in shown
    assert "/optimizer" not in shown


def test_only_one_job_is_no_comparison(epochd: Epochd, seed: Seed) -> None:
    job = seed.queued()
    result = epochd("compare", job.id, job.id)
    assert (result.exit_code, "two jobs or more" in result.stderr) == (2, True)


def test_leaves_are_named_by_pointers_and_compared() -> None:
    one = dict(leaves({"a": {"b/c": [1, {"d": None}]}, "e": []}))
    assert one == {"/a/b~1c/0": 1, "/a/b~1c/1/d": None, "/e": []}
    other = {**one, "/a/b~1c/0": 2, "/f": "x"}
    assert different([one, other, one]) == {"/a/b~1c/0": [1, 2, 1], "/f": [None, "x", None]}


def test_workers_are_listed(epochd: Epochd, seed: Seed) -> None:
    with seed.database.write() as connection:
        workers.register(connection, worker_id="w-1", host="lab", pid=1, device="cuda", slots=2, threads=3)
    assert epochd("workers").stdout.splitlines()[1].split() == ["w-1", "lab", "active", "cuda", "2", "3", "0"]
    assert json.loads(epochd("workers", "--json").stdout)["slots"] == 2


def test_a_list_is_narrowed_by_name_and_tag(epochd: Epochd, seed: Seed) -> None:
    wanted, _ = submit(seed, "mine"), submit(seed, "other")
    assert json.loads(epochd("ls", "--name", "mine", "--json").stdout)["id"] == wanted.id
    assert epochd("ls", "--tag", "none", "--json").stdout == ""


def test_a_name_with_markup_is_printed_as_it_is(epochd: Epochd, seed: Seed) -> None:
    submit(seed, "[red]x[/red]")
    assert "[red]x[/red]" in epochd("ls").stdout


def test_a_log_that_comes_in_pieces_is_one_document_a_line(epochd: Epochd, seed: Seed) -> None:
    job = seed.failed()
    seed.log(job, "one\ntwo\n\nno end")
    for arguments in (("--json",), ("--json", "-f")):
        lines = epochd("logs", job.id, *arguments).stdout.splitlines()
        assert [json.loads(line)["line"] for line in lines] == ["one", "two", "", "no end"]


@pytest.mark.parametrize("part", ["the name", "the start", "the end", "a slip"])
def test_an_unknown_job_is_answered_with_one_that_was_meant(epochd: Epochd, seed: Seed, part: str) -> None:
    job = submit(seed, "fashion")
    submit(seed, "else")
    slip = job.id[:-3] + ("0" if job.id[-3] != "0" else "1") + job.id[-2:]
    wanted = {"the name": "fashion", "the start": job.id[:-1], "the end": job.id[-6:], "a slip": slip}[part]
    result = epochd("show", wanted)
    assert result.exit_code == 4
    assert f"Did you mean:\n  {job.id}  fashion\n" in result.stderr


def test_an_unknown_job_that_is_like_none_is_answered_with_how_to_list(epochd: Epochd, seed: Seed) -> None:
    seed.queued()
    assert "`epochd ls` shows what there is" in epochd("show", "nothing").stderr
    assert "`epochd dataset ls` shows what there is" in epochd("dataset", "show", "nothing").stderr


def test_a_missing_key_exits_5_and_says_how_to_get_one(seed: Seed, settings: Settings) -> None:
    with seed.database.write() as connection:
        _, secret = keys.create(connection, name="reader", scope=Scope.READ)
    with serving(create_app(settings.model_copy(update={"auth": "keys"}))) as server:
        epochd = Epochd(server.url)
        missing = epochd("ls")
        assert (missing.exit_code, "epochd keys create" in missing.stderr) == (5, True)
        assert epochd("--api-key", secret, "ls").exit_code == 0
        refused = epochd("--api-key", secret, "submit", "-", input=json.dumps(SPEC))
        assert (refused.exit_code, "expected a key of scope submit" in refused.stderr) == (5, True)


@pytest.mark.parametrize("url", ["localhost:8000", "http://host:port"])
def test_what_is_no_url_exits_2(url: str) -> None:
    result = Epochd(url)("ls")
    assert (result.exit_code, "expected a URL such as" in result.stderr) == (2, True)


def test_a_place_that_cannot_be_written_exits_2(epochd: Epochd, seed: Seed, tmp_path: Path) -> None:
    job = seed.succeeded({"model.safetensors": b"weights"})
    (tmp_path / "file").write_text("")
    result = epochd("download", job.id, "-o", str(tmp_path / "file" / "below"))
    assert (result.exit_code, "name another place with --output" in result.stderr) == (2, True)


def test_what_is_deleted_is_named_in_json(epochd: Epochd, seed: Seed) -> None:
    job = seed.failed()
    assert json.loads(epochd("rm", job.id, "--json").stdout) == {"id": job.id, "deleted": True}


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**30, "3.0 GiB")])
def test_sizes_in_words(number: int, text: str) -> None:
    assert bytes_text(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(41.2, "41 s"), (150, "2 min"), (9000, "2.5 h")])
def test_times_in_words(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_keys_are_told_in_json_without_their_secret(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHD_DATA_DIR", str(settings.data_dir))
    epochd = Epochd("http://127.0.0.1:1")
    made = json.loads(epochd("keys", "create", "laptop", "--days", "1", "--json").stdout)
    assert datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC) < timedelta(days=1)
    secret = made.pop("secret")
    assert secret.startswith("epk_")
    assert json.loads(epochd("keys", "ls", "--json").stdout) == made
    revoked = json.loads(epochd("keys", "revoke", made["id"], "--json").stdout)
    assert (revoked["id"], revoked["status"]) == (made["id"], "revoked")
    assert epochd("keys", "revoke", "key_x").exit_code == 4


def commands() -> list[tuple[str, ...]]:
    """Every command, with the group that it is in."""
    groups = [((str(group.name),), group.typer_instance) for group in app.registered_groups if group.typer_instance]
    return [
        (*prefix, command.name or str(command.callback.__name__))
        for prefix, one in [((), app), *groups]
        for command in one.registered_commands
        if command.callback is not None
    ]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_but_up_prints_json(command: tuple[str, ...]) -> None:
    text = Epochd("http://127.0.0.1:1")(*command, "--help").stdout
    assert ("--json" in text) == (command != ("up",))
