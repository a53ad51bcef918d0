"""Work in forked processes: what each comes to, and how they end."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from dambench.core import side_by_side as crew
from dambench.core.errors import BadInput, NotEnoughMemory
from dambench.core.side_by_side import Advanced, Completed, Waited, Work, side_by_side

pytestmark = pytest.mark.skipif(not crew.possible(), reason="processes are forked on Linux only")

Said = list[Advanced[int] | Completed[tuple[int, int]] | Waited]


def _counting(number: int, pause: float = 0.0) -> Generator[int, None, tuple[int, int]]:
    for step in range(3):
        time.sleep(pause)
        yield step
    return number, os.getpid()


def _works(count: int, pause: float = 0.0, threads: int = 1) -> list[Work[int, tuple[int, int]]]:
    return [Work(partial(_counting, number, pause), threads) for number in range(count)]


def _results(said: Said) -> dict[int, tuple[int, int]]:
    return {one.place: one.result for one in said if isinstance(one, Completed)}


@pytest.mark.parametrize("cores", [1, 2, 3, 9])
def test_each_piece_is_done_once_and_by_no_more_processes_than_cores(cores: int) -> None:
    results = _results(list(side_by_side(_works(7), cores)))
    assert [results[place][0] for place in range(7)] == list(range(7))
    processes = {process for _, process in results.values()}
    assert processes == {os.getpid()} if cores == 1 else 1 <= len(processes) <= min(cores, 7)
    assert (os.getpid() in processes) == (cores == 1)
    assert not crew.pids()


def test_what_fits_no_second_time_is_done_here() -> None:
    for works, cores, most in ((_works(1), 8, None), (_works(3, threads=2), 3, None), (_works(3), 8, 1)):
        results = _results(list(side_by_side(works, cores, most=most)))
        assert {process for _, process in results.values()} == {os.getpid()}


def test_threads_of_all_that_is_under_way_fit_the_cores() -> None:
    works = [*_works(2, 0.05, threads=2), *_works(3, 0.05)]
    going = set(range(0))
    most = 0
    for said in side_by_side(works, 3):
        if isinstance(said, Advanced):
            going.add(said.place)
            most = max(most, sum(works[place].threads for place in going))
        elif isinstance(said, Completed):
            going.discard(said.place)
    assert 2 <= most <= 3


def test_who_waits_is_given_a_sign_of_life() -> None:
    said = list(side_by_side(_works(2, 0.4), 2))
    assert any(isinstance(one, Waited) for one in said)
    assert [one.progress for one in said if isinstance(one, Advanced) and one.place == 0] == [0, 1, 2]


def test_what_goes_wrong_in_a_process_goes_wrong_here_and_ends_the_others() -> None:
    def wrong(number: int) -> Generator[int, None, tuple[int, int]]:
        yield 0
        if number:
            raise BadInput("It cannot be.", field="ipc")
        time.sleep(60)
        return 0, 0

    going = side_by_side([Work(partial(wrong, number)) for number in range(2)], 2)
    with pytest.raises(BadInput, match=r"^It cannot be\.$") as caught:
        list(going)
    assert caught.value.field == "ipc"
    assert not crew.pids()


def test_who_stops_listening_ends_all() -> None:
    going = side_by_side(_works(2, 60.0), 2)
    assert isinstance(next(going), Waited)
    processes = crew.pids()
    assert len(processes) == 2
    going.close()
    assert not crew.pids()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_signals_that_all_of_a_terminal_get_are_for_the_first_process_alone() -> None:
    results, told = {}, 0
    for said in side_by_side(_works(2, 0.25), 2):
        if isinstance(said, Advanced) and not told:
            told = 1
            for process in crew.pids():
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                    os.kill(process, number)
        if isinstance(said, Completed):
            results[said.place] = said.result[0]
    assert results == {0: 0, 1: 1}


def test_what_the_system_ends_is_done_again_with_fewer_at_once(tmp_path: Path) -> None:
    def fragile(number: int) -> Generator[int, None, int]:
        yield 0
        if number == 1 and not (tmp_path / "ended").exists():
            (tmp_path / "ended").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    said: list[str] = []
    works = [Work(partial(fragile, number)) for number in range(4)]
    ended = [one for one in side_by_side(works, 3, on_warning=said.append) if isinstance(one, Completed)]
    assert sorted(one.result for one in ended) == [0, 1, 2, 3]
    assert len(said) <= 1
    assert all("memory runs out" in text for text in said)


def test_what_was_not_alone_is_done_again_though_the_others_have_ended_when_that_is_heard(tmp_path: Path) -> None:
    def fragile(number: int) -> Generator[int, None, int]:
        yield 0
        if number == 0 and not (tmp_path / "ended").exists():
            (tmp_path / "ended").touch()
            time.sleep(0.3)  # the other one, which was at work, has ended by then
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    told = list(side_by_side([Work(partial(fragile, number)) for number in range(2)], 2))
    assert [one.result for one in told if isinstance(one, Completed)] == [1, 0]


def test_what_is_ended_though_it_is_alone_ends_the_run() -> None:
    def doomed() -> Generator[int, None, int]:
        yield 0
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with pytest.raises(NotEnoughMemory, match="memory runs out"):
        list(side_by_side([Work(doomed), Work(doomed)], 2))


def test_what_ends_in_another_way_is_not_said_to_lack_memory() -> None:
    def doomed() -> Generator[int, None, int]:
        yield 0
        os.kill(os.getpid(), signal.SIGSEGV)
        return 0

    said: list[str] = []
    with pytest.raises(RuntimeError, match=r"^The process of a network was ended by SIGSEGV\.$"):
        list(side_by_side([Work(doomed), Work(doomed)], 2, on_warning=said.append))
    assert all("by SIGSEGV: 1 at once" in text for text in said)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_process_that_can_say_nothing_ends(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def mute(*words: object) -> None:
        raise MemoryError

    monkeypatch.setattr(crew, "_say", mute)
    with pytest.raises(RuntimeError, match=r"\(exit code 1\)\.$"):
        list(side_by_side(_works(2, threads=threads), 4))
    assert not crew.pids()


@pytest.mark.parametrize("forks", [0, 1])
def test_where_the_system_gives_no_process_less_is_done_at_once(forks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left, fork = [*range(forks)], os.fork

    def scarce() -> int:
        if not left:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left.pop()
        return fork()

    monkeypatch.setattr(os, "fork", scarce)
    before, said = len(os.listdir("/proc/self/fd")), list[str]()
    results = _results(list(side_by_side(_works(4), 3, on_warning=said.append)))
    assert [results[place][0] for place in range(4)] == [0, 1, 2, 3]
    assert ({process for _, process in results.values()} == {os.getpid()}) == (not forks)
    assert said == ["The system gives no further process (Resource temporarily unavailable): 1 at once."]
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_no_descriptor_is_left_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    before, pipe, left = len(os.listdir("/proc/self/fd")), os.pipe, [0]

    def scarce() -> tuple[int, int]:
        if not left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left.pop()
        return pipe()

    monkeypatch.setattr(os, "pipe", scarce)
    assert len(_results(list(side_by_side(_works(3), 3)))) == 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_has_no_descriptors_but_its_own(tmp_path: Path) -> None:
    def descriptors() -> Generator[int, None, list[str]]:
        yield 0
        return sorted(os.listdir("/proc/self/fd"))

    with (tmp_path / "held").open("w"):
        ended = [one for one in side_by_side([Work(descriptors)] * 2, 2) if isinstance(one, Completed)]
    for one in ended:
        assert len(one.result) <= 6  # three of the terminal, two pipes, and the list itself


CHILD = """
import sys, time
from dambench.core.side_by_side import Work, pids, side_by_side
def slow():
    while True:
        time.sleep(.05)
        yield 1
for _ in side_by_side([Work(slow)] * 3, 3):
    print(*pids(), flush=True)
"""


def test_a_killed_process_takes_those_that_work_for_it_along() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        others = [int(word) for word in process.stdout.readline().split()]
        assert len(others) == 3
        process.kill()
        process.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{other}").exists() and _lives(other) for other in others):
        assert time.monotonic() < until
        time.sleep(0.02)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.mark.parametrize("times", [1, 9])
def test_a_process_that_was_forked_while_a_lock_was_held_is_replaced_and_at_last_done_without(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "BORN_WITHIN", 0.3)
    warnings: list[str] = []

    def probe() -> None:
        for attempt in range(times):
            with suppress(FileExistsError):
                (tmp_path / str(attempt)).touch(exist_ok=False)
                time.sleep(60)

    said = list(side_by_side(_works(3), 2, on_warning=warnings.append, probe=probe))
    assert {place: number for place, (number, _) in _results(said).items()} == {0: 0, 1: 1, 2: 2}
    assert ({process for _, process in _results(said).values()} == {os.getpid()}) == (times == 9)
    assert [warning[1:] for warning in warnings[-1:]] == (
        [" new processes said nothing, and were ended: 1 at once."] if times == 9 else []
    )
    assert not crew.pids()
