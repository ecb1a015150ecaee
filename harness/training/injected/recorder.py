"""Records every optimizer step of this process, and takes snapshots of the checkpoint paths.

A run has a folder with ``settings.json``. Each process that makes a step appends to a file of
its own in that folder: one line of JSON, and one write, for each event, so that a SIGKILL loses
nothing. Nothing that goes wrong here reaches the training script: it becomes a ``problem``.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib.abc
import importlib.util
import json
import os
import sys
import sysconfig
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType, ModuleType

    import torch

OPTIMIZERS = "torch.optim.optimizer"
FIELDS = ("lr", "momentum", "betas", "weight_decay")
SAMPLES = 32
"""About how many elements of a tensor stand for it, unless everything is compared."""


class Recorder:
    """Writes the events of this process for one run."""

    def __init__(self, folder: str) -> None:
        with open(os.path.join(folder, "settings.json"), encoding="utf-8") as file:
            settings = json.load(file)
        self.folder = folder
        self.pid = os.getpid()
        self.whole = settings["compare"] == "all"
        self.stop_after = settings["stop_after"]
        self.modules = settings["modules"]
        self.store: Any = None  # a snapshots.Store
        if settings["store"]:
            self.store = _sibling("snapshots").Store(settings["store"], settings["paths"])
        self.inside_saves = settings["inside_saves"]
        self.paths = settings["paths"]
        self.signal = settings["signal"]
        self.signal_after = settings["signal_after"]
        self.steps = 0
        self.snapshot = ""
        self.inside: list[object] = []
        self.handle = -1
        self.optimizers: list[torch.optim.Optimizer] = []
        self.ended = False

    def write(self, kind: str, **values: object) -> None:
        """Append an event with one write."""
        if self.handle < 0:
            name = os.path.join(self.folder, f"{self.pid}.jsonl")
            self.handle = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            _run_at_exit()
            self.write("start", time=time.monotonic())
        os.write(self.handle, (json.dumps({"kind": kind, **values}) + "\n").encode())

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Record what `optimizer` is about to use, and the checkpoints a kill would leave now."""
        rank = _rank()
        if self.store is not None and rank == 0:
            self.take_snapshot()
        hashes = self.hashes(optimizer)
        if self.stop_after is not None and not self.steps:
            self.stop_with_recorded(rank, hashes)
        if self.stop_after is not None and self.steps >= self.stop_after:
            self.write("stopped")
            self.end()
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(0)
        for number, known in enumerate(self.optimizers):  # noqa: B007 (used below)
            if known is optimizer:
                break
        else:
            number = len(self.optimizers)
            self.optimizers.append(optimizer)
        values = {
            name: [_plain(group.get(name)) for group in optimizer.param_groups]
            for name in FIELDS
            if any(name in group for group in optimizer.param_groups)
        }
        self.write("step", rank=rank, optimizer=number, values=values, **hashes)
        self.steps += 1

    def hashes(self, optimizer: torch.optim.Optimizer) -> dict[str, str]:
        """Hashes of the weights, the optimizer's state and, if all is compared, the gradients."""
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        state: list[object] = []
        for index, parameter in enumerate(weights):
            before = len(state)
            _collect(optimizer.state.get(parameter), state)
            if len(state) > before:
                state.append(str(index))
        hashes = {"weights": _hash(weights, self.whole), "state": _hash(state, self.whole)}
        if self.whole:
            hashes["gradients"] = _hash([p.grad for p in weights if p.grad is not None], True)
        return hashes

    def take_snapshot(self) -> None:
        """Store the checkpoint paths if they changed."""
        try:
            name = self.store.take()
        except OSError as error:
            self.write("not stored", text=str(error))
            self.store = None
            return
        if name != self.snapshot:
            self.snapshot = name
            self.write("snapshot", steps=self.steps, name=name)

    def see_inside(self, writing: list[tuple[str, int]], done: str) -> None:
        """Store the checkpoint paths in the middle of a save, if this is rank 0.

        `writing` has the name and the size of each file that is being written, `done` is the last
        operation before.
        """
        if self.store is None or os.getpid() != self.pid or _rank() != 0:
            return
        try:
            name = self.store.take(attempts=1)
        except FileNotFoundError:  # another process or thread is at work there
            return
        except OSError as error:
            if type(error).__name__ != "Changed":
                self.write("not stored", text=str(error))
            return
        if [name, writing] != self.inside:
            self.inside = [name, writing]
            self.write("inside", steps=self.steps, name=name, writing=writing, done=done)

    def stop_with_recorded(self, rank: int, hashes: dict[str, str]) -> None:
        """Stop where the recorded run stopped, if this one starts in a state that it had."""
        name = os.path.join(self.folder, "steps_left.json")
        if os.path.exists(name):
            with open(name, encoding="utf-8") as file:
                left = json.load(file).get(str(rank), {})
            steps = left.get(f"{hashes['weights']} {hashes['state']}", self.stop_after)
            self.stop_after = min(self.stop_after, steps)

    def send_signal(self) -> None:
        """Tell the processes of the command to stop, before the step after so many."""
        if self.signal is None or self.steps != self.signal_after or _rank() != 0:
            return
        number, self.signal = self.signal, None
        name = os.path.join(self.folder, "group")
        while True:
            with open(name, encoding="utf-8") as file:
                text = file.read()
            if text.endswith("\n"):
                break
            time.sleep(0.01)
        self.write("signal", steps=self.steps)
        os.killpg(int(text), number)

    def end(self) -> None:
        """Record the state after the last step."""
        if self.ended or self.handle < 0 or os.getpid() != self.pid:
            return
        self.ended = True
        hashes = [self.hashes(optimizer) for optimizer in self.optimizers]
        self.write("end", after=hashes, time=time.monotonic())
        if self.modules:
            with open(os.path.join(self.folder, "modules.json"), "w", encoding="utf-8") as file:
                json.dump(installed_modules(), file)


class _Local(threading.local):
    """The frame of the step that is being made in this thread."""

    frame: object = None


_local = _Local()
_current: list[Recorder] = []
"""The recorder of this process, if there is one."""


def start(folder: str) -> None:
    """Record this process for the run in `folder`, from the import of ``torch.optim`` on."""
    _mark(folder, "loaded")
    begin(folder)
    sys.meta_path.insert(0, _Finder({OPTIMIZERS: _torch_imported, "safetensors": _wrap_writers}))


def begin(folder: str) -> None:
    """Record what comes for the run in `folder`; a fork calls this again."""
    _current[:] = [Recorder(folder)] if os.path.exists(_settings(folder)) else []
    for recorder in _current:
        if recorder.inside_saves:
            _sibling("saves").start(recorder.paths, functools.partial(_safely, recorder.see_inside))


def _settings(folder: str) -> str:
    return os.path.join(folder, "settings.json")


def _recorder() -> Recorder | None:
    if not _current:
        return None
    if _current[0].pid != os.getpid():  # a fork of the script's own
        begin(_current[0].folder)
    return _current[0]


def _mark(folder: str, what: str) -> None:
    """Leave a mark that some process of the run got this far."""
    os.close(os.open(os.path.join(folder, what), os.O_WRONLY | os.O_CREAT, 0o600))


def _run_at_exit() -> None:
    """Call `_end` when this process ends, which `multiprocessing` does without ``atexit``."""
    atexit.register(_end)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _end, exitpriority=0)


def _end() -> None:
    recorder = _recorder()
    if recorder is not None:
        _safely(recorder.end)


def _safely(work: Callable[..., object], *arguments: object) -> None:
    try:
        work(*arguments)
    except Exception as error:
        recorder = _recorder()
        if recorder is not None:
            recorder.write("problem", text=f"{type(error).__name__}: {error}")


# ------------------------------------------------------------------ seeing the steps


class _Finder(importlib.abc.MetaPathFinder):
    """Calls a function for each of some modules as soon as it is imported."""

    def __init__(self, wanted: dict[str, Callable[[ModuleType], None]]) -> None:
        self.wanted = wanted

    def find_spec(self, name: str, path: object, target: object = None) -> Any:
        work = self.wanted.pop(name, None)
        if work is None:
            return None
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_work(module: ModuleType) -> None:
            load(module)
            work(module)

        spec.loader.exec_module = load_and_work  # type: ignore[method-assign]
        return spec


def _torch_imported(module: ModuleType) -> None:
    """Add the hooks when ``torch.optim.optimizer`` has been imported."""
    if _current:
        _mark(_current[0].folder, "torch")
    _wrap_writers(sys.modules.get("torch._C"))
    hook(module)


def _wrap_writers(module: ModuleType | None) -> None:
    if _current and _current[0].inside_saves:
        _sibling("saves").wrap(module)


def hook(module: ModuleType) -> None:
    """See every step of every ``Optimizer``: by its hooks, or on torch < 2.0 around ``step``."""
    before = getattr(module, "register_optimizer_step_pre_hook", None)
    if before is None:
        _wrap_steps(module.Optimizer)
        return
    before(_before)
    module.register_optimizer_step_post_hook(_after)


def _before(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
    """The hook before a step; a step inside a step is part of it.

    torch calls no hook after a step that raises. Then the frame of that step is on the stack no
    more, and the next step is not inside it.
    """
    frame = sys._getframe(1)
    if _local.frame is not None and _on_stack(_local.frame, frame):
        return
    recorder = _recorder()
    if recorder is not None:
        recorder.send_signal()  # what the script's handler raises is the script's
    _local.frame = frame
    if recorder is not None:
        _safely(recorder.before_step, optimizer)


def _after(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
    if _local.frame is sys._getframe(1):
        _local.frame = None


def _on_stack(wanted: object, inside: FrameType) -> bool:
    frame = inside.f_back
    while frame is not None:
        if frame is wanted:
            return True
        frame = frame.f_back
    return False


def _wrap_steps(optimizer_class: Any) -> None:
    """Wrap ``step`` of each class when its first optimizer is built."""
    init = optimizer_class.__init__

    def wrapped(step: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(step)
        def recorded(self: Any, *args: object, **kwargs: object) -> object:
            if _local.frame is not None:
                return step(self, *args, **kwargs)
            _local.frame = True
            try:
                recorder = _recorder()
                if recorder is not None:
                    recorder.send_signal()
                    _safely(recorder.before_step, self)
                return step(self, *args, **kwargs)
            finally:
                _local.frame = None

        recorded._lr_resume_harness = True  # type: ignore[attr-defined]
        return recorded

    @functools.wraps(init)
    def built(self: Any, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)
        own = type(self)
        if not getattr(own.step, "_lr_resume_harness", False):
            own.step = wrapped(own.step)

    optimizer_class.__init__ = built


# ------------------------------------------------------------------ what is recorded


def _rank() -> int:
    """The rank of this process in ``torch.distributed``, or as the launcher says."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    text = os.environ.get("RANK", "0")
    return int(text) if text.isdigit() else 0


def _plain(value: Any) -> object:
    """A hyperparameter as JSON has it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # a tensor, or numpy's
        return value.tolist()
    return repr(value)


def _collect(value: Any, found: list[object]) -> None:
    """Add the tensors and numbers of an optimizer's state to `found`, in a fixed order."""
    if value is None:
        return
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            _collect(value[key], found)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _collect(item, found)
    elif hasattr(value, "data_ptr"):
        found.append(float(value) if value.numel() == 1 else value)
    elif isinstance(value, (bool, int, float)):
        found.append(float(value))


def _hash(values: Iterable[Any], whole: bool) -> str:
    """A hash of tensors, numbers and texts; empty if there are none.

    Unless `whole`, about `SAMPLES` elements stand for a tensor: an optimizer changes all of them.
    """
    import torch

    crc, others = 0, []
    alike: dict[tuple[object, object], list[torch.Tensor]] = {}
    with torch.no_grad():
        for value in values:
            if not hasattr(value, "data_ptr"):
                others.append(value)
                continue
            tensor = value.detach()
            if hasattr(tensor, "to_local"):
                tensor = tensor.to_local()
            if tensor.layout != torch.strided:
                tensor = tensor.to_dense()
            tensor = tensor.reshape(-1)
            if not whole and tensor.numel() > SAMPLES:
                tensor = tensor[:: tensor.numel() // SAMPLES]
            alike.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for tensors in alike.values():
            for joined in tensors if whole else [torch.cat(tensors)]:
                joined = joined.cpu().contiguous()
                size = joined.numel() * joined.element_size()
                data = (ctypes.c_char * size).from_address(joined.data_ptr()) if size else b""
                crc = zlib.crc32(data, crc)
    if not alike and not others:
        return ""
    if others:
        crc = zlib.crc32(repr(others).encode(), crc)
    return f"{crc:08x}"


def installed_modules() -> list[str]:
    """The modules of this process that are installed, not the script's own, as imported."""
    paths = sysconfig.get_paths()
    roots = tuple({paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    names = []
    for name, module in list(sys.modules.items()):
        spec: Any = getattr(module, "__spec__", None)
        origin = getattr(spec, "origin", None)
        if (
            isinstance(origin, str)
            and origin.startswith(roots)
            and name == getattr(spec, "name", "")
        ):
            names.append(name)
    return [name for name in names if name not in ("sitecustomize", "usercustomize")]


@functools.lru_cache(maxsize=None)  # noqa: UP033 (Python 3.8 has no cache)
def _sibling(name: str) -> Any:
    """Load a module of this folder, which is not on ``sys.path``."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    spec = importlib.util.spec_from_file_location("_lr_resume_harness_" + name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
