"""The cache: read-only, whole or absent, safe with several writers, and honest about damage."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from fer_sweep.data import store, synthetic
from fer_sweep.data.cache import Split, find_dataset, list_datasets, open_dataset, prepare
from fer_sweep.data.dataset import group_copies
from fer_sweep.errors import DataError, StorageError
from tests.data.conftest import listed
from tests.support.faces import write_zip


@pytest.fixture
def source(faces, tmp_path):
    return write_zip(tmp_path / "faces.zip", faces.files())


@pytest.fixture
def other_source(faces, tmp_path):
    files = faces.files()
    del files[next(iter(files))]
    return write_zip(tmp_path / "other.zip", files)


def contents(*infos):
    """What the cache holds with these data sets and nothing else."""
    return sorted({info.fingerprint for info in infos} | {f"{info.name}.json" for info in infos})


def test_arrays_are_mapped_read_only(source):
    prepare(source)
    dataset = open_dataset("fer2013")
    assert isinstance(dataset.images, np.memmap)
    arrays = {name: getattr(dataset, name) for name in ("images", "labels", "splits", "groups")}
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        "images": ((98, 48, 48), np.uint8),
        "labels": ((98,), np.int64),
        "splits": ((98,), np.uint8),
        "groups": ((98,), np.int64),
    }
    for array in arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert dataset.indices(Split.VAL).tolist() == np.flatnonzero(dataset.splits == 1).tolist()


def test_description_says_what_is_there_and_names_no_path(source, tmp_path):
    info = prepare(source, "mine")
    assert info == find_dataset("mine") == open_dataset("mine").info
    assert [info.name for info in list_datasets()] == ["mine"]
    assert set(info.counts["train"].values()) == {10}
    assert (info.total, info.split_total(Split.TEST)) == (98, 14)
    assert str(tmp_path) not in (store.data_folder() / "mine.json").read_text()


def test_copies_share_a_group_and_clean_val_leaves_out_those_in_training(faces, tmp_path):
    files = faces.files()
    val, train = ([path for path in sorted(files) if split in path] for split in ("PublicTest", "Training"))
    files[val[3]] = files[train[5]]
    files[val[4]] = files[val[5]]  # copies within validation are no leak
    prepare(write_zip(tmp_path / "a.zip", files))
    dataset = open_dataset("fer2013")
    assert dataset.clean_val().tolist() == [number != 3 for number in range(14)]
    assert len(np.unique(dataset.groups)) == 96


def test_unknown_data_set_has_a_hint(source):
    prepare(source)
    with pytest.raises(DataError, match="no data set 'fer2031'") as caught:
        open_dataset("fer2031")
    for word in ("did you mean fer2013?", "fersweep data prepare PATH --name fer2031", "--data synthetic"):
        assert word in caught.value.hint
    with pytest.raises(DataError):
        open_dataset("../../etc")


def test_other_content_under_the_same_name_needs_replace(source, other_source):
    first = prepare(source)
    assert prepare(source) == first
    with pytest.raises(DataError, match=r"other content \(from faces\.zip, 98 images; the new one has 97\)") as caught:
        prepare(other_source)
    assert "--replace" in caught.value.hint
    assert open_dataset("fer2013").info == first
    mapped = open_dataset("fer2013").images
    second = prepare(other_source, replace=True)
    assert open_dataset("fer2013").info == second
    assert listed() == contents(second)
    assert int(mapped[97].sum()) > 0  # whoever has the old one mapped still can read it


def test_content_of_two_names_is_stored_once_and_kept_while_one_needs_it(source, other_source):
    one, two = prepare(source, "one"), prepare(source, "two")
    assert listed() == contents(one, two)
    other = prepare(other_source, "one", replace=True)
    assert listed() == contents(other, two)


def change_a_pixel(folder):
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1] ^= 1
    (folder / "images.npy").write_bytes(content)


DAMAGE = {
    "a pixel": change_a_pixel,
    "cut": lambda folder: os.truncate(folder / "images.npy", 5000),
    "missing": lambda folder: (folder / "splits.npy").unlink(),
    "labels": lambda folder: np.save(folder / "labels.npy", np.zeros(98, np.int64)),
    "groups": lambda folder: np.save(folder / "groups.npy", np.zeros(98, np.int64)),
    "shape": lambda folder: np.save(folder / "groups.npy", np.zeros(97, np.int64)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_content_is_reported_and_repaired_by_preparing_again(damage, source):
    info = prepare(source)
    DAMAGE[damage](store.data_folder() / info.fingerprint)
    with pytest.raises(DataError, match="the cache is damaged") as caught:
        open_dataset("fer2013")
    assert "faces.zip" in caught.value.hint
    prepare(source)
    assert len(open_dataset("fer2013").images) == 98


def test_damage_that_keeps_size_and_time_is_repaired_by_preparing_again(source):
    path = store.data_folder() / prepare(source).fingerprint / "images.npy"
    status, good = path.stat(), path.read_bytes()
    change_a_pixel(path.parent)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    prepare(source)
    assert path.read_bytes() == good


def test_copied_cache_opens_though_its_files_are_newer(source):
    info = prepare(source)
    folder = store.data_folder() / info.fingerprint
    for path in folder.glob("*.npy"):
        os.utime(path, ns=(1, 1))
    before = (folder / "seal.json").read_bytes()
    assert open_dataset("fer2013").info == info
    assert (folder / "seal.json").read_bytes() != before  # compared once, and not again


def test_damaged_description_is_reported_and_can_be_replaced(source):
    prepare(source)
    (store.data_folder() / "fer2013.json").write_text(json.dumps({"name": "fer2013"}))
    with pytest.raises(DataError, match=r"its description .*fer2013\.json is damaged"):
        open_dataset("fer2013")
    prepare(source, replace=True)
    assert len(open_dataset("fer2013").images) == 98


def test_cache_that_cannot_be_written_is_a_storage_error(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot write the data cache") as caught:
        prepare(source)
    assert "FERSWEEP_CACHE" in caught.value.hint


class Killed(BaseException):
    """Raised by every step on the disk after the process has died."""


STEPS = ("mkdir", "fsync", "replace", "rename", "unlink", "rmdir")


def die():
    raise Killed


def killed_at(last, work, die=die):
    """Do the work until its step number ``last`` on the disk, and nothing from then on; whether it got that far."""
    steps = count(1)

    def step(real, *arguments, **options):
        if next(steps) >= last:
            die()
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            real = getattr(os, name)
            patch.setattr(os, name, lambda *a, real=real, **options: step(real, *a, **options))
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("replaces", [False, True])
def test_killed_at_any_step_nothing_looks_whole_and_the_next_one_cleans_up(replaces, faces, tmp_path, monkeypatch):
    def save(count, name="a"):
        arrays = (faces.images[:count], faces.labels[:count], faces.usages[:count].astype(np.uint8))
        info = store.build_info(name, "", "", *arrays, official_split=False, notes=(), created=0.0)
        return store.save(info, *arrays, group_copies(arrays[0]), replace=True)

    for last in count(1):
        monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / str(last)))
        first = save(14) if replaces else None
        was_killed = killed_at(last, lambda: save(21))
        for info in list_datasets():
            assert len(open_dataset("a").images) == info.total
        assert first is None or list_datasets()
        new = save(21)
        assert listed() == contents(new) and list_datasets() == [new]
        if not was_killed:
            break
    assert last > 10


def test_failure_while_writing_leaves_what_was_there(source, other_source, monkeypatch):
    first = prepare(source)

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left on device"):
        patch.setattr(os, "fsync", full)
        prepare(other_source, replace=True)
    assert open_dataset("fer2013").info == first
    assert listed() == contents(first)


def test_several_threads_may_draw_synthetic_at_once(monkeypatch):
    monkeypatch.setattr(synthetic, "SIZES", {Split.TRAIN: 70, Split.VAL: 28, Split.TEST: 28})
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(open_dataset, ["synthetic"] * 3))
    assert len({dataset.info.fingerprint for dataset in found}) == 1
    assert listed() == contents(found[0].info)


def test_synthetic_is_drawn_once_and_again_when_drawn_otherwise(monkeypatch):
    monkeypatch.setattr(synthetic, "SIZES", {Split.TRAIN: 70, Split.VAL: 28, Split.TEST: 28})
    first = open_dataset("synthetic")
    assert len(first.images) == 126
    assert open_dataset("synthetic").info == first.info
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    monkeypatch.setattr(synthetic, "_SPREAD", 0.1)
    again = open_dataset("synthetic")
    assert again.info.fingerprint != first.info.fingerprint
    assert listed() == contents(again.info)


def prepare_and_die(source: Path) -> None:
    """Prepare it in this process, which kills itself in the middle of writing."""
    killed_at(8, lambda: prepare(source), die=lambda: os.kill(os.getpid(), signal.SIGKILL))


@pytest.mark.process
def test_processes_may_prepare_the_same_at_once_after_one_was_killed(source):
    context = multiprocessing.get_context("spawn")
    killed, *others = (context.Process(target=work, args=(source,)) for work in (prepare_and_die, prepare, prepare))
    killed.start()
    killed.join()
    assert listed() and list_datasets() == []
    for process in others:
        process.start()
    for process in others:
        process.join()
    assert [process.exitcode for process in (killed, *others)] == [-signal.SIGKILL, 0, 0]
    assert listed() == contents(open_dataset("fer2013").info)


def test_progress_names_every_stage_and_an_interrupt_leaves_nothing(source):
    seen = []

    def interrupt(*step):
        seen.append(step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, progress=interrupt)
    assert list_datasets() == []
    prepare(source, progress=lambda *step: seen.append(step))
    assert {stage for stage, _, _ in seen} == {"decoding images", "finding copies", "writing the cache"}
    assert seen[-1] == ("writing the cache", 98, 98)
    assert all(0 <= done <= total for _, done, total in seen)


def test_reading_data_needs_neither_torch_nor_wandb():
    code = "import sys, fer_sweep.data.cache, fer_sweep.data.audit, fer_sweep.data.synthetic; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pyarrow", "wandb", "optuna"} & set(loaded)
