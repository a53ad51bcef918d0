"""The processes of a run that several share, but the first: started on this machine, and watched.

Each ends when the first does, however that ends: its standard input is a pipe that closes then. Signals are the first
one's affair, also those that a terminal sends to all.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

MEETING = "DAMBENCH_RANKS"
"""In the environment of a rank: the file by which ranks find each other."""

LOOPBACK = "GLOO_SOCKET_IFNAME"
"""In the environment: the network that gloo uses."""

TORCHRUN = "TORCHELASTIC_RUN_ID"
"""In the environment of a process that torchrun has started."""

END_SECONDS = 5.0
"""For which a rank whose work is over may take to leave."""


class RankProcesses:
    """The ranks from the second on.

    Args:
        size: how many ranks there are, the first one among them.
    """

    def __init__(self, size: int):
        self.size = size
        self._folder = Path(tempfile.mkdtemp(prefix="dambench-ranks-"))
        """Nobody else's: who can write there could speak to the ranks."""
        self.meeting = self._folder / "meeting"
        self.environment = {MEETING: str(self.meeting), "WORLD_SIZE": str(size)}
        """What each of them needs to meet the others, the first one too."""
        if sys.platform == "linux" and LOOPBACK not in os.environ:
            # Connections of processes of one machine stay in it, whatever its name is.
            self.environment[LOOPBACK] = "lo"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._why = ""
        self._over = threading.Event()

    def start(self) -> None:
        """Start them. What they say goes where this process's errors go."""
        for rank in range(1, self.size):
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dambench.cli.rank"],
                    stdin=subprocess.PIPE,
                    stdout=2,
                    env=os.environ | self.environment | {"RANK": str(rank)},
                )
            )
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def lost(self) -> str:
        """Say which of them has ended before its time, and how; empty: none."""
        return self._why

    def close(self) -> None:
        """End those that are still there."""
        self._over.set()
        for process in self._processes:
            if process.stdin:
                process.stdin.close()
        until = time.monotonic() + END_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for rank, process in enumerate(self._processes, 1):
                code = process.poll()
                if code and not self._over.is_set():
                    self._why = f"Rank {rank} of {self.size} {_ended(code)}{self._reason(rank)}"
                    return

    def _reason(self, rank: int) -> str:
        """What a rank left behind of why it ended, as the end of a sentence."""
        try:
            text = reason_file(self.meeting, rank).read_text(errors="replace")[:1000].strip()
        except OSError:
            text = ""
        return f": {text}" if text else "."


def reason_file(meeting: Path, rank: int) -> Path:
    """The file in which a rank says why it ends before its time."""
    return meeting.with_name(f"why-{rank}")


def _ended(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
