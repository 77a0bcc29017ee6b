from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cnn import checkpoints
from cnn.checkpoints import STATE, TENSORS, generations, load, save, step_of
from cnn.errors import CheckpointInvalid

CPU = torch.device("cpu")
VALUES = {
    "weight": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "step": torch.tensor(3.0),
    "loss": torch.tensor(1 / 3, dtype=torch.float64),
    "seen": torch.tensor(2**40),
}


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    state = {"value": 0.1 + 0.2, "metrics": [{"epoch": 1, "values": {"loss": 1 / 3}}], "none": None}
    path = save(tmp_path / "checkpoints", 7, VALUES, state)
    assert path == tmp_path / "checkpoints" / "step-7"
    tensors, loaded = load(path, CPU)
    assert loaded == state
    assert tensors.keys() == VALUES.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == VALUES[name].dtype
        assert torch.equal(tensor, VALUES[name])
    # Neither dense nor channels last:
    transposed = torch.randn(5, 4, 3, 2).transpose(0, 3)
    path = save(tmp_path, 8, {"transposed": transposed, "part": transposed[:1]}, {})
    assert torch.equal(load(path, CPU)[0]["transposed"], transposed)
    assert torch.equal(load(path, CPU)[0]["part"], transposed[:1])


def test_what_lies_channels_last_is_written_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, torch.Tensor] = {}

    def keep(tensors: dict[str, torch.Tensor], path: Path) -> None:
        written.update(tensors)
        save_file(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", keep)
    path = save(tmp_path, 1, VALUES, {})
    assert {name: tensor.data_ptr() for name, tensor in written.items()} == {
        name: tensor.data_ptr() for name, tensor in VALUES.items()
    }
    assert load(path, CPU)[0]["weight"].stride() == VALUES["weight"].stride()


def test_two_generations_are_kept(tmp_path: Path) -> None:
    for step in (1, 9, 10, 100):
        save(tmp_path, step, VALUES, {})
    assert [path.name for path in generations(tmp_path)] == ["step-100", "step-10"]
    assert [step_of(path) for path in generations(tmp_path)] == [100, 10]


def test_a_folder_that_was_not_finished_is_no_checkpoint_and_goes_with_the_next(tmp_path: Path) -> None:
    save(tmp_path, 1, VALUES, {})
    (tmp_path / ".step-2").mkdir()
    (tmp_path / ".step-2" / TENSORS).write_bytes(b"half")
    assert [path.name for path in generations(tmp_path)] == ["step-1"]
    save(tmp_path, 3, VALUES, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-3"]


def test_the_same_step_can_be_written_again(tmp_path: Path) -> None:
    save(tmp_path, 1, VALUES, {"try": 1})
    path = save(tmp_path, 1, VALUES, {"try": 2})
    assert load(path, CPU)[1] == {"try": 2}


@pytest.mark.parametrize("name", [TENSORS, STATE])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_damage_is_noticed(tmp_path: Path, name: str, damage: str) -> None:
    path = save(tmp_path, 1, VALUES, {"a": 1})
    file = path / name
    content = bytearray(file.read_bytes())
    match damage:
        case "flip":
            place = content.index(b'"sha256"') + 12 if name == STATE else len(content) - 5
            content[place] ^= 1
        case "cut":
            del content[len(content) // 2 :]
        case "empty":
            content.clear()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(CheckpointInvalid, match="step-1"):
        load(path, CPU)


def test_a_state_with_a_changed_number_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 1, VALUES, {"waited": 1})
    content = json.loads((path / STATE).read_text())
    content["state"]["waited"] = 2
    (path / STATE).write_text(json.dumps(content))
    with pytest.raises(CheckpointInvalid, match="step-1"):
        load(path, CPU)
