"""What a file is that fersweep does not read, by how it begins, and what to do about it."""

CONVERT = "convert images to PNG first, such as: magick mogrify -format png FILES"
"""The hint for images of a kind that is not read."""
_UNPACK = "unpack it, and give the folder"
_CONVERT = "save it as CSV, parquet or image folders"
_DOWNLOAD = "the download needs a login or another address: open it in a browser, then download the file again"

_KINDS = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"\x04\x22\x4d\x18", "compressed by lz4", _UNPACK),
    (b"\x1f\x9d", "compressed by compress", _UNPACK),
    (b"LZIP", "compressed by lzip", _UNPACK),
    (b"MSCF", "a Windows cabinet", _UNPACK),
    (b"PK\x07\x08", "one part of a divided zip", "join the parts: zip -s 0 PART.zip --out whole.zip"),
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the file itself", "run git lfs pull, then again"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself", "run git annex get ., then again"),
    (b"<!doctype html", "an HTML page", _DOWNLOAD),
    (b"<html", "an HTML page", _DOWNLOAD),
    (b"<?xml", "an XML page, as servers answer with in place of a file", _DOWNLOAD),
    (b"{", "a JSON document", "read what it says; the data set is another file"),
    (b"%pdf", "a PDF", "the data set is another file"),
    (b"\xd0\xcf\x11\xe0", "an Excel or Word file", "save it as CSV (UTF-8)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _CONVERT),
    (b"\x93NUMPY", "a numpy array", _CONVERT),
    (b"SQLite format 3\0", "an SQLite database", _CONVERT),
    (b"ARROW1", "an Arrow or Feather file", _CONVERT),
    (b"ftypheic", "an HEIC image", CONVERT),
    (b"ftypheix", "an HEIC image", CONVERT),
    (b"ftypmif1", "an HEIF image", CONVERT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image", CONVERT),
    (b"8BPS", "a Photoshop document", CONVERT),
    (b"%!PS", "a PostScript document", CONVERT),
    (b"\x80\x04\x95", "a Python pickle, which could run code", _CONVERT),
)
"""How it begins, in any case; what it is; what to do."""


def kind(head: bytes) -> tuple[str, str] | None:
    """What a file is that begins so, and a hint; None for what may be read, and for what is not known.

    >>> kind(b"Rar!....") is None, kind(b" <HTML><title>Sign in")[0]
    (True, 'an HTML page')
    """
    start = head[:256].removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if head[4:8] == b"ftyp":
        head = head[4:]  # after the length of HEIC's first part
    found = (rest for begin, *rest in _KINDS if head.startswith(begin) or start.startswith(begin))
    return next(((what, hint) for what, hint in found), None)
