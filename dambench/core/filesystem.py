"""Disk: what kind of disk a path lies on, as far as this machine's mount table tells.

SQLite needs locks that hold and memory that all its processes share. A network disk may give neither: with locks that
do nothing four writers made a database malformed within two seconds.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

MOUNTS = Path("/proc/self/mountinfo")
"""As proc(5) describes it. Elsewhere than on Linux there is none, and every disk is taken for a local one."""

NETWORK = re.compile(
    "9p|afpfs|afs|beegfs|ceph|cephfs|cifs|coda|davfs|glusterfs|gpfs|lizardfs|lustre|moosefs|ncpfs|nfs|nfs4|ocfs2|"
    "orangefs|panfs|prl_fs|pvfs2|quobyte|smb2|smb3|smbfs|vboxsf|virtiofs|vmhgfs|wekafs"
)
"""Those of virtual machines too: their host, or another machine, may have the same file open."""

LOCAL_FUSE = re.compile(
    r"fuse\.(bindfs|cryfs|encfs|exfat|fuse-overlayfs|gocryptfs|mergerfs|ntfs|ntfs-3g|squashfuse|unionfs-fuse)"
)
"""Of whatever else is a program's file system (sshfs, s3fs, rclone, …) nobody knows how it locks."""


class Disk(NamedTuple):
    """Where a path lies."""

    kind: str
    """The file system's type; empty: not known."""
    mount: str
    source: str
    why: str
    """What makes it a network disk; empty: it is a local one."""

    def __str__(self) -> str:
        source = f", of {self.source}" if self.source not in ("", "none", self.kind) else ""
        return f"{self.kind} at {self.mount}{source}" if self.kind else "a disk of unknown kind"


def disk_of(path: Path, table: Path = MOUNTS) -> Disk:
    """The disk that a path lies on, or would if it were made.

    Args:
        table: the mount table; of two mounts at one place the later one is seen.
    """
    real = os.path.realpath(path)  # which also makes an automounter mount it
    found = Disk("", "", "", "")
    try:
        lines = table.read_bytes().decode(errors="surrogateescape").split("\n")
    except OSError:
        return found
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields, (kind, source, options) = before.split(" "), (after.split(" ") + [""] * 3)[:3]
        if not separator or len(fields) < 6:
            continue
        point = _plain(fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found.mount):
            found = Disk(kind, point, _plain(source), _why(kind, {*fields[5].split(","), *options.split(",")}))
    return found


def _plain(name: str) -> str:
    r"""Blanks, tabs, line ends and backslashes are written as \040 and so on."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), name)


def _why(kind: str, options: set[str]) -> str:
    loose = sorted(o for o in options if o == "nolock" or (o.startswith("local_lock=") and o != "local_lock=none"))
    if loose:
        return f"{kind} is a network file system, here with {loose[0]}: its locks hold on one host only"
    if NETWORK.fullmatch(kind):
        return f"{kind} is a network file system"
    if re.match(r"fuse(\.|$)", kind) and not LOCAL_FUSE.fullmatch(kind):
        return f"{kind} is a file system of a program, which may be a network's"
    return ""
