"""The README's code is run as it stands there, and its tables are compared with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.spec import TrainingSpec
from tests.integration.group import Group
from worker.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def python_block(containing: str) -> str:
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if containing in block]
    return str(block)


def run(program: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    group = Group(tmp_path / "epochd-data")
    yield group
    group.close()


def test_the_scripts_train_and_load_a_network(group: Group, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = python_block("import httpx").replace("http://127.0.0.1:8000", str(group.client.base_url))
    result = run(script, tmp_path).splitlines()[-1]
    job = group.client.get("/v1/jobs").json()["data"][0]
    assert result == str(job["result"])
    folder = tmp_path / "epochd-data" / "demo"
    folder.mkdir()
    (tmp_path / "model.safetensors").rename(folder / "model.safetensors")
    (folder / "spec.json").write_bytes(group.client.get(job["links"]["artifacts"] + "/spec.json").content)
    assert run(python_block("load_state_dict"), tmp_path) == f"{job['result']['test_accuracy']}\n"


def test_the_table_of_settings_is_complete() -> None:
    rows = re.findall(r"^\| `(EPOCHD_\w+)` \| `?(.*?)`? \| (.+) \|$", README, re.MULTILINE)
    assert rows == [
        (
            f"EPOCHD_{name.upper()}",
            "" if field.default is None else str(field.default),
            " ".join(str(field.description).split()),
        )
        for name, field in Settings.model_fields.items()
    ]


def test_the_map_of_the_tree_names_what_exists() -> None:
    tree = README[README.index("## Map of the tree") :].split("```")[1]
    names = re.findall(r"\w+(?:\.py|/)(?=\s|,)", tree)
    assert len(names) > 20
    folders = (ROOT, ROOT / "cnn", ROOT / "worker", ROOT / "server")
    assert [name for name in names if not any((folder / name).exists() for folder in folders)] == []


def test_the_table_of_techniques_is_complete() -> None:
    rows = dict(re.findall(r"^\| `([a-z.]+)` \| (`[a-z0-9_]+`(?:, `[a-z0-9_]+`)*) \|$", README, re.MULTILINE))
    schema = TrainingSpec.model_json_schema()["$defs"]
    families = {"model.layers": "Layer", "regularizers": "Regularizer"}
    for part, types in rows.items():
        family = schema[families.get(part, part.title())]
        tags = (
            family["discriminator"]["mapping"] if "discriminator" in family else [family["properties"]["type"]["const"]]
        )
        assert sorted(re.findall(r"`(\w+)`", types)) == sorted(tags), part
    assert len(rows) == 9
