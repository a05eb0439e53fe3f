"""Which file system holds a path: SQLite's locks and shared memory do not hold on those of a network."""

import re
from collections.abc import Iterator
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
"""Linux's list of what is mounted for this process; see proc_pid_mountinfo(5)."""

_NETWORK = re.compile(
    "9p|acfs|afs|beegfs|ceph|cifs|coda|davfs|glusterfs|gpfs|lustre|ncpfs|nfs4?|orangefs|panfs|pvfs2|smb[23]|smbfs|wekafs"
    "|fuse\\.(ceph|ceph-fuse|davfs|gcsfuse|glusterfs|juicefs|mfs|quobyte|rclone|s3fs|smbnetfs|sshfs)"
)


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that holds a path, whether it exists yet or not; None for a local disk.

    None also where the system does not tell, such as outside Linux.
    """
    real = path.resolve()  # first: it follows links, and makes automounts mount
    try:
        mounted = MOUNTINFO.read_text(errors="surrogateescape")
    except OSError:
        return None
    kind = file_system(real, mounted)
    return kind if kind is not None and _NETWORK.fullmatch(kind) else None


def file_system(path: Path, mountinfo: str) -> str | None:
    r"""The kind of file system that holds an absolute path without links, by the text of a mountinfo file.

    >>> text = r'''22 1 8:1 / / rw - ext4 /dev/sda1 rw
    ... 30 22 0:44 /u /home/my\040lab rw,relatime shared:5 - nfs4 server:/u rw'''
    >>> file_system(Path("/home/my lab/x/sweeps.db"), text), file_system(Path("/home/my"), text)
    ('nfs4', 'ext4')
    """
    found: tuple[int, str] | None = None
    for point, kind in _mounts(mountinfo):
        # The longest mount point that leads to the path counts, and of several on one point the one mounted last.
        if path.is_relative_to(point) and (found is None or len(point) >= found[0]):
            found = (len(point), kind)
    return found[1] if found else None


def _mounts(mountinfo: str) -> Iterator[tuple[str, str]]:
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")  # optional fields stand before the dash, any number of them
        fields, kinds = before.split(), after.split()
        if separator and len(fields) >= 5 and kinds:
            yield re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]), kinds[0]
