"""Which file system holds a path: SQLite's locks and shared memory do not work on network file systems."""

import re
from collections.abc import Iterable
from pathlib import Path

import psutil

_NETWORK = re.compile(
    "9p|acfs|afs|beegfs|ceph|cifs|coda|davfs|glusterfs|gpfs|lustre|ncpfs|nfs4?|orangefs|panfs|pvfs2|smb[23]|smbfs|wekafs"
    "|fuse\\.(ceph|ceph-fuse|davfs|gcsfuse|glusterfs|juicefs|mfs|quobyte|rclone|s3fs|smbnetfs|sshfs)"
)


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that holds a path, whether it exists yet or not; None for a local disk."""
    real = path.resolve()  # first: it follows links, and triggers automounts
    try:
        mounted = [(mount.mountpoint, mount.fstype) for mount in psutil.disk_partitions(all=True)]
    except OSError:
        return None
    kind = file_system(real, mounted)
    return kind if kind is not None and _NETWORK.fullmatch(kind) else None


def file_system(path: Path, mounted: Iterable[tuple[str, str]]) -> str | None:
    """The kind of file system that holds an absolute path without links.

    Mount points and kinds are in the order of mounting: the last one on a mount point hides the others.

    >>> mounted = [("/", "ext4"), ("/home/my lab", "nfs4")]
    >>> file_system(Path("/home/my lab/x/sweeps.db"), mounted), file_system(Path("/home/my"), mounted)
    ('nfs4', 'ext4')
    """
    holding = [(len(point), kind) for point, kind in mounted if path.is_relative_to(point)]
    return max(reversed(holding), key=lambda found: found[0], default=(0, None))[1]
