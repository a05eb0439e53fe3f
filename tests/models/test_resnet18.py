"""ResNet18: torchvision's network at width 64, narrower ones, and pretrained weights from the hub's cache."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import ResNet18_Weights, resnet18

from fer_sweep.config.trial import ResNet18Config
from fer_sweep.errors import WeightsUnavailable
from fer_sweep.models import memory_format
from fer_sweep.models.resnet18 import build

pytestmark = pytest.mark.usefixtures("one_thread")
FILE = ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def torchvisions(stem: str) -> nn.Module:
    """torchvision's own ResNet18 for 7 classes and one channel."""
    network = resnet18(num_classes=7)
    if stem == "cifar":
        network.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    else:
        network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return network


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_width_64_is_the_network_of_torchvision(stem: str) -> None:
    torch.manual_seed(0)
    theirs = torchvisions(stem)
    ours = build(ResNet18Config.model_validate({"stem": stem}))
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    ours.load_state_dict(theirs.state_dict())
    faces = torch.randn(2, 1, 48, 48)
    assert torch.equal(ours.eval()(faces), theirs.eval()(faces))


def test_pretrained_weights_are_loaded_with_their_channels_summed(hub: Path) -> None:
    torch.manual_seed(0)
    theirs = resnet18()
    torch.save(theirs.state_dict(), hub / FILE)
    torch.manual_seed(1)
    ours = build(ResNet18Config(stem="imagenet", pretrained=True))
    faces = torch.randn(2, 1, 48, 48)
    theirs.fc = nn.Identity()
    ours.fc = nn.Identity()
    torch.testing.assert_close(ours.eval()(faces), theirs.eval()(faces.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


# Closed sockets stand for a machine without network, and warn.
@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_missing_weights_without_network_name_the_file_and_its_place(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        build(ResNet18Config(stem="imagenet", pretrained=True))
    assert capsys.readouterr().out == ""
    assert str(hub / FILE) in str(caught.value)
    assert str(caught.value.hint).count(FILE) == 2
    assert "pretrained=false" in str(caught.value.hint)


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, ("owned",))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"no weights at all"), "cannot be read"),
        (lambda path: torch.save({"conv1.weight": Attack()}, path), "cannot be read"),
        (lambda path: torch.save({"weight": torch.zeros(1)}, path), "not ResNet18's"),
    ],
    ids=["empty", "text", "code", "another network"],
)
def test_unusable_weights_are_refused_and_no_code_in_them_is_run(
    write: Callable[[Path], object], message: str, hub: Path, tmp_path: Path
) -> None:
    write(hub / FILE)
    with pytest.raises(WeightsUnavailable, match=message) as caught:
        build(ResNet18Config(stem="imagenet", pretrained=True))
    assert "delete the file" in str(caught.value.hint)
    assert not (tmp_path / "owned").exists()


def train_the_narrowest() -> None:
    config = ResNet18Config(width=8)
    network = build(config).to(memory_format=memory_format(config))
    torch.set_num_threads(2)
    for _ in range(3):
        functional.cross_entropy(network(torch.rand(35, 1, 48, 48)), torch.randint(7, (35,))).backward()


@pytest.mark.process
def test_narrowest_network_does_not_crash_on_an_odd_batch() -> None:
    process = multiprocessing.get_context("spawn").Process(target=train_the_narrowest)
    process.start()
    process.join()
    assert process.exitcode == 0
