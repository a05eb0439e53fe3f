"""Every architecture in every format, used as its README says, and never left behind when it is not the model."""

import importlib.util
import json
import os
import re
import shutil
import stat
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    dynamic_module_utils,
)
from transformers import pipeline as hugging_face_pipeline

from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import Split
from fer_sweep.errors import DataError, FersweepError, InputError
from fer_sweep.inference.export import compare, export_model, logits_of
from fer_sweep.records import CLASSES, ExportFormat
from fer_sweep.training.examination import load_examinee
from fer_sweep.training.loop import train
from tests.support.faces import Faces
from tests.training.conftest import SIZES, small

pytestmark = pytest.mark.usefixtures("tiny_data")
SAFETENSORS, ONNX, HUGGINGFACE = ExportFormat.SAFETENSORS, ExportFormat.ONNX, ExportFormat.HUGGINGFACE
KINDS = {model: {"model": model} for model in SIZES}
KINDS["vit_conv"] = {"model": "vit", "stem": "conv", "pool": "sequence"}
each_model = pytest.mark.parametrize("model", KINDS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_cache):
    """A folder with a trained trial of each of KINDS, by its name."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(tiny_cache))
        for name, values in KINDS.items():
            train(small(**values, epochs=1, train_samples=32, lr=3e-3, precision="fp32"), folder / name)
    return folder


def faces(count):
    data = open_dataset("tiny")
    return data.images[data.indices(Split.VAL)[:count]][:, None]


def expected(folder, pixels):
    return logits_of(load_examinee(folder, torch.device("cpu")), pixels)


def run_use(folder, monkeypatch):
    """Run what the README of an export says, in its folder, with a face to use it on; gives the names it defines."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    Image.fromarray(faces(1)[0, 0]).save(folder / "face.png")
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)
    return names


@each_model
def test_safetensors_export_is_the_model(trained, tmp_path, model, monkeypatch):
    target = tmp_path / "out"
    before = os.umask(0o022)
    done = export_model(trained / model, target, SAFETENSORS, name="a/0")
    os.umask(before)
    assert done.files == ("README.md", "config.json", "model.safetensors")
    assert (done.checked_on, done.largest_difference) == (70, 0.0)
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()} == {0o644}, "others may read it"
    about = json.loads((target / "config.json").read_text())
    mean, std = about["pixel_mean"], about["pixel_std"]
    assert about["classes"] == list(CLASSES)
    assert about["result"] == json.loads((trained / model / "result.json").read_text())
    names = run_use(target, monkeypatch)
    with torch.inference_mode():
        logits = names["trained"].model((torch.from_numpy(faces(5)).float() - mean) / std).numpy()
    np.testing.assert_allclose(logits, expected(trained / model, faces(5)), atol=1e-6)


@each_model
def test_onnx_export_is_the_model(trained, tmp_path, model, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    target = tmp_path / "out"
    done = export_model(trained / model, target, ONNX, name="a/0", threads=1)
    assert done.files == ("README.md", "config.json", "model.onnx")
    assert b"onnx_graph.py" not in (target / "model.onnx").read_bytes(), "no stack traces with folders of this machine"
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


@pytest.mark.parametrize("kind", ["vit", "vit_conv"])
def test_hugging_face_export_is_the_model(trained, tmp_path, kind, monkeypatch):
    cache = tmp_path / "modules"  # of transformers, which copies fersweep_vit.py there and imports it
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(cache))
    monkeypatch.setattr("sys.path", [*sys.path])
    target, trust = tmp_path / "out", {"trust_remote_code": True} if kind == "vit_conv" else {}
    done = export_model(trained / kind, target, HUGGINGFACE, name="a/0")
    assert {"README.md", "fersweep.json", "preprocessor_config.json", "model.safetensors"} < {*done.files}
    card = (target / "README.md").read_text()
    assert ("fersweep_vit.py" in done.files) is ("trust_remote_code" in card) is bool(trust)
    processor = AutoImageProcessor.from_pretrained(target)
    model = AutoModelForImageClassification.from_pretrained(target, **trust).eval()
    assert model.config.id2label == dict(enumerate(CLASSES))
    images = [Image.fromarray(face[0]) for face in faces(5)]
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    wanted = expected(trained / kind, faces(5))
    of_grey = expected(trained / kind, np.asarray(colours.convert("L"))[None, None])
    # A picture in colour means what its grey means, up to the rounding of a grey level.
    for pictures, logits, tolerance in (
        (images, wanted, 1e-4),
        ([image.convert("RGB") for image in images], wanted, 1e-4),
        ([colours], of_grey, 0.02),
    ):
        with torch.inference_mode():
            found = model(**processor(pictures, return_tensors="pt")).logits.numpy()
        np.testing.assert_allclose(found, logits, atol=tolerance)
    answers = hugging_face_pipeline("image-classification", str(target), **trust)(images[0], top_k=7)
    assert answers[0]["label"] == CLASSES[int(wanted[0].argmax())]
    assert run_use(target, monkeypatch)["inputs"]["pixel_values"].shape == (1, 3, 48, 48)
    assert type(model).__module__.startswith("transformers_modules." if trust else "transformers.models.vit.")
    assert model(**processor(images, return_tensors="pt"), labels=torch.zeros(5, dtype=torch.long)).loss > 0.0


def test_hugging_face_export_with_our_class_is_not_loaded_as_another_model(trained, tmp_path):
    export_model(trained / "vit_conv", tmp_path / "out", HUGGINGFACE, name="a/0")
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForImageClassification.from_pretrained(tmp_path / "out", trust_remote_code=False)


def test_vit_pretrained_at_another_size_is_exported(tmp_path):
    pytest.importorskip("onnxscript")
    sizes = {"image_size": 64, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTForImageClassification(ViTConfig(**sizes, intermediate_size=32)).save_pretrained(tmp_path / "start")
    train(small("vit", epochs=1, pretrained=str(tmp_path / "start"), precision="fp32"), tmp_path / "trial")
    for format in (HUGGINGFACE, ONNX):
        assert export_model(tmp_path / "trial", tmp_path / format, format, name="a/0").largest_difference < 1e-4


def test_card_says_how_it_was_trained_and_how_good_it_is(trained, tmp_path):
    folder, name = shutil.copytree(trained / "simple_cnn", tmp_path / "trial"), "`|\x1b[31m"
    result = json.loads((folder / "result.json").read_text())
    export_model(folder, tmp_path / "out", SAFETENSORS, name=name)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: fersweep\n")
    assert f"accuracy {100 * result['best_val_acc']:.2f} %" in card and f"- {result['verdict']}: " in card
    for part in ("| lr | `0.003` |", "140 training and 70 validation images", "never evaluated there"):
        assert part in card
    assert "\x1b" not in card and str(tmp_path) not in card
    (folder / "result.json").unlink()
    export_model(folder, tmp_path / "other", SAFETENSORS, name=name)
    assert "no result was recorded" in (tmp_path / "other" / "README.md").read_text()


def test_export_can_be_exported_again_and_keeps_its_result(trained, tmp_path):
    export_model(trained / "deeper_cnn", tmp_path / "one", SAFETENSORS, name="a/0")
    export_model(tmp_path / "one", tmp_path / "two", SAFETENSORS, name="a/0")
    for name in ("README.md", "config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_export_with_other_logits_is_not_left_behind(trained, tmp_path, monkeypatch):
    zeros = np.zeros((2, 7), np.float32)
    assert compare(np.full((2, 7), 9e-5), zeros) < 1e-4
    for wrong in (1e-3, float("nan")):
        with pytest.raises(FersweepError, match="nothing was written"):
            compare(np.full((2, 7), wrong), zeros)
    monkeypatch.setattr("fer_sweep.inference.export.TOLERANCE", -1.0)
    with pytest.raises(FersweepError, match="differs from the trained model"):
        export_model(trained / "simple_cnn", tmp_path / "out", SAFETENSORS, name="a/0")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_export_needs_its_data_or_other_data(trained, tmp_path, monkeypatch):
    cache = Faces.barred([14, 7], copies_at=0).prepared(tmp_path, "other")
    monkeypatch.setenv("FERSWEEP_CACHE", str(cache))
    with pytest.raises(DataError, match="tiny"):
        export_model(trained / "simple_cnn", tmp_path / "out", SAFETENSORS, name="a/0")
    done = export_model(trained / "simple_cnn", tmp_path / "out", SAFETENSORS, name="a", data="other")
    assert done.checked_on == 7


def test_missing_package_is_named(trained, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxscript" else find(name, *a))
    with pytest.raises(InputError, match=r"onnxscript not installed") as caught:
        export_model(trained / "vit", tmp_path / "out", ONNX, name="a/0")
    assert "fersweep[onnx]" in caught.value.hint
