"""Which file system holds a path, by Linux's mountinfo; SQLite is refused on network file systems."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fer_sweep.search.entries import known

from fer_sweep import mounts
from fer_sweep.errors import InputError
from fer_sweep.mounts import file_system, network_file_system
from fer_sweep.search import registry
from fer_sweep.store.database import check_storage, default_storage

MOUNTED = r"""22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
23 22 0:5 / /proc rw - proc proc rw
30 22 0:44 / /home rw,relatime shared:5 - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/me/local\040disk rw,relatime shared:7 master:2 propagate_from:3 - xfs /dev/sdb rw
32 22 0:46 / /auto rw,relatime - autofs /etc/auto.master rw
33 32 0:47 / /auto/lab rw,relatime - autofs /etc/auto.lab rw
34 32 0:48 / /auto/lab rw,relatime - nfs server:/lab rw
35 22 0:49 / /scratch\134odd\012name rw - lustre 10.0.0.1@tcp:/scratch rw
36 22 0:50 /docker /data rw - overlay overlay rw
37 22 0:51 / /run rw - tmpfs tmpfs rw
a line that makes no sense
"""


Mount = Callable[[str], None]


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """Have Linux say that this is mounted."""
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")

    def say(text: str) -> None:
        (tmp_path / "mountinfo").write_text(text)

    return say


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homely/x", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/.fersweep/sweeps.db", "nfs4"),
        ("/home/me/local disk/sweeps.db", "xfs"),
        ("/home/me/local diskette/sweeps.db", "nfs4"),
        ("/auto/lab/x", "nfs"),
        ("/auto/x", "autofs"),
        ("/scratch\\odd\nname/x", "lustre"),
        ("/data/x", "overlay"),
    ],
)
def test_the_longest_mount_point_decides(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTED) == kind


def test_without_mountinfo_nothing_is_known(tmp_path: Path, mount: Mount) -> None:
    assert file_system(Path("/x"), "") is None
    assert network_file_system(tmp_path) is None


NETWORK = "nfs nfs4 cifs smb3 lustre gpfs beegfs ceph fuse.ceph fuse.sshfs 9p afs fuse.glusterfs"
LOCAL = "ext4 xfs btrfs zfs tmpfs overlay fuse.mergerfs fuse f2fs nfsd ecryptfs virtiofs squashfs"


@pytest.mark.parametrize(
    ("kind", "is_network"), [*((kind, True) for kind in NETWORK.split()), *((kind, False) for kind in LOCAL.split())]
)
def test_network_file_systems_are_recognised(kind: str, is_network: bool, tmp_path: Path, mount: Mount) -> None:
    mount(f"1 0 8:1 / / rw - {kind} x rw\n")
    assert network_file_system(tmp_path / "not" / "yet" / "there") == (kind if is_network else None)


def test_links_are_followed(tmp_path: Path, mount: Mount) -> None:
    mount(f"1 0 8:1 / / rw - ext4 x rw\n2 1 0:9 / {tmp_path.resolve()}/far rw - nfs x rw\n")
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    assert network_file_system(tmp_path / "near" / "sweeps.db") == "nfs"
    assert network_file_system(tmp_path / "sweeps.db") is None


def test_sqlite_on_a_network_file_system_is_read_only(tmp_path: Path, mount: Mount) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "program: x\nmethod: random\nparameters: {model: {value: vit}, lr: {min: 0.1, max: 0.2}}\n"
    )
    entry = registry.create(tmp_path / "sweep.yaml")
    mount("1 0 8:1 / / rw - nfs4 x rw\n")
    search = registry.open_search(entry)
    assert search.records() == []
    assert registry.state_of(entry) == "running"
    for refused in (
        lambda: registry.create(tmp_path / "sweep.yaml"),
        lambda: registry.create(tmp_path / "sweep.yaml", storage="sqlite:///other.db"),
        lambda: search.next_trial("cpu0"),
        lambda: check_storage(default_storage()),
    ):
        with pytest.raises(InputError, match=r"network file system \(nfs4\)") as caught:
            refused()
        assert "--storage postgresql+psycopg://" in (caught.value.hint or "")
        assert "FERSWEEP_HOME" in (caught.value.hint or "")
    search.close()
    assert not (tmp_path / "other.db").exists()
    assert len(known()) == 1
