"""Another machine's mount table."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dambench.core.filesystem import Disk, disk_of


def table_in(folder: Path, text: str = "") -> Path:
    """Write what /proc/self/mounts has there."""
    table = folder / "proc" / "self" / "mounts"
    table.parent.mkdir(parents=True)
    table.write_text(text)
    return table


def disk_by(table: Path) -> Callable[[Path], Disk]:
    """`disk_of`, on a machine that has these mounts."""

    def disk(path: Path) -> Disk:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(psutil, "PROCFS_PATH", str(table.parent.parent))
            return disk_of(path)

    return disk
