"""Readers of data sets, one module a layout; a new layout is one more module, named in READERS."""

from typing import Protocol

from fer_sweep.data.dataset import RawFaces
from fer_sweep.data.images import Progress
from fer_sweep.data.sources import csv_rows, hub, image_folders
from fer_sweep.data.tree import Tree


class Reader(Protocol):
    """What a module here has: whether a tree is laid out its way, and how to read it."""

    def claims(self, tree: Tree) -> bool:
        """Whether the tree's content, not only its name, is of this layout."""

    def read(self, tree: Tree, progress: Progress) -> RawFaces:
        """Read all of it.

        Raises:
            DataError: Something in it cannot be used; the message names file, member and row.
        """


READERS: tuple[Reader, ...] = (csv_rows, hub, image_folders)
"""Asked in this order; the first that claims a tree reads it."""
