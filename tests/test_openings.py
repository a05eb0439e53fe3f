"""Every opening of a test split is recorded in three places, so that none is lost with one of them."""

import logging
import shutil
from pathlib import Path

import pytest

from fer_sweep.errors import StorageError
from fer_sweep.files import cache_dir, home
from fer_sweep.openings import LOG, Opening, one_at_a_time, openings_in, openings_of, write_down


def opening(name: str, split: str = "split", opened: float = 1.0) -> Opening:
    return Opening(name, opened, f"s/{name}", "w", "whole", "f", split, "none", 100, 61, False)


def test_openings_are_counted_once_and_by_split(tmp_path: Path) -> None:
    with one_at_a_time():  # creates the home
        assert openings_of("split") == []
    write_down(opening("b", opened=2.0), tmp_path / "sweep")
    write_down(opening("a", opened=1.0), tmp_path / "sweep")
    write_down(opening("c", "other"), tmp_path / "sweep")
    assert [found.id for found in openings_of("split")] == ["a", "b"]
    assert openings_of("other") == [opening("c", "other")]
    for folder in (tmp_path / "sweep", home(), cache_dir()):
        assert [found.id for found in openings_in(folder)] == ["b", "a", "c"]
    assert openings_in(tmp_path / "untested") == []
    for place, other in ((home(), cache_dir()), (cache_dir(), home())):
        (place / LOG).unlink()
        assert [found.id for found in openings_of("split")] == ["a", "b"], "one lost file loses no opening"
        shutil.copy(other / LOG, place / LOG)


def test_a_line_cut_off_by_a_crash_is_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_down(opening("a"), tmp_path)
    for folder in (home(), cache_dir()):
        with (folder / LOG).open("a") as stream:
            stream.write('{"id": "cut o')
    write_down(opening("b"), tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [found.id for found in openings_of("split")] == ["a", "b"]
    assert "line 2" in caplog.text


def test_only_a_cache_need_not_take_an_opening(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"tests\.jsonl"):
        write_down(opening("a"), tmp_path / "file" / "below")
    (cache_dir() / LOG).mkdir(parents=True)
    write_down(opening("a"), tmp_path)
    assert "other homes" in caplog.text and (home() / LOG).is_file()
    with pytest.raises(StorageError, match="cannot read"):
        openings_of("split")
