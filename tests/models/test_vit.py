import copy
from pathlib import Path
from typing import Any

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

TINY: dict[str, Any] = {"patch_size": 16, "dim": 16, "depth": 2, "head_dim": 8}


def saved(folder: Path, **changes: Any) -> ViTForImageClassification:
    """A small ViT as the hub has them: three channels, 32 pixels, another number of classes."""
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "num_channels": 3, "hidden_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "intermediate_size": 32, "num_labels": 10}
    network = ViTForImageClassification(HFConfig(**{**sizes, **heads, **changes}))
    network.save_pretrained(folder)
    return network.eval()


@pytest.mark.parametrize(("patch", "dim", "depth", "ratio"), [(8, 192, 9, 2.0), (4, 32, 3, 4.0), (24, 16, 1, 0.7)])
def test_parameters(patch: int, dim: int, depth: int, ratio: float) -> None:
    network = build(ViTConfig(patch_size=patch, dim=dim, depth=depth, head_dim=16, mlp_ratio=ratio))
    hidden = round(dim * ratio)
    layer = 4 * (dim * dim + dim) + 2 * dim * hidden + hidden + dim + 4 * dim
    tokens = (48 // patch) ** 2 + 1
    expected = patch * patch * dim + dim + tokens * dim + dim + depth * layer + 2 * dim + 7 * dim + 7
    assert sum(p.numel() for p in network.parameters()) == expected


def test_attention_is_ours_with_the_heads_asked_for() -> None:
    transformer = build(ViTConfig(**TINY, dropout=0.25)).transformer
    assert isinstance(transformer, ViTForImageClassification)
    assert transformer.config._attn_implementation == vit.ATTENTION
    assert transformer.config.num_attention_heads == 2
    assert transformer.config.attention_probs_dropout_prob == 0.25
    assert {m.p for m in transformer.modules() if isinstance(m, nn.Dropout)} == {0.25}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_the_same_function_however_many_scores_it_keeps(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    query, key, value, upstream = (torch.randn(3, 2, 10, 8).to(dtype) for _ in range(4))
    layer = nn.Module()
    layer.is_causal = False  # type: ignore[assignment]

    def result_and_gradients() -> list[torch.Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        output, _ = vit.attend(layer, *leaves, None, scaling=8**-0.5, dropout=0.0)
        return [output, *torch.autograd.grad(output, leaves, upstream.transpose(1, 2))]

    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        kept = result_and_gradients()
        monkeypatch.setattr(vit, "_LARGEST_SCORES", 0)
        fused = result_and_gradients()
    assert [t.dtype for t in kept] == [t.dtype for t in fused] == [dtype] * 4
    for ours, theirs in zip(kept, fused, strict=True):
        torch.testing.assert_close(
            ours.float(), theirs.float(), **({} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05})
        )


@pytest.mark.parametrize("biased", [True, False])
def test_one_product_for_query_key_and_value_is_the_function_of_three(biased: bool, tmp_path: Path) -> None:
    theirs = saved(tmp_path / "vit", image_size=48, num_channels=1, num_labels=7, qkv_bias=biased)
    ours = build(ViTConfig(pretrained=str(tmp_path / "vit")))
    faces = torch.randn(3, 1, 48, 48)
    ours(faces).logsumexp(1).sum().backward()
    theirs(pixel_values=faces).logits.logsumexp(1).sum().backward()
    gradients = {name.removeprefix("transformer."): weight.grad for name, weight in ours.named_parameters()}
    assert len(gradients) == len(list(theirs.parameters()))
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_stochastic_depth_skips_images_in_training_only() -> None:
    torch.manual_seed(0)
    network = build(ViTConfig(**{**TINY, "depth": 1}, stochastic_depth=0.5))
    plain = build(ViTConfig(**{**TINY, "depth": 1}))
    plain.load_state_dict(network.state_dict())
    faces = torch.randn(1, 1, 48, 48).expand(64, -1, -1, -1)
    assert torch.equal(network.eval()(faces), plain.eval()(faces))
    logits = network.train()(faces).detach()
    # One layer, skipped or doubled: equal faces give two answers, about half of each.
    distinct, counts = logits.round(decimals=4).unique(dim=0, return_counts=True)
    assert len(distinct) == 2
    assert counts.min() > 15


def test_the_rate_rises_from_nothing_at_the_first_layer() -> None:
    torch.manual_seed(0)
    network = build(ViTConfig(**{**TINY, "depth": 3}, stochastic_depth=0.6))
    rates = [
        hook.keywords["rate"]
        for module in network.modules()
        for hook in module._forward_hooks.values()
        if "rate" in getattr(hook, "keywords", {})
    ]
    assert rates == pytest.approx([0.3, 0.6])


def test_a_copy_in_evaluation_mode_does_not_skip() -> None:
    network = build(ViTConfig(**TINY, stochastic_depth=0.9)).train()
    average = copy.deepcopy(network).eval()
    faces = torch.randn(4, 1, 48, 48)
    assert torch.equal(average(faces), average(faces))


def test_pretrained_from_a_folder_sees_grey_faces_as_three_channels_of_its_own_size(tmp_path: Path) -> None:
    theirs = saved(tmp_path / "vit")
    ours = build(ViTConfig(pretrained=str(tmp_path / "vit"), dropout=0.1)).eval()
    faces = torch.randn(2, 1, 48, 48)
    resized = functional.interpolate(faces, (32, 32), mode="bilinear", align_corners=False, antialias=True)
    features = theirs.vit(resized.expand(-1, 3, -1, -1)).last_hidden_state[:, 0]
    assert isinstance(ours.transformer, ViTForImageClassification)
    torch.testing.assert_close(ours(faces), ours.transformer.classifier(features), rtol=1e-4, atol=1e-5)
    assert ours(faces).shape == (2, 7)
    assert ours.transformer.config.hidden_dropout_prob == 0.1
    ours.train()(faces).sum().backward()


def test_pretrained_on_one_channel_of_48_pixels_is_taken_as_it_is(tmp_path: Path) -> None:
    theirs = saved(tmp_path / "vit", image_size=48, num_channels=1, num_labels=7)
    ours = build(ViTConfig(pretrained=str(tmp_path / "vit"))).eval()
    faces = torch.randn(2, 1, 48, 48)
    torch.testing.assert_close(ours(faces), theirs(pixel_values=faces).logits)


def test_a_name_that_cannot_be_downloaded_says_how_to_get_it() -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        build(ViTConfig(pretrained="someone/some-vit"))
    assert "someone/some-vit" in str(caught.value)
    assert "hf download someone/some-vit" in str(caught.value.hint)


def test_a_folder_without_a_usable_vit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    saved(tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    network = saved(tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_channels=3)
    ).save_pretrained(tmp_path / "resnet")
    for name in ("empty", "broken", "pickled", "resnet"):
        with pytest.raises(WeightsUnavailable) as caught:
            build(ViTConfig(pretrained=str(tmp_path / name)))
        assert str(tmp_path / name) in str(caught.value)
