"""YAML of a sweep file: read with its lines, as a person means it; anything else is one clear error."""

import pytest
import yaml

from fer_sweep.config.sweep_yaml import LARGEST_FILE, parse_document, read_document
from fer_sweep.errors import SweepFileError


def error_of(text):
    with pytest.raises(SweepFileError) as caught:
        parse_document(text, source="f.yaml")
    return caught.value


SCALARS = {
    "1e-4": 1e-4, "3e6": 3e6, "-2E+3": -2e3, ".5e1": 5.0, "1.e2": 100.0, "+1e0": 1.0, '"1e-4"': "1e-4", "'3e6'": "3e6",
    "1e": "1e", "e5": "e5", "1e-4x": "1e-4x", "1.5": 1.5, "10": 10, "0x10": 16, "1_000": 1000, "yes": True,
    "off": False, "~": None, "": None, ".inf": float("inf"), "2020-01-01": "2020-01-01", "resnet18": "resnet18",
}  # fmt: skip


@pytest.mark.parametrize(("written", "read"), SCALARS.items())
def test_scalar_has_the_type_that_was_meant(written, read):
    value = parse_document(f"a: {written}", source="f").data["a"]
    assert value == read
    assert type(value) is type(read)


def test_every_key_and_item_has_its_line():
    text = "method: random\n\nparameters:\n  lr:\n    min: 0.1\n  b: {values: [1,\n      2]}\n"
    assert parse_document(text, source="f").lines == {
        "method": 1, "parameters": 3, "parameters.lr": 4, "parameters.lr.min": 5, "parameters.b": 6,
        "parameters.b.values": 6, "parameters.b.values.0": 6, "parameters.b.values.1": 7,
    }  # fmt: skip


def test_duplicate_key_names_both_lines():
    error = error_of("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 4\n")
    assert [(p.key, p.line) for p in error.problems] == [("b.c", 5), ("a", 6)]
    assert "line 3 and on line 5" in error.problems[0].message
    assert "line 1 and on line 6" in error.problems[1].message


def test_merge_keys_and_aliases_are_resolved_and_own_keys_win():
    text = "base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nlist: {<<: [{x: 5}, *b]}\n"
    data = parse_document(text, source="f").data
    assert data["more"] == {"x": 1, "y": 3}
    assert data["list"] == yaml.safe_load(text)["list"] == {"x": 5, "y": 2}


def bomb(first, level):
    """Twelve levels, each of which names the one before ten times."""
    levels = [f"l0: &l0 {first}"]
    levels += [f"l{i}: &l{i} {level % ', '.join([f'*l{i - 1}'] * 10)}" for i in range(1, 12)]
    return "\n".join(levels)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("a: [1", "is not YAML"),
        ("a: 1\n\tb: 2", "spaces, not tabs"),
        ("a: *b", "undefined alias"),
        ("a: 1\n---\nb: 2", "one document a file"),
        ("a: \x00", "character"),
        ("a: !!python/object/apply:os.system [ls]", "!!python/object/apply:os.system is not allowed"),
        ("a: !mine 3", "!mine is not allowed"),
        ("a: !!bool maybe", "cannot be read"),
        ("a: 0x" + "f" * 5000, "cannot be read"),
        ("a: " + "1:" * 5000 + "1", "cannot be read"),
        ('a: "\\ud800"', "cannot be read"),
        ("? [1, 2]\n: 3", "a key must be a name"),
        ("<<: 3", "merges only dictionaries"),
        ("a: &a [*a]", "no end"),
        ("a: &a {<<: *a}", "nested deeper"),
        ("a: " + "[" * 20_000, "nested deeper"),
        (bomb("[x, x, x, x, x, x, x, x, x, x]", "[%s]"), "once its aliases are expanded"),
        (bomb("{x: 1}", "{<<: [%s]}"), "once its aliases are expanded"),
    ],
)
def test_unreadable_text_is_one_clear_error(text, says):
    assert says in str(error_of(text))


def test_file_may_have_a_byte_order_mark_and_an_unreadable_one_is_named(tmp_path):
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfmethod: random\r\nname: x\r\n")
    assert read_document(tmp_path / "bom.yaml").data == {"method": "random", "name": "x"}
    (tmp_path / "vit.yaml").write_text("method: random\n")
    (tmp_path / "latin.yaml").write_bytes("method: random\nname: é\n".encode("latin-1"))
    (tmp_path / "huge.yaml").write_text("a: 1 # " + "x" * LARGEST_FILE)
    for name, says in {
        "vitt.yaml": "did you mean", "none/vit.yaml": "there is no folder", ".": "is a folder",
        "latin.yaml": "line 2: is not UTF-8", "huge.yaml": "is larger than 256 kB", "a\x00b": "cannot be read",
        "x" * 300: "cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(SweepFileError, match=says):
            read_document(tmp_path / name)
