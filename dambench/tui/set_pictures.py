"""Set pictures: pictures of a set that take torch to make, made by a child: decoded mosaics, nearest real images."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from dambench.core.sanitize import display

KINDS = {"decoded": ("--preview", "--decoded"), "nearest": ("--nearest",)}
"""By kind, how `dambench show` is asked for it; the file stands after the first word."""


class SetPictures:
    """Has a picture made, one child at a time.

    Args:
        on_picture: called with the run, the kind, the PNG and a sentence on what went wrong, in a thread of its own.
    """

    def __init__(self, on_picture: Callable[[str, str, bytes, str], None]):
        self._on_picture = on_picture
        self._child: subprocess.Popen[bytes] | None = None
        self._over = False

    def ask(self, database: Path, run: str, kind: str) -> bool:
        """Have it made; False: another one is being made."""
        if self._child is not None and self._child.poll() is None:
            return False
        threading.Thread(target=self._work, args=(database, run, kind), name="set picture", daemon=True).start()
        return True

    def close(self) -> None:
        """End the child, whatever it is doing."""
        self._over = True
        if self._child is not None:
            self._child.kill()

    def _work(self, database: Path, run: str, kind: str) -> None:
        png, complaint = b"", ""
        option, *more = KINDS[kind]
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "set.png"
                words = ["show", run, "--db", str(database.absolute()), option, str(file), *more, "--json"]
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "dambench", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                _, errors = self._child.communicate()
                if self._child.returncode:
                    last = errors.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("dambench: ")
                    complaint = display(last, 300) or f"It ended with {self._child.returncode}."
                else:
                    png = file.read_bytes()
        except OSError as error:
            complaint = f"It could not be made: {error}"
        if not self._over:
            self._on_picture(run, kind, png, complaint)
