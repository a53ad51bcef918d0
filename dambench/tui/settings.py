"""Settings: place, filter, columns and the like of the console's user. Written when one changes."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from dambench.core import files, reading


def folder() -> Path:
    """XDG_STATE_HOME, else ~/.local/state, /dambench."""
    return files.user_folder("state")


class Settings:
    """A small dict on disk. What cannot be read or written is forgotten: it is not worth a console."""

    def __init__(self, path: Path | None = None):
        self.path = path or folder() / "console.json"
        self._values = self._read()

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            values = json.loads(reading.content(self.path))
            return values if isinstance(values, dict) else {}
        return {}

    def get(self, name: str, default: Any, *, fresh: bool = False) -> Any:
        """The value, if it is of the kind of the default.

        Args:
            fresh: also if another console has changed it since: what is added to must not be an old list.
        """
        value = (self._read() if fresh else self._values).get(name, default)
        return value if default is None or isinstance(value, type(default)) else default

    def set(self, name: str, value: Any) -> None:
        """Remember this, and nothing else: another console may have changed other values."""
        if self._values.get(name) != value:
            self._values[name] = value
            with suppress(OSError):
                kept = (self._read() or self._values) | {name: value}
                files.write_whole(self.path, json.dumps(kept, indent=1).encode())
