"""Work side by side: in processes that are forked from this one, each of which does one piece after the other.

A forked process has at once what this one has, its modules and its data, and shares the memory until one of them
writes. It has no descriptors but its own pipes, hears no signals (whoever is asked to stop is this process, which ends
the others), and is ended by the kernel where this one is gone, `kill -9` included.
"""

import ctypes
import gc
import os
import pickle
import selectors
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from dambench.core.errors import NotEnoughMemory

P = TypeVar("P")
R = TypeVar("R")

MOMENT = 0.2
"""Seconds after which one who waits is given a sign of life, and between two words of how far a process is."""
LOOK = 1.0
"""Seconds between two looks at a process's memory."""
BORN_WITHIN = 10.0
"""Seconds within which a new process says that it is there; one that does not was forked while somebody held a lock."""
MUTE = 3
"""Times that a mute process is replaced before it is done without."""
DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG."""
UNHEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Work(Generic[P, R]):
    """A piece of work."""

    do: Callable[[], Generator[P, None, R]]
    """Yields how far it is. Both that and what it returns are sent as `pickle` does; what else it changes is lost."""
    threads: int = 1
    """The number that it computes with."""


class Advanced(NamedTuple, Generic[P]):
    """A piece of work is so far."""

    place: int
    """Among the pieces."""
    progress: P


class Completed(NamedTuple, Generic[R]):
    """A piece of work is done."""

    place: int
    result: R


class Waited(NamedTuple):
    """A moment has passed, in which nothing was heard."""


@dataclass
class _Forked:
    pid: int
    pipe: int
    """On which it is heard."""
    orders: int
    """On which it is told what to do."""
    place: int = -1
    """What it does; below 0: nothing."""
    accompanied: bool = False
    """Whether others were at work at any moment while it did that: they may have ended before it is heard of."""
    heard: bytearray = field(default_factory=bytearray)
    memory_bytes: int = 0
    born: bool = False
    """Whether it was heard."""
    since: float = field(default_factory=time.monotonic)


_children: dict[int, _Forked] = {}
"""By process, those of this process that are at work."""
_peak = 0


def pids() -> list[int]:
    """The processes that work for this one."""
    return [*_children]


def memory_bytes() -> int:
    """Memory that they have for themselves, as they said last."""
    return sum(child.memory_bytes for child in [*_children.values()])


def peak_bytes() -> int:
    """The most of it since `restart_peak`."""
    return _peak


def restart_peak() -> None:
    """Begin a new measurement of that."""
    global _peak
    _peak = memory_bytes()


def possible() -> bool:
    """Whether processes can be forked here: elsewhere than on Linux, system libraries may not bear it."""
    return sys.platform == "linux"


def side_by_side(
    works: Sequence[Work[P, R]],
    cores: int,
    *,
    most: int | None = None,
    on_warning: Callable[[str], None] = lambda message: None,
    probe: Callable[[], object] = lambda: None,
) -> Generator[Advanced[P] | Completed[R] | Waited, None, None]:
    """Do all of it, as much at once as the threads of each leave room for. Where that is one, it is done here.

    What ends first is told first. Who ends this generator ends all that is under way.

    Args:
        cores: threads that may compute at once.
        most: pieces at once; None: as many as fit.
        on_warning: told when less is done at once than could be, for want of memory.
        probe: called first in each new process: takes the locks that the work needs, and changes nothing. Where another
            thread held one at the moment of the fork, the process stays mute: it is ended, and another one forked.

    Raises:
        RuntimeError: a process ended that was always alone; `NotEnoughMemory`: it was killed. And what the work raises.
    """
    least = sorted(work.threads for work in works)[:2]
    if len(works) < 2 or sum(least) > cores or most == 1 or not possible():
        for place, work in enumerate(works):
            yield from _here(place, work)
        return
    left = [*range(len(works))]
    most, mute = most or len(works), 0
    ours: dict[int, _Forked] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while left or any(child.place >= 0 for child in ours.values()):
                try:
                    while left and most and (child := _free(ours, works, left[0], cores, most, probe)):
                        _give(child, left.pop(0), ours, selector)
                except OSError as error:
                    most = sum(one.place >= 0 for one in ours.values())
                    on_warning(f"The system gives no further process ({error.strerror}): {most or 1} at once.")
                if not most:
                    while left:
                        yield from _here(place := left.pop(0), works[place])
                    return
                ready = selector.select(MOMENT)
                if not ready:
                    yield Waited()
                for key, _ in ready:
                    child = ours[key.fd]
                    over, words = _listen(child)
                    for kind, content in words:
                        place = child.place
                        if kind == "moved":
                            yield Advanced(place, content)
                        elif kind == "raised":
                            raise content
                        else:
                            child.place = -1
                            yield Completed(place, content)
                    if over is None:
                        continue
                    together = max(2, sum(one.place >= 0 for one in ours.values()))
                    selector.unregister(child.pipe)
                    _forget(ours.pop(child.pipe))
                    if child.place < 0:
                        continue
                    if not child.accompanied:
                        raise _ended(f"The process of a network was ended {_why(over)}.", over)
                    most = together - 1
                    left.insert(0, child.place)
                    on_warning(
                        f"One of {together} networks side by side was ended {_why(over)}: {most} at once from now on."
                    )
                mute += (silent := _end_mute(ours, left, selector))
                if silent and mute >= MUTE:
                    most = sum(one.place >= 0 for one in ours.values())
                    on_warning(f"{mute} new processes said nothing, and were ended: {most or 1} at once.")
        finally:
            for child in ours.values():
                _end(child)


def _give(child: _Forked, place: int, ours: dict[int, _Forked], selector: selectors.BaseSelector) -> None:
    if child.pipe not in ours:
        ours[child.pipe] = _children[child.pid] = child
        selector.register(child.pipe, selectors.EVENT_READ)
    others = [one for one in ours.values() if one.place >= 0]
    for one in others:
        one.accompanied = True
    child.place, child.accompanied = place, bool(others)
    with suppress(BrokenPipeError):  # it was ended: that is heard
        os.write(child.orders, struct.pack("<Q", place))


def _end_mute(ours: dict[int, _Forked], left: list[int], selector: selectors.BaseSelector) -> int:
    """End processes that should have been heard by now, and take back what they were to do; how many."""
    now = time.monotonic()
    mute = [child for child in ours.values() if not child.born and now - child.since > BORN_WITHIN]
    for child in mute:
        selector.unregister(child.pipe)
        _end(ours.pop(child.pipe))
        left.insert(0, child.place)
    return len(mute)


def _end(child: _Forked) -> None:
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    _wait(child.pid)
    _forget(child)


def _free(
    ours: dict[int, _Forked],
    works: Sequence[Work[Any, Any]],
    place: int,
    cores: int,
    most: int,
    probe: Callable[[], object],
) -> _Forked | None:
    """A process that can do a piece of work now, an idle one if there is any; None: there is no room."""
    busy = [works[child.place].threads for child in ours.values() if child.place >= 0]
    if busy and (len(busy) >= most or sum(busy) + works[place].threads > cores):
        return None
    idle = next((child for child in ours.values() if child.place < 0), None)
    return idle or _begun(works, probe)


def _here(place: int, work: Work[P, R]) -> Generator[Advanced[P] | Completed[R], None, None]:
    going = work.do()
    while True:
        try:
            moved = next(going)
        except StopIteration as end:
            yield Completed(place, end.value)
            return
        yield Advanced(place, moved)


def _why(over: int) -> str:
    if over == -signal.SIGKILL:
        return f"(exit code {over}), as the system does where memory runs out"
    with suppress(ValueError):
        return f"by {signal.Signals(-over).name}"
    return f"(exit code {over})"


def _ended(message: str, over: int) -> Exception:
    return NotEnoughMemory(message) if over == -signal.SIGKILL else RuntimeError(message)


def _forget(child: _Forked) -> None:
    _close(child.pipe, child.orders)
    _children.pop(child.pid, None)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _wait(pid: int) -> int:
    """The exit code of a process that ends; below 0, the signal that ended it."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # somebody else has waited for it
        return 0


def _listen(child: _Forked) -> tuple[int | None, list[tuple[str, Any]]]:
    """What a process has said, and its exit code if it has ended."""
    global _peak
    new = os.read(child.pipe, 1 << 20)
    child.heard += new
    words: list[tuple[str, Any]] = []
    while len(child.heard) >= 8 and len(child.heard) >= 8 + (length := struct.unpack_from("<Q", child.heard)[0]):
        kind, content, child.memory_bytes = pickle.loads(bytes(child.heard[8 : 8 + length]))
        del child.heard[: 8 + length]
        if kind == "born":
            child.born = True
        else:
            words.append((kind, content))
        _peak = max(_peak, memory_bytes())
    return (None if new else _wait(child.pid)), words


# In the other process.


def _begun(works: Sequence[Work[Any, Any]], probe: Callable[[], object]) -> _Forked:
    listen, speak = os.pipe()
    try:
        obey, order = os.pipe()
    except OSError:
        _close(listen, speak)
        raise
    parent = os.getpid()
    # Until it has its own answers to signals it must not have ours.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    try:
        with warnings.catch_warnings():
            # Newer Pythons warn where a process has other threads. Ours hold no lock that the work needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            _live(works, probe, speak, obey, parent, before)
    except OSError:  # no process, or no memory for one
        _close(listen, order)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _close(speak, obey)
    return _Forked(pid, listen, order)


def _live(
    works: Sequence[Work[Any, Any]],
    probe: Callable[[], object],
    speak: int,
    obey: int,
    parent: int,
    mask: set[Any],
) -> NoReturn:
    code = 1
    try:
        _leave_home((speak, obey), parent, mask)
        probe()
        _say(speak, "born", None, 0)
        while order := os.read(obey, 8):
            work = works[struct.unpack("<Q", order)[0]]
            if work.threads > 1:
                # OpenMP's threads belong to the thread that began them, and ours are not here: another begins its own.
                acting = threading.Thread(target=_act_or_end, args=(work, speak))
                acting.start()
                acting.join()
            else:
                _act(work, speak)
        code = 0
    finally:
        os._exit(code)  # nothing of what this process would do at its end is ours to do


def _leave_home(own: tuple[int, int], parent: int, mask: set[Any]) -> None:
    signal.set_wakeup_fd(-1)
    for number in UNHEARD:
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before that was said
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # Locks and databases of the run stay its own.
    for first, last in pairwise((2, *sorted(own), os.sysconf("SC_OPEN_MAX"))):
        os.closerange(first + 1, last)
    _children.clear()
    gc.freeze()  # looking through what is shared would copy it


def _act_or_end(work: Work[Any, Any], speak: int) -> None:
    try:
        _act(work, speak)
    except BaseException:  # not even that could be said: a process that waits on would be waited for
        os._exit(1)


def _act(work: Work[Any, Any], speak: int) -> None:
    looked, spoken, own = 0.0, 0.0, 0
    going = work.do()
    try:
        while True:
            try:
                moved = next(going)
            except StopIteration as end:
                return _say(speak, "ended", end.value, _private_bytes())
            now = time.monotonic()
            if now - looked >= LOOK:
                looked, own = now, _private_bytes()
            if now - spoken >= MOMENT:
                spoken = now
                _say(speak, "moved", moved, own)
    except BaseException as error:
        _say(speak, "raised", _sendable(error), own)


def _sendable(error: BaseException) -> BaseException:
    with suppress(Exception):
        pickle.loads(pickle.dumps(error))
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _say(speak: int, kind: str, content: object, own: int) -> None:
    text = pickle.dumps((kind, content, own), protocol=5)
    left = memoryview(struct.pack("<Q", len(text)) + text)
    while left:
        left = left[os.write(speak, left) :]


def _private_bytes() -> int:
    """Memory of this process that no other one shares."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 0
