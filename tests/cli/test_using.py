"""export and predict from the command line: the model that is meant, what is printed, and what is refused."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_sweep.config.trial import SimpleCNNConfig
from fer_sweep.files import trial_folder
from fer_sweep.records import CLASSES
from tests.cli.conftest import Shell

pytestmark = pytest.mark.usefixtures("one_core")

FILE = """\
program: fersweep
method: grid
metric: {name: best_val_acc, goal: maximize}
parameters:
  model: {value: simple_cnn}
  data: {value: tiny}
  epochs: {value: 1}
  batch_size: {value: 16}
  channels: {value: 4}
  hidden: {value: 16}
  lr: {values: [0.003, 0.00001]}
"""


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> Path:
    from fer_sweep.training.loop import train

    folder = tmp_path_factory.mktemp("used") / "trial"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(tiny_cache))
        train(SimpleCNNConfig(data="tiny", epochs=1, channels=4, hidden=16, batch_size=16, precision="fp32"), folder)
    return folder


@pytest.fixture
def folder(trained_once: Path, tiny_data: str, tmp_path: Path) -> Path:
    """The folder of a trained trial."""
    shutil.copytree(trained_once, tmp_path / "trial")
    return tmp_path / "trial"


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Two pictures."""
    rng = np.random.default_rng(0)
    names = []
    for name, shape in (("one.jpg", (120, 160, 3)), ("two.png", (48, 48))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
        names.append(name)
    return names


def test_the_winner_of_the_last_sweep_is_exported_and_used(shell: Shell, tmp_path: Path, tiny_data: str) -> None:
    (tmp_path / "sweep.yaml").write_text(FILE)
    sweep = shell.json("create", "sweep.yaml")["sweep"]
    code, _, err = shell("export", "-o", "out")
    assert code == 3 and f"fersweep agent {sweep}" in err
    assert shell("agent", "--gpus", "none", "--slots", "1")[0] == 0
    winner = shell.json("best")["winner"]["id"]
    done = shell.json("export", "-o", "out")
    assert done["model"] == f"{sweep}/{winner}"
    assert done["files"] == ["README.md", "config.json", "model.safetensors"]
    assert done["checked_on"] == 70 and done["largest_difference"] <= done["tolerance"]
    assert f"`{sweep}/{winner}`" in (tmp_path / "out" / "README.md").read_text()
    other = "1" if winner == "0" else "0"
    assert shell.json("export", sweep, "--trial", other, "-o", "other")["model"] == f"{sweep}/{other}"

    picture = "face.png"
    Image.new("L", (48, 48), 77).save(picture)
    here, there = (shell.json("predict", picture, *more) for more in ((), ("--folder", "out")))
    assert here["model"] == f"{sweep}/{winner}"
    assert here["images"] == there["images"]
    assert shell.json("predict", picture, "--sweep", sweep, "--trial", other)["images"] != here["images"]

    shutil.rmtree(trial_folder(sweep, winner))
    code, _, err = shell("predict", picture)
    assert code == 2 and "host that trained it" in err


def test_no_sweep_yet(shell: Shell, pictures: list[str]) -> None:
    assert shell("export", "-o", "out")[0] == 3
    code, _, err = shell("predict", *pictures)
    assert code == 3 and "hint" in err


def test_export_says_what_it_wrote_and_checked(shell: Shell, folder: Path, tmp_path: Path) -> None:
    code, out, err = shell("export", "--folder", "trial", "-o", "deep/er/out")
    assert code == 0, err
    text = " ".join(out.split())
    assert "model.safetensors" in text and "on 70 validation images" in text
    assert "README.md" in err
    assert "`trial`" in (tmp_path / "deep/er/out/README.md").read_text()


@pytest.mark.parametrize("kind", ["folder", "empty", "file", "link"])
def test_what_exists_is_not_written_over(shell: Shell, folder: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        if kind == "folder":
            (target / "mine").write_text("mine")
    code, out, err = shell("export", "--folder", "trial", "-o", "out")
    assert (code, out) == (2, "")
    assert "exists already" in err
    if kind == "folder":
        assert [path.name for path in target.iterdir()] == ["mine"]
    assert not list(tmp_path.glob(".out.*"))


def test_wrong_words_are_told_apart(shell: Shell, folder: Path, pictures: list[str]) -> None:
    for words, message in (
        (("export", "--folder", "trial"), "-o FOLDER"),
        (("export", "--folder", "trial", "-o", "out", "--format", "pickle"), "safetensors, onnx, huggingface"),
        (("export", "--folder", "trial", "-o", "out", "--format", "huggingface"), "a vit is"),
        (("export", "asweep", "--folder", "trial", "-o", "out"), "one or the other"),
        (("export", "--folder", "nowhere", "-o", "out"), "no such folder"),
        (("predict", *pictures, "--folder", "nowhere"), "no such folder"),
        (("predict", *pictures, "--folder", "trial", "--device", "7"), "--device"),
        (("predict",), "images"),
    ):
        code, out, err = shell(*words)
        assert (code, out) == (2, ""), words
        assert message in err
        assert not Path("out").exists()


def test_missing_weights(shell: Shell, folder: Path, pictures: list[str]) -> None:
    (folder / "best.safetensors").unlink()
    for words in (("export", "-o", "out"), ("predict", *pictures)):
        code, _, err = shell(*words, "--folder", "trial")
        assert code == 1
        assert "no model can be loaded" in err and "Traceback" not in err
    assert not Path("out").exists()


def test_a_folder_that_cannot_be_written(shell: Shell, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = shell("export", "--folder", "trial", "-o", "file/out")
    assert code == 1
    assert "cannot write" in err


def test_predictions_of_several_pictures(shell: Shell, folder: Path, pictures: list[str]) -> None:
    found = shell.json("predict", *pictures, "--folder", "trial")
    assert [image["image"] for image in found["images"]] == pictures
    for image in found["images"]:
        assert list(image["probabilities"]) == list(CLASSES)
        assert sum(image["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert image["expression"] == max(image["probabilities"], key=image["probabilities"].get)
        assert image["faces"] is None
    assert found["images"][0]["square"] == {"left": 20, "top": 0, "side": 120}
    # One at a time, the same.
    (alone,) = shell.json("predict", pictures[0], "--folder", "trial")["images"]
    together = found["images"][0]["probabilities"]
    assert alone["probabilities"] == pytest.approx(together, abs=1e-6)


def test_predictions_in_a_pipe_are_plain(shell: Shell, folder: Path, pictures: list[str]) -> None:
    code, out, err = shell("predict", *pictures, "--folder", "trial")
    assert code == 0, err
    assert out.count("%") == 14
    assert "█" not in out and "\x1b" not in out
    first = shell.json("predict", *pictures, "--folder", "trial")["images"][0]
    lines = out.splitlines()
    assert lines[0] == f"one.jpg: {first['expression']}"
    assert lines[1].split()[0] == first["expression"]
    assert f"{100 * first['probabilities'][first['expression']]:.1f} %" in lines[1]


def test_predictions_on_a_terminal_have_bars(
    shell: Shell, folder: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, _ = shell("predict", *pictures, "--folder", "trial")
    assert code == 0
    assert "█" in out


def test_every_picture_that_is_none_is_named(shell: Shell, folder: Path, pictures: list[str]) -> None:
    Path("text.jpg").write_text("no picture")
    code, out, err = shell("predict", pictures[0], "text.jpg", "missing\x1b.png", "--folder", "trial")
    assert (code, out) == (2, "")
    assert "text.jpg: not a readable image" in err and "missing\\x1b.png: no such file" in err


def test_a_picture_without_a_face(shell: Shell, folder: Path, pictures: list[str]) -> None:
    pytest.importorskip("cv2")
    code, _, err = shell("predict", pictures[0], "--crop-face", "--folder", "trial")
    assert code == 2
    assert "no face was found" in err


def test_a_face_in_a_picture(shell: Shell, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    from fer_sweep.data.cache import open_dataset

    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "cache"))  # the other one is shared, and has `tiny` alone
    picture = Image.new("L", (500, 400), 128)
    drawn = Image.fromarray(open_dataset("synthetic").images[0])
    picture.paste(drawn.resize((240, 240), Image.Resampling.BILINEAR), (60, 80))
    picture.save("face.png")
    (found,) = shell.json("predict", "face.png", "--crop-face", "--folder", "trial")["images"]
    assert found["faces"] == 1
    assert 150 < found["square"]["side"] < 290
