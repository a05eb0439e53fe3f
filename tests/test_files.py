"""Writing is whole or not at all, also on a full disk."""

import os
import stat
from pathlib import Path

import pytest

from fer_sweep.errors import InputError, StorageError
from fer_sweep.files import (
    atomic_folder,
    atomic_path,
    cache_dir,
    can_be_resumed,
    folder_beside,
    home,
    sweep_folder,
    trial_folder,
    write_atomically,
    write_first,
)


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path):
    target = tmp_path / "result.json"
    write_first(target, "old")
    write_first(target, "of another host that was second")
    with pytest.raises(ValueError, match="no"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ValueError("no")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_or_a_file_in_place_of_a_folder_is_a_storage_error_with_advice(tmp_path):
    with pytest.raises(StorageError, match=r"last\.ckpt") as caught, atomic_path(tmp_path / "last.ckpt"):
        Path("/dev/full").write_text("x")
    assert caught.value.hint
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below", "x")
    with pytest.raises(StorageError, match="cannot write"), atomic_folder(tmp_path / "file" / "below"):
        pass


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_new_files_have_the_mode_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    write_atomically(tmp_path / "config.json", "{}")
    os.umask(before)
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o666 & ~umask


def test_home_is_below_the_working_directory_unless_moved(monkeypatch):
    monkeypatch.setenv("FERSWEEP_HOME", "/elsewhere")
    assert trial_folder("abc", "3") == Path("/elsewhere/sweeps/abc/trials/3")
    monkeypatch.delenv("FERSWEEP_HOME")
    assert home() == Path.cwd() / ".fersweep"
    monkeypatch.setenv("FERSWEEP_CHECKPOINTS", "/" + 300 * "x")  # refused by the system, as one without permission is
    assert not can_be_resumed("sweep", "0")


def test_whatever_exists_is_not_replaced_by_a_new_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    before = sorted(tmp_path.rglob("*"))
    for name in ("file", "link", "empty", "full"):
        with pytest.raises(InputError, match="exists already"), atomic_folder(tmp_path / name):
            pass
    rename = Path.rename

    def late(self: Path, to: Path) -> Path:
        (tmp_path / "made/theirs").mkdir(parents=True)  # by another process
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(InputError, match="exists already"), atomic_folder(tmp_path / "made") as building:
        (building / "ours").touch()
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "made", tmp_path / "made/theirs"])


@pytest.mark.parametrize("variable", ["FERSWEEP_HOME", "FERSWEEP_CACHE"])
def test_a_user_without_a_home_is_told_which_folder_to_name(monkeypatch, variable):
    def nowhere(path: object) -> str:
        raise RuntimeError("Could not determine home directory.")

    for name in ("FERSWEEP_HOME", "FERSWEEP_CACHE"):
        monkeypatch.setenv(name, "/given")
    monkeypatch.setenv(variable, "~/faces" if variable == "FERSWEEP_HOME" else "")
    monkeypatch.setattr(Path, "expanduser", nowhere)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/fersweep"))
    with pytest.raises(InputError, match="no home") as caught:
        home() if variable == "FERSWEEP_HOME" else cache_dir()
    assert variable in str(caught.value.hint)


def test_what_a_killed_process_left_beside_a_folder_is_removed_and_what_is_in_use_or_not_ours_stays(tmp_path):
    for name in (".out.0123abcd", ".out.restoring-0123abcd", ".out.notes", ".other.0123abcd"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").touch()
    target = tmp_path / "out"
    with atomic_folder(target) as first, folder_beside(target, "restoring-") as second, folder_beside(target):
        assert first.is_dir() and second.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.0123abcd", ".out.notes", "out"]


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc", "", "a\n", ".hidden", "x" * 200, "\x1b[31m", "a\0"])
def test_id_that_would_lead_elsewhere_is_refused(name: str) -> None:
    for act in (lambda: sweep_folder(name), lambda: trial_folder("abc", name), lambda: trial_folder(name, "0")):
        with pytest.raises(InputError, match="invalid id") as caught:
            act()
        assert caught.value.hint
