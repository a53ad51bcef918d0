"""Disk: what kind of disk a path lies on, as far as this machine's mount table tells.

SQLite needs locks that hold and memory that all its processes share. A network disk may give neither: with locks that
do nothing four writers made a database malformed within two seconds.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

NETWORK = re.compile(
    "9p|afpfs|afs|beegfs|ceph|cephfs|cifs|coda|davfs|glusterfs|gpfs|lizardfs|lustre|moosefs|ncpfs|nfs|nfs4|ocfs2|"
    "orangefs|panfs|prl_fs|pvfs2|quobyte|smb2|smb3|smbfs|vboxsf|virtiofs|vmhgfs|wekafs"
)
"""Those of virtual machines too: their host, or another machine, may have the same file open."""

LOCAL_FUSE = re.compile(
    r"fuse\.(bindfs|cryfs|encfs|exfat|fuse-overlayfs|gocryptfs|mergerfs|ntfs|ntfs-3g|squashfuse|unionfs-fuse)"
)
"""Programs' file systems that lock as a local disk does. How others lock (sshfs, s3fs, rclone, …) is not known."""


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


def disk_of(path: Path) -> Disk:
    """Find the disk that a path lies on, or would if it were made.

    Of two mounts at one place the later one counts. Where there is no mount table, every disk is taken for a local one.
    """
    import psutil  # late: most commands have no need of it

    real = os.path.realpath(path)  # which also makes an automounter mount it
    disk = Disk("", "", "", "")
    with suppress(OSError):
        for mount in psutil.disk_partitions(all=True):
            inside = real == mount.mountpoint or real.startswith(mount.mountpoint.rstrip("/") + "/")
            if inside and len(mount.mountpoint) >= len(disk.mount):
                why = _why(mount.fstype, set(mount.opts.split(",")))
                disk = Disk(mount.fstype, mount.mountpoint, mount.device, why)
    return disk


def _why(kind: str, options: set[str]) -> str:
    loose = sorted(o for o in options if o == "nolock" or (o.startswith("local_lock=") and o != "local_lock=none"))
    if loose:
        return f"{kind} is a network file system, here with {loose[0]}: its locks hold on one host only"
    if NETWORK.fullmatch(kind):
        return f"{kind} is a network file system"
    if re.match(r"fuse(\.|$)", kind) and not LOCAL_FUSE.fullmatch(kind):
        return f"{kind} is a file system of a program, which may be a network's"
    return ""
