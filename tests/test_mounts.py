"""Which file system holds a path, by Linux's mountinfo; SQLite is refused on network file systems."""

from pathlib import Path

import pytest

from fer_sweep import mounts
from fer_sweep.errors import InputError
from fer_sweep.mounts import file_system, network_file_system
from fer_sweep.sweeps.entries import known
from tests.cli.conftest import write_sweep
from tests.support.searches import create

MOUNTED = r"""22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:44 / /home rw,relatime shared:5 - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/me/local\040disk rw,relatime shared:7 master:2 propagate_from:3 - xfs /dev/sdb rw
32 22 0:46 / /auto rw,relatime - autofs /etc/auto.master rw
33 32 0:47 / /auto/lab rw,relatime - autofs /etc/auto.lab rw
34 32 0:48 / /auto/lab rw,relatime - nfs server:/lab rw
35 22 0:49 / /scratch\134odd\012name rw - lustre 10.0.0.1@tcp:/scratch rw
36 22 0:50 /docker /data rw - overlay overlay rw
a line that makes no sense
"""


@pytest.fixture
def mount(tmp_path, monkeypatch):
    """Have Linux say that this is mounted; nothing is until then."""
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")
    return lambda text: (tmp_path / "mountinfo").write_text(text) and None


PATHS = {
    "/": "ext4",
    "/homely/x": "ext4",
    "/home/me/.fersweep/sweeps.db": "nfs4",
    "/home/me/local disk/sweeps.db": "xfs",
    "/home/me/local diskette/sweeps.db": "nfs4",
    "/auto/lab/x": "nfs",
    "/auto/x": "autofs",
    "/scratch\\odd\nname/x": "lustre",
    "/data/x": "overlay",
}


def test_the_longest_mount_point_decides():
    assert {path: file_system(Path(path), MOUNTED) for path in PATHS} == PATHS


NETWORK = "nfs nfs4 cifs smb3 lustre gpfs beegfs ceph fuse.ceph fuse.sshfs 9p afs fuse.glusterfs"
LOCAL = "ext4 xfs btrfs zfs tmpfs overlay fuse.mergerfs fuse f2fs nfsd ecryptfs virtiofs squashfs"


def test_network_file_systems_are_recognised_also_behind_links(tmp_path, mount):
    assert network_file_system(tmp_path) is None, "nothing is known without mountinfo"
    for kind in (*NETWORK.split(), *LOCAL.split()):
        mount(f"1 0 8:1 / / rw - {kind} x rw\n")
        found = network_file_system(tmp_path / "not" / "yet" / "there")
        assert found == (kind if kind in NETWORK.split() else None)
    mount(f"1 0 8:1 / / rw - ext4 x rw\n2 1 0:9 / {tmp_path.resolve()}/far rw - nfs x rw\n")
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    assert network_file_system(tmp_path / "near" / "sweeps.db") == "nfs"
    assert network_file_system(tmp_path / "sweeps.db") is None


def test_sqlite_on_a_network_file_system_is_read_only(tmp_path, mount):
    file = Path(write_sweep())
    entry = create(file)
    mount("1 0 8:1 / / rw - nfs4 x rw\n")
    search = entry.search()
    assert search.records() == []
    assert entry.state == "running"
    for refused in (
        lambda: create(file),
        lambda: create(file, storage="sqlite:///other.db"),
        lambda: search.next_trial("cpu0"),
    ):
        with pytest.raises(InputError, match=r"network file system \(nfs4\)") as caught:
            refused()
        hint = caught.value.hint or ""
        assert "--storage postgresql+psycopg://" in hint and "FERSWEEP_HOME" in hint
    search.close()
    assert not Path("other.db").exists() and len(known()) == 1
