"""Files that are no data set: the message says what each is, and the hint what to do."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import refused
from tests.support.faces import encode, write_folder, write_zip

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
ROW = "0," + " ".join(["7"] * 2304) + ",Training\n"
WIDE = ",".join(["emotion", *(f"p{number}" for number in range(2304))]) + "\n"
FILES = {
    "a.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(30), "it is a 7z archive", "unpack it"),
    "a.rar": (b"Rar!\x1a\x07\x01\0" + bytes(30), "it is a RAR archive", "unpack it"),
    "a.tar.zst": (b"\x28\xb5\x2f\xfd" + bytes(30), "it is compressed by zstd", "unpack it"),
    "a.zip": (b"\xef\xbb\xbf\n<!DOCTYPE html><html>Sign in", "it is an HTML page", "needs a login"),
    "a.html.csv": (b"<HTML><title>Sign in", "it is an HTML page", "needs a login"),
    "a.parquet": (LFS, "it is a Git LFS pointer", "git lfs pull"),
    "b.parquet": (b"PAR0" + bytes(30), "it is no parquet file", "download it again"),
    "lfs.csv": (LFS, "it is a Git LFS pointer", "git lfs pull"),
    "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(30), "it is an HDF5 file", "save it as CSV"),
    "a.xls": (b"\xd0\xcf\x11\xe0" + bytes(30), "it is an Excel or Word file", "save it as CSV"),
    "a.pdf": (b"%PDF-1.4", "it is a PDF", "another file"),
    "face.png": (encode(np.zeros((48, 48), np.uint8)), "one image is no data set", "fersweep predict"),
    "utf16.csv": (("emotion,pixels,Usage\n" + ROW).encode("utf-16"), "it is text in UTF-16", "iconv -f UTF-16 "),
    "utf16be.csv": (
        ("emotion,pixels,Usage\n" + ROW).encode("utf-16-be"),
        "it is text in UTF-16BE",
        "iconv -f UTF-16BE ",
    ),
    "noheader.csv": (ROW.encode(), "it has no header", "emotion,pixels,Usage"),
    "wide.csv": (WIDE.encode(), "it has one column a pixel", "join the 2,304 columns"),
    "wide-noheader.csv": (b"7," * 2304 + b"0\n", "it has one column a pixel", "join the 2,304 columns"),
    "wide.tsv": (WIDE.replace(",", "\t").replace("p", "pixel number ").encode(), "it has one column a pixel", "join"),
    "excel.csv": (b"sep=;\nemotion;pixels;Usage\n", "it begins with a line for Excel", "remove that line"),
    "paths.csv": (
        b"path;label\r\na.png;1\r\n",
        "without a column `pixels`; its columns are 'label', 'path'",
        "class folders",
    ),
    "label.csv": (b"label,pixels\n", "no `emotion` column, .*; it has 'label', 'pixels'", "rename the column"),
    "cr.csv": (
        ("emotion,pixels,Usage\r" + ROW * 9).replace("\n", "\r").encode(),
        "line 1: lines end with CR alone",
        "LF",
    ),
    "size.csv": (b"emotion,pixels\n0," + b"7 " * 4096, "4096 pixels in place of 2304", "48x48"),
    "label7.csv": (
        b"emotion,pixels\n7" + ROW[1:].encode(),
        "line 2: emotion: '7' is none",
        "FER\\+'s and AffectNet's 0 to 7",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_file_is_named_for_what_it_is(name, tmp_path):
    content, message, hint = FILES[name]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, f"^{name}.*{message}", hint)


@pytest.mark.parametrize("name", ["a.7z", "a.parquet", "noheader.csv"])
def test_file_is_named_in_a_folder_with_documents_too(name, tmp_path):
    content, message, hint = FILES[name]
    folder = write_folder(
        tmp_path / "a", {name: content, "LICENSE": b"free, and open", "README.md": b"hello", "a.html": b"<html>"}
    )
    refused(folder, f"^a: {name}: {message}", hint)


def test_excel_workbook_and_an_address_are_named(tmp_path, monkeypatch):
    refused(write_zip(tmp_path / "a.xlsx", {"xl/workbook.xml": b"<?xml"}), "it is an Excel workbook", "save it as CSV")
    monkeypatch.chdir(tmp_path)
    refused(Path("https://www.kaggle.com/fer2013"), "no such file", "download it first")
