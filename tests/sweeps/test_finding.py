"""Which sweep is meant: by id, address, name or the beginning of an id; and what is said where none or several are."""

import os
from pathlib import Path

import pytest

from fer_sweep.errors import InputError, NothingToDo, StorageError
from fer_sweep.sweeps import known, last_searched, open_sweep
from fer_sweep.sweeps.choosing import with_further_seeds
from fer_sweep.sweeps.entries import find_entry, rename
from tests.search.conftest import refused
from tests.support.records import candidate


def test_a_sweep_is_found_by_id_name_and_beginning_of_its_id_in_this_order(named):
    for name, sweep_id in (("faces", "aaaa1111"), ("aaaa1111", "aabb2222"), ("twin", "cccc3333"), ("twin", "cdcd4444")):
        named(name, sweep_id)
    for given, found in (("aaaa1111", "aaaa1111"), ("faces", "aaaa1111"), ("aab", "aabb2222"), ("cd", "cdcd4444")):
        assert find_entry(given).id == found, given
    with refused(InputError, "twin: 2 sweeps have this name", hint=r"cdcd4444 \(twin, \d s old\), cccc3333 \(twin"):
        find_entry("twin")
    with refused(InputError, "c: 2 sweeps have an id that begins so", hint="cdcd4444.*cccc3333"):
        find_entry("c")
    with refused(InputError, "no sweep 'facse'", hint="did you mean faces"):
        open_sweep("facse")


def test_a_renamed_sweep_has_only_its_new_name_and_none_that_hides_another(named):
    first, second = named("old", "aaaa1111"), named("other", "bbbb2222")
    rename(first.entry, "new name")
    assert (find_entry("new name").id, find_entry("old")) == ("aaaa1111", None)
    for wrong in ("bbbb2222", " ", "a\nb"):
        with pytest.raises(InputError):
            rename(first.entry, wrong)
    assert rename(second.entry, "bbbb2222").name == "bbbb2222"


def test_without_a_sweep_the_one_searched_last_is_meant_and_not_one_that_confirms(named):
    searched = named("searched", "aaaa1111")
    with with_further_seeds(searched, candidate("0", 0.5, sweep=searched.id), 2) as confirmation:
        assert find_entry("confirm").id == confirmation.id
    for opened in (open_sweep(), last_searched()):
        assert opened.id == "aaaa1111"


def test_an_unreadable_sweep_hides_no_other_one_but_may_be_the_last(named):
    named("good", "aaaa1111")
    bad = named("bad", "bbbb2222").folder / "sweep.json"
    bad.write_text("{")
    assert find_entry("good").id == "aaaa1111"
    assert [entry.id for entry in known()] == ["aaaa1111"]
    for meant in ("bbbb2222", "bad", None):
        with pytest.raises(StorageError, match=r"cannot read .*bbbb2222"):
            open_sweep(meant)
    os.utime(bad, (0, 0))
    assert last_searched().id == "aaaa1111"


@pytest.mark.parametrize("given", ["./tiny.yaml", "tiny.yaml", "tiny", "simple_cnn"])
def test_a_sweep_file_is_not_taken_for_a_sweep(given):
    Path("tiny.yaml").write_text("method: grid\n")
    with refused(InputError, "is a sweep file", hint=f"fersweep create {given}; .* fersweep run {given}"):
        open_sweep(given)


def test_a_home_in_a_folder_above_is_named(named, monkeypatch, tmp_path):
    named("above", "aaaa1111")
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sub" / "deeper")
    monkeypatch.delenv("FERSWEEP_HOME")
    with refused(NothingToDo, "no sweep in", hint=f"cd {tmp_path}, or set FERSWEEP_HOME"):
        last_searched()
    with refused(InputError, "no sweep 'above'", hint=f"cd {tmp_path}"):
        open_sweep("above")
