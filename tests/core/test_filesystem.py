import os
from pathlib import Path

import pytest

from dambench.core.filesystem import disk_of

# As proc(5) and the tables of real machines have it: a cluster node, an automounter, a container, a virtual machine.
TABLE = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda1 rw,discard
31 27 0:40 / /home rw,relatime shared:21 - autofs systemd-1 rw,fd=49,direct
32 31 0:41 / /home rw,nosuid,relatime shared:22 - nfs4 filer:/export/home rw,vers=4.2,hard,proto=tcp,local_lock=none
33 27 0:42 / /home/old rw,relatime - nfs filer:/old rw,vers=3,nolock,local_lock=all
34 27 254:1 / /home/me/scratch rw,noatime - xfs /dev/nvme0n1p1 rw,attr2
35 27 0:43 / /lustre/a\040b rw,relatime - lustre 10.0.0.1@o2ib:/fs1 rw,flock
36 27 0:44 /sub /mnt/bound rw,relatime - nfs4 filer:/export rw,vers=4.1
37 27 0:45 / /mnt/ssh rw,nosuid shared:1 master:2 - fuse.sshfs me@there:/ rw,user_id=0
38 27 0:46 / /mnt/encrypted rw,nosuid - fuse.gocryptfs /home/me/cipher rw
39 27 0:47 / /mnt/windows rw - cifs //server/share rw,vers=3.1.1
40 27 0:48 / /mnt/host rw - 9p host rw,trans=virtio
41 27 0:49 / /mnt/stick rw - fuseblk /dev/sdb1 rw
42 27 0:50 / /weka rw - wekafs backend/fs rw
43 27 0:51 / /mnt/twice rw - nfs4 filer:/x rw
44 43 0:52 / /mnt/twice rw - tmpfs none rw
45 27 0:53 / /var/lib/docker/overlay2/m rw - overlay overlay rw,lowerdir=/l,upperdir=/u
this line is no mount
46 27 0:54 - -
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return path


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
    disk = disk_of(Path(path), table)
    assert (disk.kind, disk.mount, bool(disk.why)) == (kind, mount, network)


def test_locks_that_hold_on_one_host_only_are_said(table: Path) -> None:
    assert "with local_lock=all" in disk_of(Path("/home/old/x"), table).why
    assert "local_lock" not in disk_of(Path("/home/x"), table).why


def test_it_says_where_a_path_lies(table: Path) -> None:
    assert str(disk_of(Path("/home/x"), table)) == "nfs4 at /home, of filer:/export/home"
    assert str(disk_of(Path("/mnt/twice/x"), table)) == "tmpfs at /mnt/twice"


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "net")
    (tmp_path / "mountinfo").write_text(
        f"1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {tmp_path.resolve()}/net rw - nfs4 filer:/x rw\n"
    )
    assert disk_of(tmp_path / "link" / "runs.db", tmp_path / "mountinfo").why
    assert not disk_of(tmp_path / "runs.db", tmp_path / "mountinfo").why


def test_without_a_mount_table_a_disk_is_a_local_one(tmp_path: Path) -> None:
    disk = disk_of(tmp_path, tmp_path / "none")
    assert not disk.why
    assert str(disk) == "a disk of unknown kind"


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="Linux only")
def test_this_machine_has_a_mount_table() -> None:
    assert disk_of(Path("/proc")).kind == "proc"
