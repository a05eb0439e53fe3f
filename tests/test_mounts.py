"""Which file system holds a path; SQLite is refused on network file systems."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fer_sweep.errors import InputError
from fer_sweep.mounts import file_system, network_file_system
from fer_sweep.sweeps.entries import known
from tests.cli.conftest import write_sweep
from tests.support.searches import create

MOUNTED = [
    ("/", "ext4"),
    ("/home", "nfs4"),
    ("/home/me/local disk", "xfs"),
    ("/auto", "autofs"),
    ("/auto/lab", "autofs"),
    ("/auto/lab", "nfs"),
    ("/scratch\\odd\nname", "lustre"),
    ("/data", "overlay"),
]


@pytest.fixture
def mount(monkeypatch):
    """Replace what is mounted."""

    def mount(*mounted):
        disks = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounted]
        monkeypatch.setattr("psutil.disk_partitions", lambda all: disks)

    return mount


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
    mount()
    assert network_file_system(tmp_path) is None, "nothing is known where the system does not tell"
    for kind in (*NETWORK.split(), *LOCAL.split()):
        mount(("/", kind))
        found = network_file_system(tmp_path / "not" / "yet" / "there")
        assert found == (kind if kind in NETWORK.split() else None)
    mount(("/", "ext4"), (f"{tmp_path.resolve()}/far", "nfs"))
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    assert network_file_system(tmp_path / "near" / "sweeps.db") == "nfs"
    assert network_file_system(tmp_path / "sweeps.db") is None


def test_sqlite_on_a_network_file_system_is_read_only(tmp_path, mount):
    file = Path(write_sweep())
    entry = create(file)
    mount(("/", "nfs4"))
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
        assert "storage postgresql+psycopg://" in hint and "FERSWEEP_HOME" in hint
    search.close()
    assert not Path("other.db").exists() and len(known()) == 1
