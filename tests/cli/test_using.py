"""export, predict and reading commands on finished sweeps: what the chosen model is used for."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_sweep.files import home
from fer_sweep.records import CLASSES
from tests.cli.conftest import write_sweep
from tests.support.scripted_starter import ScriptedStarter, train_for_real
from tests.support.searches import read_only

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(autouse=True)
def pictures():
    """Two pictures in the working directory."""
    rng = np.random.default_rng(0)
    for name, shape in (("one.jpg", (120, 160, 3)), ("two.png", (48, 48))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(name)
    return ["one.jpg", "two.png"]


def test_the_winner_of_the_last_sweep_is_exported_and_used(shell, searched, pictures):
    winner = shell.json("best")["winner"]["id"]
    other = "1" if winner == "0" else "0"
    done = shell.json("export", "-o", "deep/er/out")
    assert done["model"] == f"{searched}/{winner}"
    assert done["files"] == ["README.md", "config.json", "model.safetensors"]
    assert done["checked_on"] == 35 and done["largest_difference"] <= done["tolerance"]
    assert f"`{searched}/{winner}`" in Path("deep/er/out/README.md").read_text()

    here, exported = (shell.json("predict", *pictures, *more) for more in ((), ("--folder", "deep/er/out")))
    assert here["model"] == f"{searched}/{winner}"
    assert here["images"] == exported["images"]
    assert shell.json("predict", *pictures, "--sweep", searched, "--trial", other)["images"] != here["images"]

    code, out, err = shell("export", searched, "--trial", other, "-o", "other")
    assert code == 0 and f"{searched}/{other}" in out
    assert "model.safetensors" in out and "on 35 validation images" in " ".join(out.split()) and "README.md" in err


def test_the_trials_of_another_sweep_learn_from_one_of_its_trials(shell, searched, monkeypatch):
    monkeypatch.setattr("fer_sweep.agent.session.starter_for", lambda slots, models: ScriptedStarter(train_for_real))
    teacher = f"{searched}/0"
    words = ("create", write_sweep(), "--data", "whole", "--set", f"distill_from={teacher}", "--set", "epochs=1")
    made = shell.json(*words)["sweep"]
    for _ in ("as it is", "extended"):
        assert shell("agent", made, "--gpus", "none", "--slots", "1")[0] == 0
        shell("extend", f"{made}/0", "--epochs", "+1")
    first, longer = shell.json("status")["trials"]
    assert first["state"] == longer["state"] == "complete"
    assert first["config"]["distill_from"] == longer["config"]["distill_from"] == teacher
    assert longer["config"]["weights_from"] == f"{made}/0"
    assert f"distill_from={teacher}" in "".join(shell("best", made, "--all", "--anyway")[1].split())


def test_commands_that_only_read_work_in_a_home_that_cannot_be_written(shell, searched):
    reading = (("best",), ("status",), ("predict", "one.jpg"))
    before = [shell.json(*words) for words in reading]
    read_only(home() / "sweeps.db")
    assert [shell.json(*words) for words in reading] == before
    assert shell("report", "-o", "report.html")[0] == shell("export", "-o", "out")[0] == 0
    code, _, err = shell("retry", "--trial", "0")
    assert code == 2 and "has not failed" in err
    code, _, err = shell("pause")
    assert code == 1 and "read-only" in err and "FERSWEEP_HOME" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export --folder trial", "-o FOLDER"),
        ("export --folder trial -o trial", "exists already"),
        ("export --folder trial -o out --format pickle", "'safetensors', 'onnx', 'huggingface'"),
        ("export asweep --folder trial -o out", "one or the other"),
        ("predict one.jpg --folder nowhere", "no such folder"),
        ("predict one.jpg --folder trial --device 7", "device 7"),
        ("predict one.jpg text.jpg missing\x1b.png --folder trial", "text.jpg: not a readable image"),
        ("predict one.jpg text.jpg missing\x1b.png --folder trial", "missing\\x1b.png: no such file"),
    ],
)
def test_bad_arguments_are_refused(shell, trained, words, message):
    Path("text.jpg").write_text("no picture")
    code, out, err = shell(*words.split(" "))
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("out").exists()


def test_several_pictures_are_predicted_as_each_alone_with_bars_on_a_terminal(shell, trained, pictures, monkeypatch):
    found = shell.json("predict", *pictures, "--folder", trained)["images"]
    assert [image["image"] for image in found] == pictures
    for image in found:
        assert list(image["probabilities"]) == list(CLASSES)
        assert sum(image["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert image["expression"] == max(image["probabilities"], key=image["probabilities"].get)
        assert image["faces"] is None
    assert found[0]["square"] == {"left": 20, "top": 0, "side": 120}
    (alone,) = shell.json("predict", pictures[0], "--folder", trained)["images"]
    assert alone["probabilities"] == pytest.approx(found[0]["probabilities"], abs=1e-6)

    expression = alone["expression"]
    _, out, _ = shell("predict", *pictures, "--folder", trained)
    assert out.count("%") == 14 and "█" not in out and "\x1b" not in out
    title, line = out.splitlines()[:2]
    assert title == f"one.jpg: {expression}"
    assert line.split() == [expression, f"{100 * found[0]['probabilities'][expression]:.1f}", "%"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, out, _ = shell("predict", *pictures, "--folder", trained)
    assert out.count("%") == 14 and "█" in out


def test_a_folder_stands_for_its_pictures_by_name_and_what_is_skipped_is_counted(shell, trained, pictures):
    for name in ("b.PNG", "a.jpg"):
        Path("mine/deeper").mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[name == "b.PNG"], f"mine/{name}")
    for name in ("broken.png", "notes.txt", ".DS_Store"):
        Path("mine", name).write_text("no picture")
    code, out, err = shell("predict", "mine", "one.jpg", "--folder", trained, "--json")
    assert code == 0, err
    assert [image["image"] for image in json.loads(out)["images"]] == ["mine/a.jpg", "mine/b.PNG", "one.jpg"]
    assert "mine: 3 pictures; skipped 2 other entries, such as deeper" in err
    assert "skipped: mine/broken.png: not a readable image" in err
    for broken, says in (("mine/broken.png", "mine/broken.png: not a"), ("mine/deeper", "mine/deeper: no pictures")):
        code, _, err = shell("predict", broken, "--folder", trained)
        assert code == 2 and says in err


def test_crop_face_refuses_a_picture_without_a_face(shell, trained, pictures):
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'fersweep[faces]'")
    code, _, err = shell("predict", pictures[0], "--crop-face", "--folder", trained)
    assert code == 2 and "no face was found" in err
