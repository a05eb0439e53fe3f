"""What somebody else may have written ends in one of our errors: no traceback, no hang, no memory without bound."""

import io
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_sweep.cli import main
from fer_sweep.cli.printing import print_json, print_table, print_text
from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import EarlyTerminate, load_with_lines, parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.data.cache import list_datasets, open_dataset, prepare
from fer_sweep.data.memory import bounded_memory
from fer_sweep.data.store import data_folder
from fer_sweep.errors import CheckpointError, DataError, InputError, StorageError, SweepFileError, WeightsUnavailable
from fer_sweep.files import LAST_CHECKPOINT, sweep_folder, trial_folder
from fer_sweep.models import build_model
from fer_sweep.records import CLASSES, StopReason
from fer_sweep.search.entries import known
from fer_sweep.training.checkpoint import PREVIOUS
from fer_sweep.training.history import read_history
from fer_sweep.training.loop import train
from fer_sweep.training.trial import Trial, claim_folder, start
from tests.support.scripted_search import TINY, request

unflaky = settings(derandomize=True, deadline=None, database=None, max_examples=100)
REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = sorted((REPOSITORY / "sweeps").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Every test here runs in bounded memory and ends in bounded time."""
    began = time.monotonic()
    with bounded_memory(2 << 30):
        yield
    assert time.monotonic() - began < 60


# Sweep files


def checked(content: bytes, path: Path) -> bool:
    """Whether a sweep file is taken; whatever is wrong with it has a message for each problem."""
    path.write_bytes(content)
    try:
        sweep, lines = load_with_lines(path)
        bind(sweep, Space.from_sweep(sweep, lines=lines), lines=lines)
    except SweepFileError as error:
        assert error.problems
        return False
    yaml.safe_dump(sweep.to_plain()).encode()
    return True


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_with_damaged_bytes_is_read_or_refused(shipped: Path, tmp_path: Path) -> None:
    good = shipped.read_bytes()
    assert checked(good, tmp_path / "good.yaml")
    patches = st.lists(
        st.tuples(
            st.integers(0, len(good) - 1), st.binary(max_size=4) | st.sampled_from([b": ", b"- ", b"&a ", b"*a"])
        ),
        min_size=1,
        max_size=3,
    )

    @settings(unflaky, max_examples=25)
    @given(patches)
    def check(places: list[tuple[int, bytes]]) -> None:
        content = bytearray(good)
        for place, patch in places:
            content[place : place + len(patch)] = patch
        checked(bytes(content), tmp_path / "bad.yaml")

    check()


@pytest.mark.parametrize(
    "value",
    ["0x" + "f" * 5000, "1" + ":1" * 300 + ".5", '"\\ud800"', "0b" + "1" * 40_000, "1:" * 5000 + "1"],
    ids=["hexadecimal", "base 60 float", "half a character", "binary", "base 60"],
)
def test_what_yaml_reads_and_nothing_could_write_again_is_refused(value: str, tmp_path: Path) -> None:
    for text in (
        f"method: {value}",
        f"method: random\nname: {value}",
        f"method: grid\nparameters: {{lr: {{value: {value}}}}}",
    ):
        assert not checked(text.encode(), tmp_path / "f.yaml")


def test_bands_are_few_however_close() -> None:
    rule = EarlyTerminate(type="hyperband", max_iter=10**9, s=10**9, eta=1.000001)
    assert len(rule.bands) == 100


def test_a_grid_of_many_fine_axes_is_refused_at_once(tmp_path: Path) -> None:
    axis = "{distribution: q_uniform, min: 0, max: 0.5, q: 0.000001}"
    names = ["dropout", "warmup", "label_smoothing", *(f"p{n}" for n in range(2500))]
    text = "method: grid\nparameters:\n" + "".join(f"  {name}: {axis}\n" for name in names)
    assert not checked(text.encode(), tmp_path / "f.yaml")


def test_a_long_list_of_values_is_checked_in_time(tmp_path: Path) -> None:
    values = ", ".join(str(n) for n in range(30_000))
    text = f"method: random\nparameters: {{model: {{value: simple_cnn}}, seed: {{values: [{values}]}}}}\n"
    assert checked(text.encode(), tmp_path / "f.yaml")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(unflaky, max_examples=150)
@given(
    parts=st.dictionaries(
        st.sampled_from(
            [
                "method",
                "parameters",
                "metric",
                "metrics",
                "scheduler",
                "early_terminate",
                "run_cap",
                "name",
                "command",
                "controller",
                "program",
                "kind",
            ]
        ),
        JSON,
    )
)
def test_any_values_under_the_keys_of_a_sweep_are_read_or_refused(parts: dict[str, Any]) -> None:
    try:
        parse_sweep(parts)
    except SweepFileError as error:
        assert error.problems


# Data sets


def refused(source: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        prepare(source)
    assert caught.value.hint
    assert list_datasets() == []


def pax_tar(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, len(body)
    member = tarfile.TarInfo("train/angry/a.png")
    blocks = header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
    return blocks + member.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_extended_tar_header_that_would_be_searched_for_minutes(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(pax_tar(b"1" * (4 << 20), kind))
    refused(tmp_path / "a.tar", "extended header of 4096 KiB")


def test_a_sparse_tar_with_a_map_of_millions(tmp_path: Path) -> None:
    pairs = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x", "GNU.sparse.realsize": "9"}
    body = b"".join(pax_pair(name, value) for name, value in pairs.items())
    (tmp_path / "a.tar").write_bytes(pax_tar(body))
    refused(tmp_path / "a.tar", "sparse")
    info = tarfile.TarInfo("train/angry/a.png")
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "b.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    refused(tmp_path / "b.tar", "sparse")


def pax_pair(name: str, value: str) -> bytes:
    rest = f" {name}={value}\n".encode()
    return str(len(rest) + 2).encode() + rest


def test_a_zip_with_a_list_of_millions_of_members(tmp_path: Path) -> None:
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    entries = entry * 1_500_000
    end = struct.pack("<HHHHIIH", 0, 0, 65535, 65535, len(entries), len(local), 0)
    (tmp_path / "a.zip").write_bytes(local + entries + b"PK\x05\x06" + end)
    refused(tmp_path / "a.zip", "its list of members has 67 MiB")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_row_without_end(tmp_path: Path, name: str) -> None:
    content = b"emotion,pixels,Usage\n" + b"," * (30 << 20)
    if name.endswith("gz"):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        content = packer.compress(content) + packer.flush()
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "line 2: over 65,536 characters")


def test_a_row_over_many_lines_is_one_row_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"emotion,pixels,Usage\n" + b'"\n",' * (1 << 20))
    refused(tmp_path / "a.csv", "line 2: only 1 columns")


def test_a_parquet_that_names_one_huge_value_again_and_again(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = 20_000
    images = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([b"\xff\xd8" + bytes(1 << 20)]))
    table = pa.table({"jpg": images, "cls": pa.array([0] * rows)})
    pq.write_table(
        table, tmp_path / "a.parquet", compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False
    )
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "a.parquet", "a.parquet")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 << 20  # KB; all rows would take 20 GB


def test_memory_bounds_hold_in_all_threads_and_end_with_their_block() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    failures: list[BaseException] = []

    def take() -> None:
        try:
            bytearray(600 << 20)
        except MemoryError as error:
            failures.append(error)

    with bounded_memory(256 << 20):
        take()
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert len(failures) == 2
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    take()
    assert len(failures) == 2


@pytest.mark.parametrize("name", ["line\nhint: run me.png", "red\x1b[31m.png", "hide\u202e.png"])
def test_names_in_archives_are_shown_on_one_line_with_nothing_that_steers(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"train/angry/{name}", b"no image")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "a.zip")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "a\0b"])
def test_a_path_that_no_system_takes(name: str) -> None:
    refused(Path(name), "no such file|cannot be read")


def test_a_description_of_a_data_set_that_somebody_wrote(tiny_data: str, tmp_path: Path) -> None:
    path = data_folder() / "tiny.json"
    good = path.read_bytes()
    plain = json.loads(good)
    hostile: list[Any] = [
        plain | {"fingerprint": "../../../../etc"},
        plain | {"name": "other"},
        plain | {"counts": {}},
        plain | {"counts": {"train": {}, "val": {}, "test": {}}},
        plain | {"counts": plain["counts"] | {"train": plain["counts"]["train"] | {"angry": -1}}},
        [plain],
    ]
    try:
        for document in [
            *map(json.dumps, hostile),
            "[" * 100_000,
            "\ud800".encode("utf-16", "surrogatepass").decode("latin1"),
        ]:
            path.write_text(document)
            for reader in (lambda: open_dataset("tiny"), list_datasets):
                with pytest.raises(DataError) as caught:
                    reader()
                assert caught.value.hint
    finally:
        path.write_bytes(good)


# A trial's folder


@pytest.fixture
def trial(tiny_data: str, tmp_path: Path) -> Trial:
    """A training with one epoch done and a checkpoint in the second."""
    config = request("0", **TINY | {"data": tiny_data, "epochs": 3, "ema_decay": 0.9}).config
    seen: list[Any] = []
    train(config, tmp_path / "t", on_epoch=seen.append, stop=lambda: StopReason.PREEMPTED if seen else None)
    (tmp_path / "t" / PREVIOUS).unlink(missing_ok=True)
    return start(config, tmp_path / "t", torch.device("cpu"))


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree of dictionaries, lists and tuples, the tree itself left out."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    key, *rest = path
    if isinstance(tree, dict):
        return {**tree, key: replaced(tree[key], tuple(rest), value)}
    return type(tree)(replaced(item, tuple(rest), value) if index == key else item for index, item in enumerate(tree))


WRONG = [
    None,
    -1,
    2**70,
    float("nan"),
    "text",
    [],
    {},
    (1, 2),
    True,
    torch.zeros(3),
    torch.zeros(2, 2, dtype=torch.int8),
]


def test_a_forged_checkpoint_is_refused_or_gone_on_with_to_a_result(trial: Trial) -> None:
    saved = trial.checkpoints.load()
    assert saved is not None
    paths = [path for path in places(saved) if path[0] != "model" or len(path) < 3]

    @settings(unflaky, max_examples=100)
    @given(st.sampled_from(paths), st.sampled_from(WRONG))
    def check(path: tuple[Any, ...], wrong: Any) -> None:
        trial.checkpoints.save(replaced(saved, path, wrong))
        (trial.folder / PREVIOUS).unlink(missing_ok=True)
        try:
            trial.restore()
        except CheckpointError as error:
            assert "none of this training" in str(error)
            assert error.hint
        else:
            trial.save()  # what was taken can be written again
            assert [row["epoch"] for row in trial.history.rows] == list(range(1, trial.progress.epochs_done + 1))

    check()
    refusals = 0
    for path in paths:
        trial.checkpoints.save(replaced(saved, path, "text"))
        (trial.folder / PREVIOUS).unlink(missing_ok=True)
        try:
            trial.restore()
        except CheckpointError:
            refusals += 1
    assert refusals > 0.9 * len(paths)  # a word in place of anything is wrong; unused parts may be


def forge(trial: Trial, content: bytes) -> None:
    (trial.folder / LAST_CHECKPOINT).write_bytes(b"fersweep-checkpoint-1 %08x\n" % zlib.crc32(content) + content)


def parts_of(trial: Trial) -> dict[str, bytes]:
    content = (trial.folder / LAST_CHECKPOINT).read_bytes().partition(b"\n")[2]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def test_an_archive_packed_anew_is_still_read(trial: Trial) -> None:
    forge(trial, packed(parts_of(trial)))
    assert trial.checkpoints.load() is not None


def test_a_bomb_in_the_archive_of_a_checkpoint(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    parts = parts_of(trial)
    storage = max((name for name in parts if "/data/" in name), key=lambda name: len(parts[name]))
    forge(trial, packed(parts | {storage: bytes(200 << 20)}, zipfile.ZIP_DEFLATED))
    assert trial.checkpoints.load() is None
    assert "it is compressed" in caplog.text


def test_two_archives_in_one_are_refused(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    forge(trial, packed(parts_of(trial)) + packed({"archive/data.pkl": b"."}))
    assert trial.checkpoints.load() is None
    assert "do not begin at its beginning" in caplog.text


def call(name: str, *arguments: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return b"\x80\x02c" + module.encode() + b"\n" + function.encode() + b"\n(" + b"".join(arguments) + b"tR."


GIGABYTE = b"J" + struct.pack("<i", 2**30)


@pytest.mark.parametrize(
    "content",
    [
        call("builtins.bytearray", GIGABYTE),
        call("torch.FloatTensor", GIGABYTE),
        call("os.system", b"X\x05\x00\x00\x00touch"),
        call("torch._utils._rebuild_sparse_tensor"),
        pickle.dumps({"owner": {"config": "", "data": ""}, "state": print}, 4),
    ],
    ids=["bytearray", "tensor", "system", "sparse", "newer protocol"],
)
def test_nothing_but_tensors_and_plain_values_is_unpickled(
    trial: Trial, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    parts = parts_of(trial)
    name = next(name for name in parts if name.endswith("data.pkl"))
    forge(trial, packed(parts | {name: content}))
    with bounded_memory(512 << 20):
        assert trial.checkpoints.load() is None
    assert "as no checkpoint does" in caplog.text


@pytest.mark.parametrize(
    "content", [pickle.dumps([1]), pickle.dumps({}), b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)]
)
def test_what_is_no_archive_is_passed_over(trial: Trial, content: bytes) -> None:
    forge(trial, content)
    assert trial.checkpoints.load() is None


def test_a_tensor_that_claims_to_be_huge(trial: Trial) -> None:
    parts = parts_of(trial)
    name = next(name for name in parts if name.endswith("data.pkl"))
    count = 2**29
    small = torch.arange(4.0)
    buffer = io.BytesIO()
    torch.save({"owner": {"config": "", "data": ""}, "state": {"w": small}}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        plain = archive.read("archive/data.pkl")
    forged = plain.replace(b"K\x04t", b"J" + struct.pack("<i", count) + b"t").replace(
        b"K\x04\x85", b"J" + struct.pack("<i", count) + b"\x85"
    )
    assert forged != plain
    forge(trial, packed(parts | {name: forged}))
    with bounded_memory(512 << 20):
        assert trial.checkpoints.load() is None


def test_a_damaged_history_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    first = b'{"epoch": 1, "val_acc": 0.5}\n'
    for line in (
        b"{",
        b"[1]",
        b"7",
        b'{"epoch": 2, "lr": "x"}',
        b'{"epoch": 3}',
        b"{}",
        b"\xff",
        b"[" * 10_000,
        b'{"epoch": true}',
    ):
        path.write_bytes(first + line + b"\n")
        with pytest.raises(StorageError, match=r"history\.jsonl, line 2: not the metrics of epoch 2") as caught:
            read_history(path)
        assert caught.value.hint
    path.write_bytes(first + b'{"epoch": 2')
    assert read_history(path) == [{"epoch": 1, "val_acc": 0.5}]


def test_a_finished_trial_keeps_its_result_when_its_history_is_damaged(
    tiny_data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = request("0", **TINY | {"data": tiny_data, "epochs": 1}).config
    first = train(config, tmp_path / "t")
    (tmp_path / "t" / "history.jsonl").write_text("{\n")
    again = train(config, tmp_path / "t", on_epoch=lambda row: pytest.fail("there is no epoch"))
    assert again.result == first.result is not None
    assert "history.jsonl, line 1" in caplog.text


def test_a_history_of_gigabytes_or_none_at_all(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with path.open("wb") as stream:
        stream.truncate(3 << 30)  # sparse
    with pytest.raises(StorageError, match="larger than 16 MiB"):
        read_history(path)
    with pytest.raises(StorageError, match="cannot be read"):
        read_history(tmp_path)
    path.write_bytes(b"")
    assert read_history(path) == []


@unflaky
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode() + b"\n"))
def test_any_bytes_are_a_history_or_a_storage_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-history.jsonl"
    path.write_bytes(content)
    try:
        assert all("epoch" in row for row in read_history(path))
    except StorageError as error:
        assert error.hint


@pytest.mark.parametrize("name", ["config.json", "result.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900, b'{"model": [], "lr": {}}', b"{}"],
    ids=["empty", "list", "number", "no text", "deep list", "deep dictionary", "wrong types", "nothing"],
)
def test_a_trials_files_that_somebody_wrote(tmp_path: Path, name: str, content: bytes) -> None:
    config = request("0").config
    assert claim_folder(config, tmp_path / "t") is None
    (tmp_path / "t" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as caught:
        claim_folder(config, tmp_path / "t")
    assert caught.value.hint


# Weights to start from


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "7",
        '{"hidden_size": "x"}',
        '{"hidden_act": "evil"}',
        '{"num_attention_heads": 0}',
        '{"torch_dtype": "os.system"}',
    ],
)
def test_a_folder_of_weights_that_somebody_wrote(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(WeightsUnavailable) as caught:
        build_model(parse_trial({"model": "vit", "pretrained": str(tmp_path)}))
    assert caught.value.hint


# What a sweep and a server are called


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc", "", "a\n", ".hidden", "x" * 200, "\x1b[31m", "a\0"])
def test_an_id_that_would_lead_elsewhere_is_refused(name: str) -> None:
    for act in (lambda: sweep_folder(name), lambda: trial_folder("abc", name), lambda: trial_folder(name, "0")):
        with pytest.raises(InputError, match="cannot be an id") as caught:
            act()
        assert caught.value.hint


@pytest.mark.parametrize(
    "change",
    [{"id": "../../abc"}, {"id": 7}, {"created": "yesterday"}, {"name": []}, {"url": {"a": 1}}, None],
    ids=str,
)
def test_a_sweeps_entry_that_somebody_wrote(tmp_path: Path, change: dict[str, Any] | None) -> None:
    path = sweep_folder("abc") / "sweep.json"
    path.parent.mkdir(parents=True)
    good = {"id": "abc", "search": "optuna", "storage": None, "name": None, "created": 1.0}
    path.write_text(json.dumps(good))
    assert [entry.id for entry in known()] == ["abc"]
    path.write_text("[" * 100_000 if change is None else json.dumps(good | change))
    with pytest.raises(StorageError, match=r"sweep\.json cannot be read") as caught:
        known()
    assert caught.value.hint


# What is printed


steering = st.text(st.characters(codec="utf-8") | st.sampled_from("\x1b\x07\x7f\x9b\u202e\u2066\r\b[]"), max_size=30)


@unflaky
@given(steering)
def test_whatever_is_printed_steers_no_terminal(text: str) -> None:
    def printed(act: Callable[[], None]) -> str:
        stream, before = io.StringIO(), sys.stdout
        sys.stdout = stream
        try:
            act()
        finally:
            sys.stdout = before
        return stream.getvalue()

    rich = f"[red]{text}[/red]"
    shown = [
        printed(lambda: print_text(text)),
        printed(lambda: print_table(rich, {"heading": "left"}, [[rich], [text]])),
        printed(lambda: print_json({"name": text})),
    ]
    assert all(c.isprintable() or c in "\n\t" for part in shown for c in part)
    assert shown[1].count("[red]") == 2
    assert json.loads(shown[2]) == {"name": text}


def test_no_command_shows_what_steers_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "e\x1b[2Jv\x07i\u202el\x7f[red]"
    folder = tmp_path / f"{evil}.zip"
    good = (tmp_path / "good").joinpath
    for split, prefix in (("train", "Training"), ("test", "PublicTest")):
        for number, name in enumerate(CLASSES):
            good(split, name).mkdir(parents=True)
            Image.new("L", (48, 48), number * 20 + len(split)).save(good(split, name, f"{prefix}_{number}.png"))
    shutil.copytree(good(), folder)
    good("train", f"angri{evil}").mkdir()
    shutil.copy(good("train", "angry", "Training_0.png"), good("train", f"angri{evil}", "Training_9.png"))
    text = json.dumps(evil)
    Path(f"{evil}.yaml").write_text(f"method: {text}\n{text}: 1\nparameters: {text}\n")
    hostile = tmp_path / f"{evil}.json"
    hostile.write_text(json.dumps({"model": evil, evil: evil}))
    for words, code in (
        (["data", "prepare", str(folder), "--name", "evil"], 0),
        (["data", "list"], 0),
        (["data", "list", "--json"], 0),
        (["data", "audit", "evil"], 0),
        (["data", "prepare", str(good()), "--name", "more"], 2),
        (["data", "prepare", evil], 2),
        (["validate", f"{evil}.yaml"], 2),
        (["validate", f"{evil}.yaml", "--json"], 2),
        (["create", f"{evil}.yaml", "--set", f"{evil}=1"], 2),
        (["train", "--config", str(hostile)], 2),
        (["train", f"--{evil}", evil], 2),
        (["status", evil], 2),
    ):
        monkeypatch.setattr(sys, "argv", ["fersweep", *words])
        try:
            main()
            ended = 0
        except SystemExit as end:
            ended = int(end.code or 0)
        said = capsys.readouterr()
        assert ended == code, (words, said.err)
        assert all(c.isprintable() or c in "\n\t" for c in said.out + said.err), words
        if "--json" in words:
            json.loads(said.out)


def test_warnings_steer_no_terminal_either() -> None:
    code = (
        "from fer_sweep.cli.printing import log_warnings; import logging; log_warnings(); logging.warning('a\\x1b[2Jb')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "WARNING: a\\x1b[2Jb\n"


def test_a_name_that_the_locale_lacks_is_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("method: random\nparameters: {é: {value: 1}}\n", encoding="utf-8")
    code = "import sys; sys.argv[1:] = ['data', 'list', '--json']; from fer_sweep.cli import main; main()"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "FERSWEEP_CACHE": str(tmp_path / "cäche")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    text = code.replace("'data', 'list', '--json'", "'data', 'list'")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, env=environment, check=False)
    assert done.returncode == 0 and b"c\\xe4che" in done.stdout, done.stderr
