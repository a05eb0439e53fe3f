"""ResNet18: torchvision's network at width 64, narrower ones, and pretrained weights from the hub's cache."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from fer_sweep.config.trial import ResNet18Config
from fer_sweep.errors import WeightsUnavailable
from fer_sweep.models.resnet18 import build
from fer_sweep.records import FER2013

PRETRAINED = ResNet18Config(stem="imagenet", pretrained=True)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Where torch's hub keeps the ImageNet weights; they are not there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_width_64_is_the_network_of_torchvision(stem):
    torch.manual_seed(0)
    theirs = resnet18(num_classes=7)
    theirs.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    if stem == "cifar":
        theirs.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        theirs.maxpool = nn.Identity()
    ours = build(ResNet18Config(stem=stem), FER2013)
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    ours.load_state_dict(theirs.state_dict())
    faces = torch.randn(2, 1, 48, 48)
    assert torch.equal(ours.eval()(faces), theirs.eval()(faces))


def test_pretrained_weights_are_loaded_with_their_channels_summed(weights):
    torch.manual_seed(0)
    theirs = resnet18()
    torch.save(theirs.state_dict(), weights)
    torch.manual_seed(1)
    ours = build(PRETRAINED, FER2013)
    faces = torch.randn(2, 1, 48, 48)
    theirs.fc = ours.fc = nn.Identity()
    torch.testing.assert_close(ours.eval()(faces), theirs.eval()(faces.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


# Closed sockets stand for a machine without network, and warn.
@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_missing_weights_without_network_name_the_file_and_its_place(weights, capsys):
    with pytest.raises(WeightsUnavailable) as caught:
        build(PRETRAINED, FER2013)
    assert capsys.readouterr().out == ""
    assert str(weights) in str(caught.value)
    assert caught.value.hint.count(weights.name) == 2
    assert "pretrained=false" in caught.value.hint


class Attack:
    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no weights at all", "cannot be read"),
        ({"conv1.weight": Attack()}, "cannot be read"),
        ({"weight": torch.zeros(1)}, "not ResNet18's"),
    ],
    ids=["text", "code", "another network"],
)
def test_unusable_weights_are_refused_and_no_code_in_them_is_run(content, message, weights, tmp_path):
    if isinstance(content, bytes):
        weights.write_bytes(content)
    else:
        torch.save(content, weights)
    with pytest.raises(WeightsUnavailable, match=message) as caught:
        build(PRETRAINED, FER2013)
    assert "delete the file" in caught.value.hint
    assert not (tmp_path / "owned").exists()
