"""Readers of data sets, one module a layout; a new layout is one more module, named in READERS."""

from typing import Protocol

from fer_sweep.data.dataset import RawFaces
from fer_sweep.data.images import Progress
from fer_sweep.data.sources import csv_rows, hub, image_folders
from fer_sweep.data.tree import Tree
from fer_sweep.errors import DataError


class Reader(Protocol):
    """What a module here has: its layout in words, whether a tree is laid out so, and how to read it."""

    FORM: str

    def claims(self, tree: Tree) -> bool:
        """Whether the tree's content, not only its name, is of this layout."""

    def read(self, tree: Tree, progress: Progress) -> RawFaces:
        """Read all of it.

        Raises:
            DataError: Something in it cannot be used; the message names file, member and row.
        """


READERS: tuple[Reader, ...] = (csv_rows, hub, image_folders)
"""One of them reads a tree."""


def reader_of(tree: Tree) -> Reader | None:
    """The reader of a tree; None if it holds no layout that is known, and DataError if it holds several."""
    claiming = [reader for reader in READERS if reader.claims(tree)]
    if len(claiming) > 1:
        forms = " and ".join(reader.FORM for reader in claiming)
        raise DataError(
            f"{tree.name}: several data sets lie side by side: {forms}",
            hint="give the path of the one that is meant, or move the others away (unpack an archive for that)",
        )
    return claiming[0] if claiming else None
