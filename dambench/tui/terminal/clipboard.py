"""Clipboard: copying over SSH, where no program reaches the clipboard of the person at the other end.

OSC 52 asks the terminal to take a text; tmux, as it comes, does not pass that on from programs inside it, so it is
asked itself. Whether the terminal obeyed cannot be known: a file has the text as well.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from textual.app import App

from dambench.core import files
from dambench.tui import settings


def copy(app: App[Any], text: str) -> Path | None:
    """Offer a text to the terminal, and write it to a file.

    Returns:
        The file; None: it could not be written.
    """
    app.copy_to_clipboard(text)
    if os.environ.get("TMUX") and not app.is_web:
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["tmux", "load-buffer", "-w", "-"], input=text.encode(), timeout=2, check=False)
    path = settings.folder() / "clipboard.txt"
    try:
        files.write_whole(path, text.encode())
    except OSError:
        return None
    return path
