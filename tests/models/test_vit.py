"""ViT: its sizes, our attention, stochastic depth, and pretrained weights from a folder or the hub."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import ResNetConfig, ResNetForImageClassification, ViTForImageClassification
from transformers import ViTConfig as HFConfig

from fer_sweep.config.trial import ViTConfig
from fer_sweep.errors import WeightsUnavailable
from fer_sweep.models import vit
from fer_sweep.models.vit import build
from fer_sweep.records import FER2013

TINY = {"patch_size": 16, "dim": 16, "depth": 2, "head_dim": 8}


def saved(folder, **changes):
    """A small ViT as the hub has them: three channels, 32 pixels, another number of classes."""
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "num_channels": 3, "hidden_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "intermediate_size": 32, "num_labels": 10}
    network = ViTForImageClassification(HFConfig(**sizes | heads | changes))
    network.save_pretrained(folder)
    return network.eval()


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, {}), (torch.bfloat16, {"rtol": 0.05, "atol": 0.05})])
def test_fused_and_unfused_attention_agree(dtype, close, monkeypatch):
    torch.manual_seed(0)
    query, key, value, upstream = (torch.randn(3, 2, 10, 8).to(dtype) for _ in range(4))
    layer = nn.Module()
    layer.is_causal = False

    def result_and_gradients():
        leaves = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        output, _ = vit.attend(layer, *leaves, None, scaling=8**-0.5, dropout=0.0)
        return [output, *torch.autograd.grad(output, leaves, upstream.transpose(1, 2))]

    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        kept = result_and_gradients()
        monkeypatch.setattr(vit, "_LARGEST_SCORES", 0)
        fused = result_and_gradients()
    for ours, theirs in zip(kept, fused, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        torch.testing.assert_close(ours, theirs, **close)


def test_attention_weights_are_dropped_out_where_the_fused_kernel_cannot():
    layer = nn.Module()
    layer.is_causal = False
    tensors = [torch.empty(3, 2, 10, 8, device="meta") for _ in range(3)]  # neither the CPU nor CUDA, as MPS
    kept = [vit.attend(layer, *tensors, None, scaling=1.0, dropout=rate)[1] for rate in (0.0, 0.1)]
    assert [weights is None for weights in kept] == [True, False]


@pytest.mark.parametrize("biased", [True, False])
def test_joint_projection_has_the_values_and_gradients_of_three(biased, tmp_path):
    theirs = saved(tmp_path / "vit", image_size=48, num_channels=1, num_labels=7, qkv_bias=biased)
    ours = build(ViTConfig(pretrained=str(tmp_path / "vit")), FER2013)
    faces = torch.randn(3, 1, 48, 48)
    logits, expected = ours(faces), theirs(pixel_values=faces).logits
    torch.testing.assert_close(logits, expected)
    (logits.logsumexp(1).sum() + expected.logsumexp(1).sum()).backward()
    gradients = {name.removeprefix("transformer."): weight.grad for name, weight in ours.named_parameters()}
    assert len(gradients) == len(list(theirs.parameters()))
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_stochastic_depth_rises_from_the_first_layer_and_skips_in_training_only():
    torch.manual_seed(0)
    network = build(ViTConfig(**TINY, stochastic_depth=0.5), FER2013)  # of its two layers the first is never skipped
    plain, shallow = build(ViTConfig(**TINY), FER2013), build(ViTConfig(**TINY | {"depth": 1}), FER2013)
    plain.load_state_dict(network.state_dict())
    shallow.load_state_dict(network.state_dict(), strict=False)
    faces = torch.randn(1, 1, 48, 48).expand(64, -1, -1, -1)
    assert torch.equal(copy.deepcopy(network.train()).eval()(faces), plain.eval()(faces)), "as the average is evaluated"
    # The second layer is skipped or doubled: equal faces give two answers, about half of each.
    logits = network.train()(faces).detach()
    skipped = (logits - shallow.eval()(faces)).abs().amax(dim=1) < 1e-4
    assert 15 < skipped.sum() < 49
    assert len(logits[~skipped].round(decimals=4).unique(dim=0)) == 1


def test_pretrained_weights_get_faces_in_their_own_size_and_channels(tmp_path):
    theirs = saved(tmp_path / "vit")
    ours = build(ViTConfig(pretrained=str(tmp_path / "vit"), dropout=0.1), FER2013).eval()
    faces = torch.randn(2, 1, 48, 48)
    resized = functional.interpolate(faces, (32, 32), mode="bilinear", align_corners=False, antialias=True)
    features = theirs.vit(resized.expand(-1, 3, -1, -1)).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(faces), ours.transformer.classifier(features), rtol=1e-4, atol=1e-5)
    config = ours.transformer.config
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1
    assert config._attn_implementation == vit.ATTENTION
    ours.train()(faces).sum().backward()


def test_hub_is_asked_for_weights_that_are_not_here_and_named_where_it_is_out_of_reach(tmp_path, monkeypatch):
    saved(tmp_path / "vit")
    load, asked = ViTForImageClassification.from_pretrained, []

    def load_or_download(name, local_files_only=False, **settings):
        asked.append("cache" if local_files_only else "hub")
        if asked == ["cache"]:
            raise OSError("not in the cache")
        return load(tmp_path / "vit", **settings)

    monkeypatch.setattr(ViTForImageClassification, "from_pretrained", load_or_download)
    for _ in range(2):
        build(ViTConfig(pretrained="someone/some-vit"), FER2013)
    assert asked == ["cache", "hub", "cache"]
    monkeypatch.undo()
    with pytest.raises(WeightsUnavailable, match="someone/some-vit") as caught:
        build(ViTConfig(pretrained="someone/some-vit"), FER2013)
    assert "hf download someone/some-vit" in caught.value.hint


def pickled(folder):
    network = saved(folder)
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")


def another_architecture(folder):
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "num_channels": 3}
    ResNetForImageClassification(ResNetConfig(**sizes)).save_pretrained(folder)


@pytest.mark.parametrize(
    "content",
    [None, pickled, another_architecture, "[]", '{"num_attention_heads": 0}', '{"torch_dtype": "os.system"}'],
    ids=["empty", "pickled", "ResNet", "list", "no heads", "code"],
)
def test_folder_without_a_usable_vit_is_refused(content, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    if callable(content):
        content(folder)
    elif content is not None:
        (folder / "config.json").write_text(content)
        (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(WeightsUnavailable) as caught:
        build(ViTConfig(pretrained=str(folder)), FER2013)
    assert str(folder) in str(caught.value)
    assert caught.value.hint
