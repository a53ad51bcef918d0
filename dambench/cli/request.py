"""What is asked for in a file, in the environment and by flags, one over the other."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dambench.core import config
from dambench.core.config import Request


def requests_of(file: Path | None, given: Mapping[str, Any], settings: list[str] | None) -> list[Request]:
    """The requests of one command, one per seed.

    Args:
        file: TOML, which flags go over.
        given: by field, from flags.
        settings: pairs of `--set`.
    """
    fields = config.read_toml(file) if file else {}
    fields = config.overlay(fields, {"data": os.environ.get("DAMBENCH_DATA") or None})
    options = config.settings(settings or [])
    config.check_said_once({**given, **options}, "the command")
    fields = config.overlay(config.overlay(fields, given), options)
    return config.read(Request, fields, "the request").each_seed()
