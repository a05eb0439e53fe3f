"""The cache: read-only, whole or absent, safe with several writers, and honest about damage."""

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from unittest.mock import Mock

import numpy as np
import pytest

from fer_sweep.data import store, synthetic
from fer_sweep.data.cache import Split, find_dataset, list_datasets, open_dataset, prepare
from fer_sweep.data.dataset import FaceDataset, RawFaces
from fer_sweep.errors import DataError, StorageError
from tests.data.conftest import listed
from tests.support.faces import write_zip
from tests.support.processes import imported_by


@pytest.fixture
def source(faces, tmp_path):
    return write_zip(tmp_path / "faces.zip", faces.files())


@pytest.fixture
def other_source(faces, tmp_path):
    return write_zip(tmp_path / "other.zip", dict(list(faces.files().items())[1:]))


def contents(*infos):
    """What the cache holds with these data sets and nothing else."""
    return sorted({info.fingerprint for info in infos} | {f"{info.name}.json" for info in infos})


def test_a_data_set_is_described_and_its_arrays_are_mapped_read_only(source, tmp_path):
    info = prepare(source, "mine")
    dataset = open_dataset("mine")
    assert info == find_dataset("mine") == dataset.info
    assert list_datasets() == [info]
    assert set(info.counts["train"].values()) == {10}
    assert (info.total, info.split_total(Split.TEST)) == (98, 14)
    assert str(tmp_path) not in (store.data_folder() / "mine.json").read_text()
    assert isinstance(dataset.images, np.memmap)
    assert (dataset.images.shape, dataset.images.dtype) == ((98, 48, 48), np.uint8)
    for array, dtype in ((dataset.labels, np.int64), (dataset.splits, np.uint8), (dataset.groups, np.int64)):
        assert (array.shape, array.dtype) == ((98,), dtype)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert dataset.indices(Split.VAL).tolist() == np.flatnonzero(dataset.splits == 1).tolist()


def test_unknown_data_set_has_a_hint(source):
    prepare(source)
    with pytest.raises(DataError, match="no data set 'fer2031'") as caught:
        open_dataset("fer2031")
    for word in ("did you mean fer2013?", "fersweep data prepare PATH --name fer2031", "the data set synthetic"):
        assert word in caught.value.hint
    with pytest.raises(DataError):
        open_dataset("../../etc")


def test_other_content_under_the_same_name_needs_replace(source, other_source):
    first = prepare(source)
    assert prepare(source) == first
    with pytest.raises(DataError, match=r"other content \(from faces\.zip, 98 images; the new one has 97\)") as caught:
        prepare(other_source)
    assert "replace" in caught.value.hint
    mapped, two = open_dataset("fer2013").images, prepare(source, "two")
    assert listed() == contents(first, two)  # what two names share is stored once, and kept while one needs it
    second = prepare(other_source, replace=True)
    assert open_dataset("fer2013").info == second
    assert listed() == contents(second, two)
    third = prepare(other_source, "two", replace=True)
    assert listed() == contents(second, third)
    assert int(mapped[97].sum()) > 0  # a process that has mapped the old one can still read it


def test_a_name_that_differs_only_by_case_is_refused_since_some_disks_cannot_hold_both(source, other_source):
    first = prepare(source)
    for replace in (False, True):
        with pytest.raises(DataError, match="already is a data set fer2013"):
            prepare(other_source, "FER2013", replace=replace)
    assert listed() == contents(first)


def change_a_pixel(folder):
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1] ^= 1
    (folder / "images.npy").write_bytes(content)


DAMAGE = {
    "a pixel": change_a_pixel,
    "cut": lambda folder: os.truncate(folder / "images.npy", 5000),
    "missing": lambda folder: (folder / "splits.npy").unlink(),
    "groups": lambda folder: np.save(folder / "groups.npy", np.zeros(98, np.int64)),
    "description": lambda folder: (folder.parent / "fer2013.json").write_text('{"name": "fer2013"}'),
    "shape": lambda folder: np.save(folder / "groups.npy", np.zeros(97, np.int64)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_reported_and_repaired_by_preparing_again(damage, source):
    info = prepare(source)
    DAMAGE[damage](store.data_folder() / info.fingerprint)
    with pytest.raises(DataError, match="damaged") as caught:
        open_dataset("fer2013")
    assert "fersweep data prepare PATH --name fer2013" in caught.value.hint
    prepare(source, replace=damage == "description")
    assert len(open_dataset("fer2013").images) == 98


def test_content_is_compared_when_its_files_were_touched_or_it_is_prepared_again(source):
    info = prepare(source)
    folder = store.data_folder() / info.fingerprint
    sealed, good = (folder / "seal.json").read_bytes(), (folder / "images.npy").read_bytes()
    for path in folder.glob("*.npy"):
        os.utime(path, ns=(1, 1))  # as copying the cache does
    assert open_dataset("fer2013").info == info
    assert (folder / "seal.json").read_bytes() != sealed  # compared once, and not again
    change_a_pixel(folder)
    os.utime(folder / "images.npy", ns=(1, 1))
    prepare(source)
    assert (folder / "images.npy").read_bytes() == good


def test_cache_that_cannot_be_written_is_a_storage_error_and_stays_as_it_was(source, other_source, monkeypatch):
    first = prepare(source)

    def full(handle):
        with (store.data_folder() / ".lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # excludes other writers
        raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(StorageError, match=r"the data cache: cannot write .*: No space left") as caught,
    ):
        patch.setattr(os, "fsync", full)
        prepare(other_source, replace=True)
    assert "FERSWEEP_CACHE" in caught.value.hint
    assert open_dataset("fer2013").info == first
    assert listed() == contents(first)
    monkeypatch.setenv("FERSWEEP_CACHE", str(source))
    with pytest.raises(StorageError, match="the data cache: cannot write"):
        prepare(source)


class Killed(BaseException):
    """Raised by every step on the disk after the process has died."""


def killed_at(last, work):
    """Do the work until its step number ``last`` on the disk, and nothing from then on; whether it got that far."""
    steps = count(1)

    def step(real, *arguments, **options):
        if next(steps) >= last:
            raise Killed
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        for name in ("mkdir", "fsync", "replace", "rename", "unlink", "rmdir"):
            patch.setattr(os, name, partial(step, getattr(os, name)))
        work()
        return False
    return True


def test_killed_at_any_step_nothing_looks_whole_and_the_next_one_cleans_up(faces, tmp_path, monkeypatch):
    def save(count):
        arrays = (faces.images[:count], faces.labels[:count], faces.usages[:count].astype(np.uint8))
        return store.save(FaceDataset.of("a", "", RawFaces("", *arrays)), replace=True)

    for last in count(1):
        monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / str(last)))
        save(14)
        was_killed = killed_at(last, lambda: save(21))
        (info,) = list_datasets()
        assert len(open_dataset("a").images) == info.total
        new = save(21)
        assert listed() == contents(new) and list_datasets() == [new]
        if not was_killed:
            break
    assert last > 10


def test_content_is_shared_once_by_several_hosts_and_what_a_killed_one_left_is_removed(source, tmp_path):
    info, shared = prepare(source, "mine"), tmp_path / "shared"
    (shared / ".unfinished").mkdir(parents=True)
    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(lambda _: store.share(open_dataset("mine"), shared), range(3))) == [False, False, True]
    assert sorted(path.name for path in shared.iterdir()) == [".lock", info.fingerprint]
    assert store.copy_shared(info, shared) == info


def test_synthetic_is_drawn_once_by_several_threads_and_again_when_drawn_otherwise(monkeypatch):
    monkeypatch.setattr(synthetic, "SIZES", {Split.TRAIN: 70, Split.VAL: 28, Split.TEST: 28})
    with ThreadPoolExecutor(3) as pool:
        first, *others = (dataset.info for dataset in pool.map(open_dataset, ["synthetic"] * 3))
    assert first.total == 126
    assert {info.fingerprint for info in others} == {first.fingerprint}
    assert listed() == contents(first)
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    monkeypatch.setattr(synthetic, "_SPREAD", 0.1)
    again = open_dataset("synthetic").info
    assert again.fingerprint != first.fingerprint
    assert listed() == contents(again)


def test_progress_names_every_stage_and_an_interrupt_leaves_nothing(source):
    with pytest.raises(KeyboardInterrupt):
        prepare(source, progress=Mock(side_effect=KeyboardInterrupt))
    assert list_datasets() == []
    seen = []
    prepare(source, progress=lambda *step: seen.append(step))
    assert {stage for stage, _, _ in seen} == {"decoding images", "finding copies", "writing the cache"}
    assert seen[-1] == ("writing the cache", 98, 98)
    assert all(0 <= done <= total for _, done, total in seen)


def test_reading_data_needs_neither_torch_nor_pyarrow():
    loaded = imported_by("-c", "import fer_sweep.data.cache, fer_sweep.data.audit, fer_sweep.data.synthetic")
    assert not {"torch", "pyarrow"} & loaded
