"""What the console remembers of its user: place, filter, columns, and the like. Written when it changes."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from dambench import files, reading


def folder() -> Path:
    """XDG_STATE_HOME, else ~/.local/state, /dambench."""
    return files.user_path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "dambench"


class Settings:
    """A small dict on disk. What cannot be read or written is forgotten: it is not worth a console."""

    def __init__(self, path: Path | None = None):
        self.path = path or folder() / "console.json"
        self._values: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            found = json.loads(reading.content(self.path))
            self._values = found if isinstance(found, dict) else {}

    def get(self, name: str, default: Any) -> Any:
        """The value, if it is of the kind of the default."""
        value = self._values.get(name, default)
        return value if default is None or isinstance(value, type(default)) else default

    def set(self, name: str, value: Any) -> None:
        if self._values.get(name) != value:
            self._values[name] = value
            with suppress(OSError):
                files.write_whole(self.path, json.dumps(self._values, indent=1).encode())
