"""Starting from the weights of an earlier run."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from cnn.errors import TrainingError

OWN = "normalization."
"""The statistics of the input are always those of the run's own training split."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a network took over from a file, by the names of tensors."""

    sha256: str
    """Of the file."""
    taken: tuple[str, ...]
    missing: tuple[str, ...]
    """In the network, but not in the file: as freshly initialized."""
    unused: tuple[str, ...]
    """In the file, but not in the network."""
    other_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """Of another shape in the file (first) than in the network (second): as freshly initialized."""

    @property
    def is_whole(self) -> bool:
        return not (self.missing or self.unused or self.other_shape)

    def __str__(self) -> str:
        shapes = (f"{name} ({old} there, {new} here)" for name, (old, new) in self.other_shape.items())
        parts = {"missing there": self.missing, "not used": self.unused, "of another shape": tuple(shapes)}
        rest = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)
        return f"took over {len(self.taken)} tensors of the initial weights" + (f"; {rest}" if rest else "")

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def take_over(network: nn.Module, path: Path) -> Transfer:
    """Copy the tensors of a safetensors file into `network` where name and shape are the same.

    Raises TrainingError when the file cannot be read, or none of its tensors is a parameter of the network.
    """
    try:
        content = path.read_bytes()
        found = load(content)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            "initial_weights_unreadable", f"the initial weights {path} cannot be read: {error}", "user"
        ) from error
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(OWN)}
    found = {name: tensor for name, tensor in found.items() if not name.startswith(OWN)}
    taken = [name for name in own if name in found and found[name].shape == own[name].shape]
    if not set(taken) & {name for name, _ in network.named_parameters()}:
        raise TrainingError(
            "initial_weights_do_not_fit",
            f"no tensor of {path.name} has the name and shape of a parameter of this network; it has "
            f"{', '.join(found) or 'none'}, expected some of {', '.join(own)}",
            "user",
            "give the layers the names that they have in the other network",
        )
    network.load_state_dict({name: found[name] for name in taken}, strict=False)
    return Transfer(
        sha256=hashlib.sha256(content).hexdigest(),
        taken=tuple(taken),
        missing=tuple(name for name in own if name not in found),
        unused=tuple(name for name in found if name not in own),
        other_shape={
            name: (tuple(found[name].shape), tuple(own[name].shape))
            for name in own
            if name in found and name not in taken
        },
    )
