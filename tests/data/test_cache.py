"""The cache: read-only, whole or not there, safe with several writers, and honest about damage."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from fer_sweep.data import store, synthetic
from fer_sweep.data.cache import Split, find_dataset, list_datasets, open_dataset, prepare
from fer_sweep.data.dataset import group_copies
from fer_sweep.errors import DataError, StorageError


@pytest.fixture
def source(faces, pack, tmp_path):
    return pack["zip"](tmp_path / "faces.zip", faces.kaggle_files())


@pytest.fixture
def other_source(faces, pack, tmp_path):
    files = {path: content for path, content in faces.kaggle_files().items() if not path.endswith("_1000.png")}
    return pack["zip"](tmp_path / "other.zip", files)


def python(code, *arguments):
    """A process of its own with the same cache, running ``code``."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def leftovers():
    return sorted(path.name for path in store.data_folder().glob(".*") if path.name != ".lock")


def contents():
    return sorted(path.name for path in store.data_folder().iterdir() if len(path.name) == 64)


def test_arrays_are_mapped_read_only_and_as_promised(source, faces):
    prepare(source)
    dataset = open_dataset("fer2013")
    assert dataset.images.shape == (98, 48, 48)
    assert (dataset.images.dtype, dataset.labels.dtype) == (np.uint8, np.int64)
    assert (dataset.splits.dtype, dataset.groups.dtype) == (np.uint8, np.int64)
    assert isinstance(dataset.images, np.memmap)
    for array in (dataset.images, dataset.labels, dataset.splits, dataset.groups):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert dataset.indices(Split.VAL).tolist() == np.flatnonzero(dataset.splits == 1).tolist()


def test_info_says_what_is_there_and_no_path(source, tmp_path):
    info = prepare(source, "mine")
    assert info == find_dataset("mine") == open_dataset("mine").info
    assert info.counts["train"] == dict.fromkeys(info.counts["train"], 10)
    assert (info.total, info.split_total(Split.TEST)) == (98, 14)
    assert str(tmp_path) not in (store.data_folder() / "mine.json").read_text()
    assert [info.name for info in list_datasets()] == ["mine"]


def test_copies_share_a_group_and_clean_val_leaves_out_those_in_training(faces, pack, tmp_path):
    files = faces.kaggle_files()
    val = sorted(path for path in files if "PublicTest" in path)
    train = sorted(path for path in files if "Training" in path)
    files[val[3]] = files[train[5]]
    files[val[4]] = files[val[5]]  # copies within validation are no leak
    prepare(pack["zip"](tmp_path / "a.zip", files))
    dataset = open_dataset("fer2013")
    clean = dataset.clean_val()
    assert clean.shape == (14,)
    assert np.flatnonzero(~clean).tolist() == [3]
    assert len(np.unique(dataset.groups)) == 96


def test_groups_are_numbered_by_pixels():
    images = np.zeros((4, 48, 48), np.uint8)
    images[1, 47, 47] = 1
    images[3, 47, 47] = 1
    assert group_copies(images).tolist() == [0, 1, 0, 1]


def test_a_data_set_that_is_not_there_says_what_to_do(source):
    prepare(source)
    with pytest.raises(DataError, match="no data set 'fer2031'") as caught:
        open_dataset("fer2031")
    for word in ("did you mean fer2013?", "fersweep data prepare PATH --name fer2031", "--data synthetic"):
        assert word in caught.value.hint
    with pytest.raises(DataError):
        open_dataset("../../etc")


def test_preparing_the_same_again_keeps_what_is_there(source):
    first = prepare(source)
    assert prepare(source) == first


def test_other_content_under_the_same_name_is_refused_unless_it_may_replace(source, other_source):
    first = prepare(source)
    with pytest.raises(DataError, match=r"other content \(from faces\.zip, 98 images; the new one has 97\)") as caught:
        prepare(other_source)
    assert "--replace" in caught.value.hint
    assert open_dataset("fer2013").info == first
    old = open_dataset("fer2013").images
    second = prepare(other_source, replace=True)
    assert open_dataset("fer2013").info == second
    assert contents() == [second.fingerprint]
    assert len(old) == 98  # whoever has the old one mapped goes on with it
    assert int(old[97].sum()) > 0


def test_content_that_two_names_share_is_stored_once_and_stays_while_one_needs_it(source, other_source):
    one = prepare(source, "one")
    prepare(source, "two")
    assert contents() == [one.fingerprint]
    prepare(other_source, "one", replace=True)
    assert open_dataset("two").info.fingerprint == one.fingerprint


@pytest.mark.parametrize("damage", ["pixels", "cut", "missing", "labels", "shape", "groups"])
def test_damaged_content_is_told_and_mended_by_preparing_again(source, damage):
    info = prepare(source)
    folder = store.data_folder() / info.fingerprint
    if damage == "missing":
        (folder / "splits.npy").unlink()
    elif damage == "cut":
        (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:5000])
    elif damage == "labels":
        np.save(folder / "labels.npy", np.zeros(98, np.int64))
    elif damage == "groups":
        np.save(folder / "groups.npy", np.zeros(98, np.int64))
    elif damage == "shape":
        np.save(folder / "groups.npy", np.zeros(97, np.int64))
    else:
        content = bytearray((folder / "images.npy").read_bytes())
        content[-1] ^= 1
        (folder / "images.npy").write_bytes(content)
    with pytest.raises(DataError, match="the cache is damaged") as caught:
        open_dataset("fer2013")
    assert "faces.zip" in caught.value.hint
    prepare(source)
    assert len(open_dataset("fer2013").images) == 98


def test_damage_that_hides_its_traces_is_mended_by_preparing_again(source, faces):
    info = prepare(source)
    path = store.data_folder() / info.fingerprint / "images.npy"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    prepare(source)
    assert path.read_bytes() != bytes(content)


def test_a_copied_cache_opens_though_its_files_are_newer(source):
    info = prepare(source)
    for path in (store.data_folder() / info.fingerprint).glob("*.npy"):
        os.utime(path)
    seal = store.data_folder() / info.fingerprint / "seal.json"
    before = seal.read_bytes()
    assert open_dataset("fer2013").info == info
    assert seal.read_bytes() != before  # compared once, and not again


def test_a_damaged_description_is_told_and_can_be_replaced(source):
    prepare(source)
    path = store.data_folder() / "fer2013.json"
    path.write_text(json.dumps({"name": "fer2013"}))
    with pytest.raises(DataError, match=r"its description .*fer2013\.json is damaged"):
        open_dataset("fer2013")
    prepare(source, replace=True)
    assert len(open_dataset("fer2013").images) == 98


def test_a_cache_that_cannot_be_written_is_a_storage_error(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot write the data cache") as caught:
        prepare(source)
    assert "FERSWEEP_CACHE" in caught.value.hint


KILLED_AT_SYNC = """
import os, signal, sys
from pathlib import Path
from fer_sweep.data.cache import prepare
real, calls, last = os.fsync, 0, int(sys.argv[2])
def dying(handle):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = dying
prepare(Path(sys.argv[1]), replace=True)
"""


@pytest.mark.parametrize("sync", [1, 4, 7])
def test_killed_while_writing_nothing_looks_whole_and_the_next_one_cleans_up(source, sync):
    process = python(KILLED_AT_SYNC, source, sync)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert list_datasets() == []
    assert leftovers() or contents()  # it did die in the middle
    prepare(source)
    assert leftovers() == []
    assert len(open_dataset("fer2013").images) == 98


def test_killed_while_replacing_the_old_one_is_still_whole(source, other_source):
    first = prepare(source)
    process = python(KILLED_AT_SYNC, other_source, 7)  # the new content is written, its description is not
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert open_dataset("fer2013").info == first
    second = prepare(other_source, replace=True)
    assert contents() == [second.fingerprint]


PREPARE = """
import sys
from pathlib import Path
from fer_sweep.data.cache import open_dataset, prepare
sys.stdin.readline()
prepare(Path(sys.argv[1]))
print(open_dataset("fer2013").info.fingerprint)
"""


def test_several_processes_may_prepare_the_same_at_once(source):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert {out.strip() for out, _ in results} == {find_dataset("fer2013").fingerprint}
    assert leftovers() == []


def test_a_failure_while_writing_leaves_what_was_there(source, other_source, monkeypatch):
    first = prepare(source)

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left on device"):
        patch.setattr(os, "fsync", full)
        prepare(other_source, replace=True)
    assert open_dataset("fer2013").info == first
    assert contents() == [first.fingerprint]
    assert leftovers() == []


def test_progress_tells_of_every_stage_and_ends_whole(source):
    seen = []
    prepare(source, progress=lambda *step: seen.append(step))
    assert {stage for stage, _, _ in seen} == {"decoding images", "finding copies", "writing the cache"}
    assert seen[-1] == ("writing the cache", 98, 98)
    assert all(0 <= done <= total for _, done, total in seen)


def test_an_interrupted_prepare_leaves_nothing(source):
    def interrupt(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, progress=interrupt)
    assert list_datasets() == []


def test_synthetic_is_drawn_once_and_again_when_drawn_otherwise(monkeypatch):
    monkeypatch.setattr(synthetic, "SIZES", {Split.TRAIN: 70, Split.VAL: 28, Split.TEST: 28})
    first = open_dataset("synthetic")
    assert len(first.images) == 126
    assert open_dataset("synthetic").info == first.info
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    monkeypatch.setattr(synthetic, "_SPREAD", 0.1)
    again = open_dataset("synthetic")
    assert again.info.fingerprint != first.info.fingerprint
    assert [info.name for info in list_datasets()] == ["synthetic"]
    assert contents() == [again.info.fingerprint]


def test_two_processes_may_draw_synthetic_at_once():
    code = "from fer_sweep.data.cache import open_dataset; print(open_dataset('synthetic').info.fingerprint)"
    processes = [python(code) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert len({out for out, _ in results}) == 1


def test_the_package_needs_no_torch():
    code = (
        "import sys, fer_sweep.data.cache, fer_sweep.data.audit, fer_sweep.data.synthetic;"
        "print([name for name in ('torch', 'pyarrow', 'wandb', 'optuna') if name in sys.modules])"
    )
    out, error = python(code).communicate(timeout=60)
    assert out.strip() == "[]", error
