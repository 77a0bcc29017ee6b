"""One run on several devices: each rank, a process of its own, takes a share of every minibatch.

The caller's process is rank 0 and decides everything: it alone evaluates, stops, and writes checkpoints and files. The
others (`python -m cnn.distributed`) read from their input what to do next, a step or the gathering of counts, so no
rank can wait in a collective that another never enters; at the end of that input, when rank 0 is gone, they end.

What is computed: a minibatch of the spec is the one of all ranks together. Every rank draws and augments all of it, as
one device would, and takes a contiguous part; sizes differ by at most one. The gradients of the sum of the losses over
the number of all samples are added up in one all-reduce, so that unequal parts and class weights count as on one
device. Up to rounding this is the run on one device, but for what a layer does with a minibatch: batch normalization
has the statistics of each rank's part, and keeps those of rank 0, as PyTorch's DistributedDataParallel; dropout draws
other masks. Two runs with the same number of devices give the same bytes, and so does one that goes on from a
checkpoint. DistributedDataParallel itself would not: it orders its buckets anew after its first step, and with three
ranks or more the order in which a value is summed depends on its place in a bucket.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from cnn.checkpoints import load
from cnn.data import Data
from cnn.determinism import numerics, set_threads
from cnn.errors import TrainingError, is_out_of_memory
from cnn.native import library
from cnn.spec import TrainingSpec

if TYPE_CHECKING:
    from cnn.run import Run

COLLECTIVE_SECONDS = 120.0
"""How long a rank waits for the others before it gives up; those that die are noticed at once on a CPU."""
END_SECONDS = 5.0
COMPLAINT_SECONDS = 2.0
EXIT_OUT_OF_MEMORY = 12
READY = b"ready\n"
COMMAND = struct.Struct("<qd")
"""A step and its learning rate; step 0 asks for the counts."""
GATHER = 0


class Team:
    """The ranks of a run as one of them sees them, once all have joined.

    Args:
        store: a file in a folder that is empty before, through which the ranks find each other.
    """

    def __init__(self, rank: int, size: int, device: torch.device, store: Path) -> None:
        self.rank = rank
        self.size = size
        # What gloo reads: ranks of one machine meet on it, whatever its name resolves to.
        os.putenv("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{store}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=COLLECTIVE_SECONDS),
        )

    def shares(self, num_images: int, batch_size: int) -> list[range]:
        """The rows of this rank in an update of so many images, one range for each of its minibatches."""
        starts = range(0, num_images, batch_size)
        return [self._share(start, min(start + batch_size, num_images)) for start in starts]

    def _share(self, start: int, stop: int) -> range:
        count = stop - start
        return range(start + count * self.rank // self.size, start + count * (self.rank + 1) // self.size)

    def part(self, tensor: Tensor, batch_size: int) -> Tensor:
        """Those rows of a tensor with a row for each image of the update."""
        return torch.cat([tensor[share.start : share.stop] for share in self.shares(len(tensor), batch_size)])

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Give each of these, of one dtype, the sum over the ranks, in place."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [p.view(t.shape) for p, t in zip(parts, tensors, strict=True)])


class Ranks:
    """The processes of the other ranks of a run, seen from rank 0.

    Leaving the context ends them. Raises TrainingError where there are too few GPUs.
    """

    def __init__(self, run: Run, data: Data, init_weights: Path | None) -> None:
        size = run.spec.training.devices
        if run.device.type == "cuda" and torch.cuda.device_count() < size:
            raise TrainingError(
                "device_unavailable",
                f"training.devices is {size}, but {torch.cuda.device_count()} GPUs can be used",
                "platform",
                "ask for fewer devices, or give each slot of the worker more GPUs",
            )
        self._run = run
        self._size = size
        self._folder = tempfile.TemporaryDirectory(prefix="epochd-ranks-")
        self._store = Path(self._folder.name) / "store"
        self._request = {
            "size": size,
            "threads": torch.get_num_threads(),
            "device": run.device.type,
            "native": library.used() is not None,
            "spec": run.spec.model_dump(mode="json"),
            "digest": data.digest,
            "images": self._path_of(data.train_images, "images.npy"),
            "labels": self._path_of(data.train_labels, "labels.npy"),
            "init_weights": str(init_weights) if init_weights else None,
            "checkpoint": str(run.resumed_from) if run.resumed_from else None,
            "store": str(self._store),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            for rank in range(1, self._size):
                command = [sys.executable, "-m", "cnn.distributed"]
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._processes.append(process)
                self._tell(process, json.dumps(self._request | {"rank": rank}).encode() + b"\n")
            for process in self._processes:
                assert process.stdout is not None
                if process.stdout.read(len(READY)) != READY:
                    raise RuntimeError("a rank did not begin")
            self._run.join(Team(0, self._size, self._run.device, self._store), self)
        except BaseException as error:
            self.__exit__(None, error, None)
            raise
        return self

    def __exit__(self, type: object, error: BaseException | None, traceback: object) -> None:
        """Raises in place of what the end of a rank broke here."""
        try:
            if isinstance(error, RuntimeError):
                self._complain(error)
        finally:
            self._end()

    def _end(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        self._folder.cleanup()

    def begin(self, step: int, lr: float) -> None:
        """Let the others do this step; rank 0 must do it, too."""
        for process in self._processes:
            self._tell(process, COMMAND.pack(step, lr))

    def _tell(self, process: subprocess.Popen[bytes], message: bytes) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(message)
            process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError("a rank does not listen") from error

    def _complain(self, error: RuntimeError) -> None:
        """Raise for the ranks that have ended, or are about to: those that live say nothing of it in this time."""
        for rank, process in enumerate(self._processes, start=1):
            with suppress(subprocess.TimeoutExpired):
                if process.wait(COMPLAINT_SECONDS / len(self._processes)) == EXIT_OUT_OF_MEMORY:
                    raise MemoryError(f"rank {rank} of {self._size} had no more") from error
        ended = [
            f"rank {rank} of {self._size} ended with {process.returncode}"
            for rank, process in enumerate(self._processes, start=1)
            if process.returncode is not None
        ]
        if ended:  # one may have ended because another had
            raise RuntimeError(f"{', '.join(ended)}: see what was written above") from error

    def _path_of(self, array: NDArray[Any], name: str) -> str:
        """A file with this array: the one that it is mapped from, else a new one."""
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.filename:
            return str(array.filename)
        path = Path(self._folder.name) / name
        np.save(path, array)
        return str(path)


@contextmanager
def shared_threads(devices: int) -> Iterator[None]:
    """Meanwhile each of the ranks, this process among them, has its part of the threads of this one, at least one."""
    if devices == 1:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // devices))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """A rank other than 0: does what rank 0 tells it, until that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is rank 0's to handle
    request = json.loads(sys.stdin.buffer.readline())
    commands: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()
    try:
        _follow(request, commands)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.stderr.write(f"rank {request['rank']}: not enough memory: {error}\n")
        sys.stderr.flush()
        os._exit(EXIT_OUT_OF_MEMORY)


def _listen(commands: queue.SimpleQueue[tuple[int, float]]) -> None:
    # Not from `sys.stdin`: at the end of the interpreter, a thread that waits in there makes it abort.
    while len(message := os.read(0, COMMAND.size)) == COMMAND.size:
        commands.put(COMMAND.unpack(message))
    os._exit(0)  # also out of a collective that rank 0 will never enter


def _follow(request: dict[str, Any], commands: queue.SimpleQueue[tuple[int, float]]) -> None:
    from cnn.run import Run  # which needs this module

    set_threads(request["threads"])
    if request["native"]:
        library.use(library.find())
    device = torch.device(request["device"], request["rank"]) if request["device"] == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    images, labels = (np.load(request[name], mmap_mode="c") for name in ("images", "labels"))
    data = Data(images, labels, images[:0], labels[:0], request["digest"])
    spec = TrainingSpec.model_validate_json(json.dumps(request["spec"]))
    with numerics(device, spec.training.precision, deterministic=spec.training.deterministic):
        run = Run(spec, data, device, Path(request["init_weights"]) if request["init_weights"] else None)
        if request["checkpoint"]:
            checkpoint = Path(request["checkpoint"])
            run.restore(checkpoint, *load(checkpoint, device))
        os.write(1, READY)
        run.join(Team(request["rank"], request["size"], device, Path(request["store"])), None)
        while True:
            step, lr = commands.get()
            if step == GATHER:
                run.gather()
            else:
                run.follow(step, lr)


if __name__ == "__main__":
    main()
