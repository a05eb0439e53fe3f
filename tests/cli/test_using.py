"""export and predict from the command line: which model is used, what is printed, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_sweep.data import synthetic
from fer_sweep.records import CLASSES
from tests.cli.conftest import write_sweep
from tests.support.scripted_starter import ScriptedStarter, train_for_real
from tests.support.shell import Shell

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Two pictures."""
    rng = np.random.default_rng(0)
    for name, shape in (("one.jpg", (120, 160, 3)), ("two.png", (48, 48))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
    return ["one.jpg", "two.png"]


def test_the_winner_of_the_last_sweep_is_exported_and_used(
    shell: Shell, pictures: list[str], tiny_data: str, played_trials: ScriptedStarter
) -> None:
    played_trials.script = train_for_real
    sweep = shell.json("create", write_sweep(trials=2, epochs=1))["sweep"]
    code, _, err = shell("export", "-o", "out")
    assert code == 3 and f"fersweep agent {sweep}" in err
    assert shell("agent", "--gpus", "none", "--slots", "1")[0] == 0
    winner = shell.json("best")["winner"]["id"]
    other = "1" if winner == "0" else "0"

    done = shell.json("export", "-o", "out")
    assert done["model"] == f"{sweep}/{winner}"
    assert done["files"] == ["README.md", "config.json", "model.safetensors"]
    assert done["checked_on"] == 70 and done["largest_difference"] <= done["tolerance"]
    assert f"`{sweep}/{winner}`" in Path("out/README.md").read_text()
    assert shell.json("export", sweep, "--trial", other, "-o", "other")["model"] == f"{sweep}/{other}"

    here, exported = (shell.json("predict", *pictures, *more) for more in ((), ("--folder", "out")))
    assert here["model"] == f"{sweep}/{winner}"
    assert here["images"] == exported["images"]
    assert shell.json("predict", *pictures, "--sweep", sweep, "--trial", other)["images"] != here["images"]


def test_export_says_what_it_wrote_and_checked(shell: Shell, trained: Path) -> None:
    code, out, err = shell("export", "--folder", "trial", "-o", "deep/er/out")
    assert code == 0, err
    text = " ".join(out.split())
    assert "model.safetensors" in text and "on 70 validation images" in text
    assert "README.md" in err
    assert "`trial`" in Path("deep/er/out/README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export --folder trial", "-o FOLDER"),
        ("export --folder trial -o trial", "exists already"),
        ("export --folder trial -o out --format pickle", "safetensors, onnx, huggingface"),
        ("export --folder trial -o out --format huggingface", "a vit is"),
        ("export asweep --folder trial -o out", "one or the other"),
        ("export --folder nowhere -o out", "no such folder"),
        ("predict one.jpg --folder nowhere", "no such folder"),
        ("predict one.jpg --folder trial --device 7", "--device"),
        ("predict one.jpg text.jpg missing\x1b.png --folder trial", "text.jpg: not a readable image"),
        ("predict one.jpg text.jpg missing\x1b.png --folder trial", "missing\\x1b.png: no such file"),
        ("predict", "images"),
    ],
)
def test_bad_arguments_are_refused(shell: Shell, trained: Path, pictures: list[str], words: str, message: str) -> None:
    Path("text.jpg").write_text("no picture")
    code, out, err = shell(*words.split(" "))
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("out").exists()


def test_several_pictures_are_predicted_as_each_alone(shell: Shell, trained: Path, pictures: list[str]) -> None:
    found = shell.json("predict", *pictures, "--folder", "trial")
    assert [image["image"] for image in found["images"]] == pictures
    for image in found["images"]:
        assert list(image["probabilities"]) == list(CLASSES)
        assert sum(image["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert image["expression"] == max(image["probabilities"], key=image["probabilities"].get)
        assert image["faces"] is None
    assert found["images"][0]["square"] == {"left": 20, "top": 0, "side": 120}
    (alone,) = shell.json("predict", pictures[0], "--folder", "trial")["images"]
    assert alone["probabilities"] == pytest.approx(found["images"][0]["probabilities"], abs=1e-6)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_predictions_have_bars_on_a_terminal_alone(
    shell: Shell, trained: Path, pictures: list[str], is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shell.json("predict", *pictures, "--folder", "trial")["images"][0]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    code, out, err = shell("predict", *pictures, "--folder", "trial")
    assert code == 0, err
    assert out.count("%") == 14
    assert ("█" in out) == is_terminal
    if not is_terminal:
        assert "\x1b" not in out
        title, line = out.splitlines()[:2]
        assert title == f"one.jpg: {first['expression']}"
        assert line.split()[0] == first["expression"]
        assert f"{100 * first['probabilities'][first['expression']]:.1f} %" in line


def test_crop_face_takes_the_face_and_refuses_a_picture_without_one(
    shell: Shell, trained: Path, pictures: list[str]
) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'fersweep[faces]'")
    code, _, err = shell("predict", pictures[0], "--crop-face", "--folder", "trial")
    assert code == 2 and "no face was found" in err
    picture = Image.new("L", (500, 400), 128)
    (drawn,) = synthetic.draw(np.array([3]), np.random.default_rng(0))
    picture.paste(Image.fromarray(drawn).resize((240, 240), Image.Resampling.BILINEAR), (60, 80))
    picture.save("face.png")
    (found,) = shell.json("predict", "face.png", "--crop-face", "--folder", "trial")["images"]
    assert found["faces"] == 1
    assert 150 < found["square"]["side"] < 290
