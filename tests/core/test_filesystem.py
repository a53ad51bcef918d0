import os
from pathlib import Path

import pytest

from dambench.core.filesystem import disk_of
from tests.mounts import disk_by, table_in

# As real machines have it: a cluster node, an automounter, a container, a virtual machine.
TABLE = r"""
proc /proc proc rw,relatime
/dev/vda1 / ext4 rw,relatime,discard
systemd-1 /home autofs rw,relatime,fd=49,direct
filer:/export/home /home nfs4 rw,nosuid,relatime,vers=4.2,hard,proto=tcp,local_lock=none
filer:/old /home/old nfs rw,relatime,vers=3,nolock,local_lock=all
/dev/nvme0n1p1 /home/me/scratch xfs rw,noatime,attr2
10.0.0.1@o2ib:/fs1 /lustre/a\040b lustre rw,relatime,flock
filer:/export /mnt/bound nfs4 rw,relatime,vers=4.1
me@there:/ /mnt/ssh fuse.sshfs rw,nosuid,user_id=0
/home/me/cipher /mnt/encrypted fuse.gocryptfs rw,nosuid
//server/share /mnt/windows cifs rw,vers=3.1.1
host /mnt/host 9p rw,trans=virtio
/dev/sdb1 /mnt/stick fuseblk rw
backend/fs /weka wekafs rw
filer:/x /mnt/twice nfs4 rw
none /mnt/twice tmpfs rw
overlay /var/lib/docker/overlay2/m overlay rw,lowerdir=/l,upperdir=/u 0 0
this line is no mount
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_in(tmp_path, TABLE)


@pytest.mark.parametrize(
    ("path", "kind", "mount", "network"),
    [
        ("/etc", "ext4", "/", False),
        ("/homework/x", "ext4", "/", False),
        ("/home", "nfs4", "/home", True),
        ("/home/me/runs.db", "nfs4", "/home", True),
        ("/home/me/scratch/deep/er", "xfs", "/home/me/scratch", False),
        ("/home/me/scratches", "nfs4", "/home", True),
        ("/home/old/runs.db", "nfs", "/home/old", True),
        ("/lustre/a b/c", "lustre", "/lustre/a b", True),
        ("/mnt/bound/x", "nfs4", "/mnt/bound", True),
        ("/mnt/ssh/x", "fuse.sshfs", "/mnt/ssh", True),
        ("/mnt/encrypted/x", "fuse.gocryptfs", "/mnt/encrypted", False),
        ("/mnt/windows/x", "cifs", "/mnt/windows", True),
        ("/mnt/host/x", "9p", "/mnt/host", True),
        ("/mnt/stick/x", "fuseblk", "/mnt/stick", False),
        ("/weka/x", "wekafs", "/weka", True),
        ("/mnt/twice/x", "tmpfs", "/mnt/twice", False),
        ("/var/lib/docker/overlay2/m/x", "overlay", "/var/lib/docker/overlay2/m", False),
    ],
)
def test_the_longest_mount_that_matches_decides(
    path: str, kind: str, mount: str, network: bool, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dambench.core.filesystem.os.path.realpath", os.path.abspath)
    disk = disk_by(table)(Path(path))
    assert (disk.kind, disk.mount, bool(disk.why)) == (kind, mount, network)


def test_locks_that_hold_on_one_host_only_are_said(table: Path) -> None:
    assert "with local_lock=all" in disk_by(table)(Path("/home/old/x")).why
    assert "local_lock" not in disk_by(table)(Path("/home/x")).why


def test_it_says_where_a_path_lies(table: Path) -> None:
    assert str(disk_by(table)(Path("/home/x"))) == "nfs4 at /home, of filer:/export/home"
    assert str(disk_by(table)(Path("/mnt/twice/x"))) == "tmpfs at /mnt/twice"


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "net")
    disk = disk_by(table_in(tmp_path, f"/dev/vda / ext4 rw 0 0\nfiler:/x {tmp_path.resolve()}/net nfs4 rw 0 0\n"))
    assert disk(tmp_path / "link" / "runs.db").why
    assert not disk(tmp_path / "runs.db").why


def test_without_a_mount_table_a_disk_is_a_local_one(tmp_path: Path) -> None:
    disk = disk_by(tmp_path / "none" / "self" / "mounts")(tmp_path)
    assert not disk.why
    assert str(disk) == "a disk of unknown kind"


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="Linux only")
def test_this_machine_has_a_mount_table() -> None:
    assert disk_of(Path("/proc")).kind == "proc"
