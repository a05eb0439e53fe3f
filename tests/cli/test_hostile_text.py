"""Names and values that others wrote are printed without control characters, whatever the locale."""

import io
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_sweep.cli import main
from fer_sweep.cli.printing import log_warnings, print_json, print_table, print_text
from fer_sweep.records import CLASSES

EVIL = "e\x1b[2Jv\x07i\u202el\x7f[red]"


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("\x1b\x07\x7f\x9b\u202e\u2066\r\b[]"), max_size=30))
def test_printed_text_cannot_control_a_terminal(text: str) -> None:
    def printed(act: Callable[[], None]) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", io.StringIO())
            act()
            return str(sys.stdout.getvalue())  # type: ignore[attr-defined]

    rich = f"[red]{text}[/red]"
    shown = [
        printed(lambda: print_text(text)),
        printed(lambda: print_table(rich, {"heading": "left"}, [[rich], [text]])),
        printed(lambda: print_json({"name": text})),
    ]
    assert all(map(is_harmless, shown))
    assert shown[1].count("[red]") == 2
    assert json.loads(shown[2]) == {"name": text}


def test_logged_warnings_cannot_control_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    monkeypatch.setattr(logging.getLogger("wandb"), "propagate", True)
    log_warnings()
    logging.warning("a\x1b[2Jb")
    assert capsys.readouterr().err == "WARNING: a\\x1b[2Jb\n"


def test_no_command_prints_control_characters(tmp_path: Path, shell: Callable[..., tuple[int, str, str]]) -> None:
    good = tmp_path / "good"
    for split, prefix in (("train", "Training"), ("test", "PublicTest")):
        for number, name in enumerate(CLASSES):
            (good / split / name).mkdir(parents=True)
            image = Image.new("L", (48, 48), number * 20 + len(split))
            image.save(good / split / name / f"{prefix}_{number}.png")
    folder = shutil.copytree(good, tmp_path / f"{EVIL}.zip")
    (good / "train" / f"angri{EVIL}").mkdir()
    shutil.copy(good / "train" / "angry" / "Training_0.png", good / "train" / f"angri{EVIL}" / "Training_9.png")
    text = json.dumps(EVIL)
    Path(f"{EVIL}.yaml").write_text(f"method: {text}\n{text}: 1\nparameters: {text}\n")
    Path(f"{EVIL}.json").write_text(json.dumps({"model": EVIL, EVIL: EVIL}))
    for words, expected in (
        (["data", "prepare", str(folder), "--name", "evil"], 0),
        (["data", "list"], 0),
        (["data", "list", "--json"], 0),
        (["data", "audit", "evil"], 0),
        (["data", "prepare", str(good), "--name", "more"], 2),
        (["data", "prepare", EVIL], 2),
        (["validate", f"{EVIL}.yaml"], 2),
        (["validate", f"{EVIL}.yaml", "--json"], 2),
        (["create", f"{EVIL}.yaml", "--set", f"{EVIL}=1"], 2),
        (["train", "--config", f"{EVIL}.json"], 2),
        (["train", f"--{EVIL}", EVIL], 2),
        (["status", EVIL], 2),
    ):
        code, out, err = shell(*words)
        assert code == expected, (words, err)
        assert is_harmless(out + err), words
        if "--json" in words:
            json.loads(out)


@pytest.mark.parametrize("words", [["data", "list"], ["data", "list", "--json"]])
def test_name_that_the_locale_cannot_encode_is_escaped(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setattr(sys, "argv", ["fersweep", *words])
    stdout = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stdout, encoding="ascii"))
    with pytest.raises(SystemExit) as ended:
        main()
    sys.stdout.flush()
    assert ended.value.code == 0
    assert "--json" in words or b"c\\xe4che" in stdout.getvalue()
