import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from fer_sweep.config.trial import ResNet18Config
from fer_sweep.errors import WeightsUnavailable
from fer_sweep.models.resnet18 import build

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
def test_at_width_64_it_is_torchvisions_network(stem: str) -> None:
    torch.manual_seed(0)
    theirs = torchvisions(stem)
    ours = build(ResNet18Config.model_validate({"stem": stem}))
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    ours.load_state_dict(theirs.state_dict())
    faces = torch.randn(2, 1, 48, 48)
    assert torch.equal(ours.eval()(faces), theirs.eval()(faces))


@pytest.mark.parametrize(("stem", "side"), [("cifar", 6), ("imagenet", 2)])
@pytest.mark.parametrize("width", [8, 48])
def test_stem_and_width(stem: str, side: int, width: int) -> None:
    network = build(ResNet18Config.model_validate({"stem": stem, "width": width, "dropout": 0.3}))
    sizes: list[torch.Size] = []
    network.get_submodule("layer4").register_forward_hook(lambda m, i, output: sizes.append(output.shape))
    network.eval()(torch.randn(1, 1, 48, 48))
    assert sizes == [(1, 8 * width, side, side)]
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.3]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 20


def test_pretrained_weights_are_loaded_with_conv1_summed(hub: Path) -> None:
    torch.manual_seed(0)
    theirs = resnet18()
    torch.save(theirs.state_dict(), hub / FILE)
    torch.manual_seed(1)
    ours = build(ResNet18Config(stem="imagenet", pretrained=True))
    faces = torch.randn(2, 1, 48, 48)
    theirs.fc = nn.Identity()
    ours.fc = nn.Identity()
    torch.testing.assert_close(ours.eval()(faces), theirs.eval()(faces.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


# The closed sockets of the tests stand for a machine without network, and warn besides.
@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_without_weights_and_network_it_says_which_file_goes_where(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        build(ResNet18Config(stem="imagenet", pretrained=True))
    assert capsys.readouterr().out == ""
    assert str(hub / FILE) in str(caught.value)
    assert str(caught.value.hint).count(FILE) == 2
    assert "pretrained=false" in str(caught.value.hint)


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_weights_that_cannot_be_read_are_named(content: bytes, hub: Path) -> None:
    (hub / FILE).write_bytes(content)
    with pytest.raises(WeightsUnavailable, match="cannot be read") as caught:
        build(ResNet18Config(stem="imagenet", pretrained=True))
    assert "delete the file" in str(caught.value.hint)


def test_weights_of_another_network_are_named(hub: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, hub / FILE)
    with pytest.raises(WeightsUnavailable, match="not ResNet18's"):
        build(ResNet18Config(stem="imagenet", pretrained=True))


def test_code_in_a_weights_file_is_never_run(hub: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "owned"),))

    torch.save({"conv1.weight": Attack()}, hub / FILE)
    with pytest.raises(WeightsUnavailable):
        build(ResNet18Config(stem="imagenet", pretrained=True))
    assert not (tmp_path / "owned").exists()


NARROW = """
import torch
from torch.nn import functional
from fer_sweep.config.trial import parse_trial
from fer_sweep.models import build_model, memory_format

config = parse_trial({"model": "resnet18", "width": 8})
network = build_model(config).to(memory_format=memory_format(config))
torch.set_num_threads(2)
for _ in range(3):
    functional.cross_entropy(network(torch.rand(35, 1, 48, 48)), torch.randint(7, (35,))).backward()
"""


def test_the_narrowest_network_survives_an_odd_batch() -> None:
    done = subprocess.run([sys.executable, "-c", NARROW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
