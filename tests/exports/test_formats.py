"""Every architecture in every format, used as its README says, and never left behind when it is not the model."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fer_sweep.config.trial import parse_trial
from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import Split
from fer_sweep.errors import CheckpointError, DataError, FersweepError, InputError
from fer_sweep.inference import reference as held_to
from fer_sweep.inference.export import export_model
from fer_sweep.inference.reference import Reference, compare, logits_of
from fer_sweep.records import CLASSES, ExportFormat
from fer_sweep.training.examination import load_examinee
from fer_sweep.training.loop import train
from tests.exports.conftest import SIZES
from tests.support.faces import Faces

SAFETENSORS, ONNX, HUGGINGFACE = ExportFormat.SAFETENSORS, ExportFormat.ONNX, ExportFormat.HUGGINGFACE


def expected(folder: Path, pixels: np.ndarray) -> np.ndarray:
    return logits_of(load_examinee(folder, torch.device("cpu")), pixels)


def faces(count: int) -> np.ndarray:
    data = open_dataset("tiny")
    return data.images[data.indices(Split.VAL)[:count]][:, None]


def run_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run what the README of an export says, in its folder, with a face to use it on."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    Image.fromarray(faces(1)[0, 0]).save(folder / "face.png")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize("model", SIZES)
def test_safetensors_export_is_the_model(
    trained: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    done = export_model(trained / model, target, SAFETENSORS, name="a/0")
    assert done.files == ("README.md", "config.json", "model.safetensors")
    assert (done.checked_on, done.largest_difference) == (70, 0.0)
    about = json.loads((target / "config.json").read_text())
    assert about["classes"] == list(CLASSES)
    assert 0 < about["pixel_mean"] < 255 and about["pixel_std"] >= 1
    assert about["result"] == json.loads((trained / model / "result.json").read_text())
    names = run_use(target, monkeypatch)
    mean, std = about["pixel_mean"], about["pixel_std"]
    with torch.inference_mode():
        logits = names["trained"].model((torch.from_numpy(faces(5)).float() - mean) / std).numpy()
    np.testing.assert_allclose(logits, expected(trained / model, faces(5)), atol=1e-6)


@pytest.mark.parametrize("model", SIZES)
def test_onnx_export_is_the_model(trained: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    target = tmp_path / "out"
    done = export_model(trained / model, target, ONNX, name="a/0", threads=1)
    assert done.files == ("README.md", "config.json", "model.onnx")
    assert done.largest_difference < 1e-4
    session = onnxruntime.InferenceSession(target / "model.onnx", providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    assert (pixels.type, pixels.shape) == ("tensor(uint8)", ["batch", 1, 48, 48])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    for count in (1, 2, 33):  # whatever the number of images it was made with
        (logits,) = session.run(["logits"], {"pixels": faces(count)})
        np.testing.assert_allclose(logits, expected(trained / model, faces(count)), atol=1e-4)
    logits = run_use(target, monkeypatch)["logits"]
    np.testing.assert_allclose(logits, expected(trained / model, faces(1)), atol=1e-4)


def test_hugging_face_export_is_the_model(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

    target = tmp_path / "out"
    done = export_model(trained / "vit", target, HUGGINGFACE, name="a/0")
    names = ("README.md", "config.json", "fersweep.json", "model.safetensors", "preprocessor_config.json")
    assert done.files == names
    processor = AutoImageProcessor.from_pretrained(target)
    model = AutoModelForImageClassification.from_pretrained(target).eval()
    assert model.config.id2label == dict(enumerate(CLASSES))
    images = [Image.fromarray(face[0]) for face in faces(5)]
    wanted = expected(trained / "vit", faces(5))
    with torch.inference_mode():
        for pictures in (images, [image.convert("RGB") for image in images]):
            found = model(**processor(pictures, return_tensors="pt")).logits.numpy()
            np.testing.assert_allclose(found, wanted, atol=1e-4)
    # A picture in colour means what its grey means, up to the rounding of a grey level.
    colours = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    with torch.inference_mode():
        found = model(**processor(Image.fromarray(colours), return_tensors="pt")).logits.numpy()
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_allclose(found, expected(trained / "vit", grey[None, None]), atol=0.02)
    answers = pipeline("image-classification", str(target))(images[0], top_k=7)
    assert answers[0]["label"] == CLASSES[int(wanted[0].argmax())]
    names = run_use(target, monkeypatch)
    assert names["inputs"]["pixel_values"].shape == (1, 3, 48, 48)


@pytest.mark.parametrize("model", ["simple_cnn", "deeper_cnn", "resnet18"])
def test_hugging_face_export_is_for_a_vit(trained: Path, tmp_path: Path, model: str) -> None:
    with pytest.raises(InputError, match="no architecture of Hugging Face") as caught:
        export_model(trained / model, tmp_path / "out", HUGGINGFACE, name="a/0")
    assert "onnx" in (caught.value.hint or "")
    assert left(tmp_path) == []


@pytest.mark.parametrize("format", [HUGGINGFACE, ONNX])
def test_vit_pretrained_at_another_size_is_exported(tmp_path: Path, tiny_data: str, format: ExportFormat) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    if format is ONNX:
        pytest.importorskip("onnxscript")
    sizes = {"image_size": 64, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTForImageClassification(ViTConfig(**sizes, intermediate_size=32)).save_pretrained(tmp_path / "start")
    config = {"model": "vit", "data": "tiny", "epochs": 1, "pretrained": str(tmp_path / "start"), "precision": "fp32"}
    train(parse_trial(config), tmp_path / "trial")
    done = export_model(tmp_path / "trial", tmp_path / "out", format, name="a/0")
    assert done.largest_difference < 1e-4


def test_card_says_how_it_was_trained_and_how_good_it_is(trained: Path, tmp_path: Path) -> None:
    folder, name = tmp_path / "trial", "`|\x1b[31m"
    shutil.copytree(trained / "simple_cnn", folder)
    export_model(folder, tmp_path / "out", SAFETENSORS, name=name)
    card = (tmp_path / "out" / "README.md").read_text()
    result = json.loads((folder / "result.json").read_text())
    assert card.startswith("---\nlibrary_name: fersweep\n")
    assert f"accuracy {100 * result['best_val_acc']:.2f} %" in card
    assert f"- {result['verdict']}: " in card
    assert "| lr | `0.003` |" in card
    assert "140 training and 70 validation images" in card
    assert "never evaluated there" in card
    assert "\x1b" not in card and str(tmp_path) not in card
    (folder / "result.json").unlink()
    export_model(folder, tmp_path / "other", SAFETENSORS, name=name)
    assert "No result was recorded" in (tmp_path / "other" / "README.md").read_text()


def test_export_can_be_exported_again_and_keeps_its_result(trained: Path, tmp_path: Path) -> None:
    export_model(trained / "deeper_cnn", tmp_path / "one", SAFETENSORS, name="a/0")
    export_model(tmp_path / "one", tmp_path / "two", SAFETENSORS, name="a/0")
    for name in ("README.md", "config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_export_that_differs_from_the_model_is_not_left_behind(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_to, "TOLERANCE", -1.0)
    with pytest.raises(FersweepError, match="not the model that was trained"):
        export_model(trained / "simple_cnn", tmp_path / "out", SAFETENSORS, name="a/0")
    assert left(tmp_path) == []


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_other_logits_are_refused(wrong: float) -> None:
    wanted = Reference(np.zeros((2, 1, 48, 48), np.uint8), np.zeros((2, 7), np.float32))
    assert compare(wanted.logits + np.float32(9e-5), wanted) < 1e-4
    other = wanted.logits.copy()
    other[1, 3] = wrong
    with pytest.raises(FersweepError, match="nothing was written"):
        compare(other, wanted)


def test_damaged_weights_are_not_exported(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "vit", tmp_path / "trial")
    (tmp_path / "trial" / "best.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="no model can be loaded"):
        export_model(tmp_path / "trial", tmp_path / "out", SAFETENSORS, name="a/0")


def test_export_needs_its_data_or_other_data(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Faces.barred([14, 7], copies_at=0).prepared(tmp_path, "other")
    monkeypatch.setenv("FERSWEEP_CACHE", str(cache))
    with pytest.raises(DataError, match="tiny"):
        export_model(trained / "simple_cnn", tmp_path / "out", SAFETENSORS, name="a/0")
    done = export_model(trained / "simple_cnn", tmp_path / "out", SAFETENSORS, name="a", data="other")
    assert done.checked_on == 7


def test_missing_package_is_named(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxscript" else find(name, *a))
    with pytest.raises(InputError, match=r"needs .*onnxscript") as caught:
        export_model(trained / "vit", tmp_path / "out", ONNX, name="a/0")
    assert "fersweep[onnx]" in (caught.value.hint or "")
    assert left(tmp_path) == []


def left(folder: Path) -> list[str]:
    """What lies in a folder, but for the test's own data cache and home."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("cache", ".fersweep"))
