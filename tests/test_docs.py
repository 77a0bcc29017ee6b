"""The how-to pages: their shell and Python blocks are run as they stand there, and their tables compared with the code.

A block of the language `bash` or `python` is run; what needs another machine, root or Docker is a block of `sh`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import techniques
from server.cli import app
from server.console import EXIT_CODES
from server.middleware import MAX_PART_BYTES, PART_SECONDS
from tests.integration.group import Group
from worker.jobs import ErrorCode
from worker.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}
HOW_TOS = {name: text for name, text in PAGES.items() if name != "techniques.md"}
README = (ROOT / "README.md").read_text()
DIGITS = "examples/digits.json"
RUN = [name for name, text in HOW_TOS.items() if re.search(r"^```(bash|python)$", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    group = Group(tmp_path_factory.mktemp("docs") / "epochd-data")
    yield group
    group.close()


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """The language and the text of each block of these languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(language, block) for language, block in found if language in languages]


def commands() -> list[str]:
    """Every command as it is typed."""
    groups = [(f"{group.name} ", group.typer_instance) for group in app.registered_groups if group.typer_instance]
    return [
        f"epochd {prefix}{command.name or command.callback.__name__}"
        for prefix, one in [("", app), *groups]
        for command in one.registered_commands
        if command.callback is not None
    ]


@pytest.mark.parametrize("name", RUN)
def test_the_blocks_of_a_page_do_what_they_say(name: str, group: Group, tmp_path: Path) -> None:
    lines = [f"epochd submit {DIGITS} --watch"] if name == "backup.md" else []
    for language, block in blocks(PAGES[name], "bash", "python"):
        lines.append(block if language == "bash" else f"python - <<'PYTHON'\n{block}PYTHON")
    run("\n".join(lines), group, tmp_path)
    if name == "backup.md":
        _check_restored(tmp_path / "restored")


def test_the_readmes_task_is_done_by_the_command(group: Group, tmp_path: Path) -> None:
    (block,) = [block for _, block in blocks(README, "bash") if 'epochd watch "$job"' in block]
    run(block, group, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size > 0


def run(script: str, group: Group, folder: Path) -> None:
    """Run a script as a user of the group would; the example trains for one epoch."""
    spec = json.loads((ROOT / DIGITS).read_text())
    (folder / DIGITS).parent.mkdir()
    (folder / DIGITS).write_text(json.dumps({**spec, "training": {**spec["training"], "epochs": 1}}))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EPOCHD_URL": str(group.client.base_url),
        "EPOCHD_DATA_DIR": str(group.log.with_suffix("")),
    }
    command = ["bash", "-c", f"set -euo pipefail\n{script}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def _check_restored(folder: Path) -> None:
    """What a backup brings back: the jobs, and what they made, to the byte."""
    again = Group(folder)
    try:
        done = again.client.get("/v1/jobs", params={"status": "succeeded"}).json()["data"]
        assert done
        for job in done:
            weights = again.client.get(f"{job['links']['artifacts']}/{job['result']['artifact']}").raise_for_status()
            assert hashlib.sha256(weights.content).hexdigest() == job["result"]["sha256"]
    finally:
        again.close()


@pytest.mark.parametrize("name", HOW_TOS)
def test_shell_blocks_are_shell_and_name_commands_that_exist(name: str) -> None:
    known = commands()
    for _, block in blocks(PAGES[name], "sh", "bash"):
        subprocess.run(["bash", "-n", "-c", block], check=True)
        for words in re.findall(r"(?:^|\(|&& |server )(epochd [a-z]+(?: [a-z]+)?)", block, re.MULTILINE):
            assert any(words == command or words.startswith(f"{command} ") for command in known), words


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[name]):
        assert (DOCS / target).exists(), target


@pytest.mark.parametrize("name", HOW_TOS)
def test_settings_that_are_named_exist(name: str) -> None:
    settings = {f"EPOCHD_{field.upper()}" for field in Settings.model_fields}
    others = {"EPOCHD_URL", "EPOCHD_API_KEY", "EPOCHD_REDIS_PASSWORD", "EPOCHD_DATABASE_PASSWORD"}
    assert set(re.findall(r"EPOCHD_[A-Z_]+[A-Z]", PAGES[name])) <= settings | others


def test_the_readme_leads_to_every_page() -> None:
    assert sorted(set(re.findall(r"\]\(docs/([\w-]+\.md)", README))) == sorted(PAGES)


def test_the_table_of_commands_is_complete() -> None:
    assert sorted(re.findall(r"^\| `(epochd [a-z ]+)` \|", PAGES["command.md"], re.MULTILINE)) == sorted(commands())


def test_the_table_of_exit_codes_is_that_of_the_command() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", PAGES["command.md"], re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_troubleshooting_has_every_reason_why_a_job_fails() -> None:
    reasons = PAGES["troubleshooting.md"].partition("## Why a job failed")[2]
    assert re.findall(r"^\| `(\w+)` \|", reasons, re.MULTILINE) == [str(code) for code in ErrorCode]


def test_the_proxy_lets_parts_pass_and_waits_for_slow_ones() -> None:
    nginx = PAGES["reverse-proxy.md"]
    assert f"client_max_body_size {MAX_PART_BYTES // 2**20}m;" in nginx
    assert f"proxy_send_timeout {PART_SECONDS:.0f}s;" in nginx
    assert f"proxy_pass http://127.0.0.1:{Settings().port};" in nginx


def test_the_page_of_techniques_is_what_the_code_says() -> None:
    assert techniques.TARGET.read_text() == techniques.page(), "run: make docs"


def test_every_technique_has_words_of_its_own() -> None:
    sections = techniques.page().split("\n### ")[1:]
    assert len(sections) > 80
    assert [section for section in sections if not section.split("\n")[2]] == []
