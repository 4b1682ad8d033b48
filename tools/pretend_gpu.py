"""Run a chapter's cells as if there were a GPU, and list where tensors of two devices meet.

    python tools/pretend_gpu.py 04            # profile gpu's code, smoke's parameters, no GPU needed
    python tools/pretend_gpu.py 04 --move     # as if load_encoder and load_causal_lm moved their models

All arithmetic stays on the CPU. A mark on each storage says where the tensor would lie; every operation
is looked at (also those of backward passes), a mix that CUDA refuses is noted with the line of the
chapter or package where it happens, and the run goes on. What is not seen: kernels that CUDA does not
have, other processes (threads of a pool run in turn), memory, speed, and values, which are the CPU's.
"""

import argparse
import io
import json
import os
import sys
import traceback
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from unittest import mock

import torch
import torch._dynamo  # before anything of torch.cuda is replaced: it keeps a table of torch's functions
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
aten = torch.ops.aten
# these take a tensor of another device by design
CROSSING = {aten.copy_, aten._to_copy, aten.set_, aten.is_same_size}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._index_put_impl_}
TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}


def storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    """A tensor's memory, also of one that `torch.func` has wrapped."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


def on_gpu(tensor: torch.Tensor) -> bool:
    """Whether the tensor is marked as lying on the GPU."""
    return getattr(storage(tensor), "on_gpu", False)


def mark(tensor: torch.Tensor, gpu: bool) -> torch.Tensor:
    """Mark a tensor's storage, a new one where the old is shared with the other device."""
    if on_gpu(tensor) != gpu:
        storage(tensor).on_gpu = gpu
    return tensor


def flat(*parts) -> list[torch.Tensor]:
    """Tensors among nested arguments."""
    return [leaf for leaf in tree_leaves(parts) if isinstance(leaf, torch.Tensor)]


def tensors(*parts) -> list[torch.Tensor]:
    """Tensors with memory of their own among nested arguments."""
    return [one for one in flat(*parts) if one.layout == torch.strided and one.device.type != "meta"]


class Faults(Counter):
    """Counts by what happened, the line where, and the line of the chapter that led there."""

    def note(self, what: str) -> None:
        """Count a fault by the innermost line of ours in the present stack and that of a cell."""
        ours = []
        for frame in traceback.extract_stack():
            name = frame.filename
            if name.startswith("cell ") or (str(ROOT / "mangalab") in name):
                short = name if name.startswith("cell ") else str(Path(name).relative_to(ROOT))
                ours.append(f"{short}:{frame.lineno}")
        cells = [one for one in ours if one.startswith("cell ")]
        self[what, (ours or [""])[-1], (cells or [""])[-1]] += 1

    def lines(self) -> list[str]:
        """One line a place: what happened there and from which cells, each in the order of the run."""
        found: dict[str, tuple[dict, dict]] = {}
        for what, place, cell in self:
            kinds, cells = found.setdefault(place, ({}, {}))
            kinds[what], cells[cell] = None, None
        told = []
        for place, (kinds, cells) in found.items():
            beside = "" if [place] == [*cells] else f"  from {', '.join(cells)}"
            told.append(f"{place}  {', '.join(kinds)}{beside}")
        return told


class Ops(TorchDispatchMode):
    """Notes operations that CUDA would refuse, and marks what they return."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults, self.inside = faults, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors(args, kwargs)
        gpu = [one for one in given if on_gpu(one)]
        if gpu:
            self.judge(func, args, kwargs, given)
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        if func.overloadpacket is aten.histc:  # of integers: CUDA counts them, a CPU does not
            args = (args[0].float(), *args[1:])
        out = func(*args, **kwargs)
        made = self.inside and not given  # by a call of torch's that was given GPU tensors
        if (gpu or made) and func.overloadpacket not in (aten.copy_, aten.set_):
            for one in tensors(out):  # a move to the CPU takes the mark off again: `Api.moved`
                mark(one, True)
        return out

    def judge(self, func, args, kwargs, given) -> None:
        """Note what CUDA would not take."""
        name, packet = str(func), func.overloadpacket
        if packet in CROSSING:
            return
        generators = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Generator)]
        if generators:
            self.faults.note(f"{name}: a CPU generator for a GPU tensor")
        if packet in INDEXING and on_gpu(args[0]):
            return  # indices may lie on the CPU
        joined = packet in (aten.cat, aten.stack)  # the only ones that refuse CPU scalars too
        if any(not on_gpu(one) and (one.dim() or joined) for one in given):
            self.faults.note(f"{name}: tensors of both devices")


class Api(TorchFunctionMode):
    """What Python sees of devices: moves, factories, `.device`, NumPy."""

    def __init__(self, faults: Faults, ops: Ops) -> None:
        super().__init__()
        self.faults, self.ops = faults, ops

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func == torch.Tensor.device.__get__:
            return CUDA if on_gpu_safe(args[0]) else func(*args)
        if func == torch.Tensor.is_cuda.__get__:
            return on_gpu_safe(args[0])
        if func in TO_NUMPY and on_gpu_safe(args[0]):
            self.faults.note(f"{func.__name__} of a GPU tensor: needs .cpu()")
        if func is torch.Tensor.cuda:
            return self.moved(torch.Tensor.to, (args[0],), {}, True)
        if func is torch.Tensor.cpu:
            return self.moved(func, args, kwargs, False)
        wanted, args, kwargs = asked(func, args, kwargs)
        if wanted is not None:
            return self.moved(func, args, kwargs, wanted)
        # what torch makes for itself lies beside its arguments; a backward pass also runs our code
        given = [] if getattr(func, "__name__", "") == "backward" else flat(args, kwargs)
        outer, self.ops.inside = self.ops.inside, any(on_gpu_safe(one) for one in given)
        try:
            out = func(*args, **kwargs)
        finally:
            self.ops.inside = outer
        if func in (torch.Tensor.__deepcopy__, torch.Tensor.new_tensor) and on_gpu_safe(args[0]):
            mark(out, True)
        return out

    def moved(self, func, args, kwargs, gpu: bool):
        """Call a function that makes a tensor on a device or moves one there."""
        if gpu and isinstance(kwargs.get("generator"), torch.Generator):
            self.faults.note(f"{func.__name__}: a CPU generator for a GPU tensor")
        out = func(*args, **kwargs)
        if not isinstance(out, torch.Tensor) or on_gpu_safe(out) == gpu:
            return out
        place = storage(out)._cdata
        if any(storage(one)._cdata == place for one in tensors(args)):
            out = out.clone()  # a copy on the other device
        return mark(out, gpu)


def on_gpu_safe(tensor: torch.Tensor) -> bool:
    """As `on_gpu`, for tensors without memory too."""
    with torch._C.DisableTorchFunction():
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            return False
        return on_gpu(tensor)


def asked(func, args, kwargs):
    """The device that a call asks for (None: none; else whether a GPU), with the CPU in its place."""
    name = getattr(func, "__name__", "")
    if name == "_parse_to" or func is torch.device:
        return None, args, kwargs
    device = kwargs.get("device")
    if device is not None:
        gpu = torch.device(device).type == "cuda" if not isinstance(device, int) else True
        if torch.device(device).type == "meta":
            return None, args, kwargs
        return gpu, args, {**kwargs, "device": CPU}
    if func is torch.Tensor.to and len(args) > 1:
        first = args[1]
        if isinstance(first, torch.Tensor):
            return on_gpu_safe(first), args, kwargs
        if isinstance(first, str | torch.device | int) and not isinstance(first, bool):
            kind = "cuda" if isinstance(first, int) else torch.device(first).type
            if kind != "meta":
                return kind == "cuda", (args[0], CPU, *args[2:]), kwargs
    return None, args, kwargs


def pretended() -> list:
    """Patches that make torch say that one GPU is there."""
    facts = {
        "is_available": True, "device_count": 1, "current_device": 0, "is_initialized": False,
        "get_device_name": "Pretended GPU", "is_bf16_supported": True, "get_device_capability": (9, 0),
        "max_memory_allocated": 0, "memory_allocated": 0, "mem_get_info": (80 << 30, 80 << 30),
        "get_rng_state": torch.get_rng_state(), "set_rng_state": None, "set_device": None,
        "empty_cache": None, "synchronize": None, "manual_seed": None, "manual_seed_all": None,
        "reset_peak_memory_stats": None,
    }  # fmt: skip
    return [
        mock.patch.object(torch.cuda, name, lambda *a, answer=answer, **k: answer)
        for name, answer in facts.items()
    ]


def inline(pool, function, /, *args, **kwargs) -> Future:
    """Instead of `ThreadPoolExecutor.submit`: here and now, as other threads are not seen."""
    future = Future()
    try:
        future.set_result(function(*args, **kwargs))
    except Exception as error:
        future.set_exception(error)
    return future


def moving_loaders() -> list:
    """Patches that let the two loaders hand out models that lie on the GPU."""
    from mangalab import models

    def wrapped(load):
        def loader(*args, **kwargs):
            model, tokenizer = load(*args, **kwargs)
            return model.to(CUDA), tokenizer

        return loader

    names = ("load_encoder", "load_causal_lm")
    return [mock.patch.object(models, name, wrapped(getattr(models, name))) for name in names]


def cells(chapter: str) -> list[tuple[str, str]]:
    """Name and source of a chapter's code cells, the smoke parameters after the `parameters` cell."""
    import yaml

    path = next((ROOT / "notebooks").glob(f"{chapter}*.ipynb"))
    entry = yaml.safe_load((ROOT / "chapters.yml").read_text(encoding="utf8"))[path.stem]
    given = "\n".join(f"{name} = {value!r}" for name, value in (entry.get("smoke") or {}).items())
    found = []
    for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip():
            found.append((f"cell {len(found) + 1}", "".join(cell["source"])))
            if "parameters" in cell["metadata"].get("tags", []):
                found[-1] = (found[-1][0], found[-1][1] + "\n" + given)
    return found


def run(chapter: str, move: bool) -> tuple[Faults, str]:
    """Run all cells; the faults, and the error that ended the run, if one did."""
    os.environ |= {"MANGALAB_PROFILE": "gpu", "MPLBACKEND": "Agg", "MANGALAB_ROOT": str(ROOT)}
    sys.path.insert(0, str(ROOT))
    import peft  # noqa: F401  it and bitsandbytes look for GPUs when they are first imported

    faults, space = Faults(), {"__name__": "__main__"}
    with ExitStack() as stack:
        threads = mock.patch.object(ThreadPoolExecutor, "submit", inline)
        for patch in [threads, *pretended(), *(moving_loaders() if move else [])]:
            stack.enter_context(patch)
        stack.enter_context(redirect_stdout(io.StringIO()))
        ops = stack.enter_context(Ops(faults))
        stack.enter_context(Api(faults, ops))
        for name, source in cells(chapter):
            try:
                exec(compile(source, name, "exec"), space)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[:0:-1][:8]
                lines = [f"{f.filename.removeprefix(str(ROOT) + '/')}:{f.lineno}" for f in where]
                what = f"{type(error).__name__}: {error}"
                return faults, f"ended in {name}: {what}\n  {' < '.join(lines)}"
    return faults, ""


def main() -> None:
    """Print what was found; exit code 1 where anything was."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("chapter", help="number of the chapter, as 04")
    parser.add_argument("--move", action="store_true", help="loaders hand out models on the GPU")
    options = parser.parse_args()
    faults, end = run(options.chapter, options.move)
    places = faults.lines()
    print("\n".join([*places, end or f"ran to its end; faults at {len(places)} lines"]))
    sys.exit(1 if faults or end else 0)


if __name__ == "__main__":
    main()
