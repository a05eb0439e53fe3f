"""TrialConfig: the configuration of one trial, a union over the four architectures.

The names here are the parameter names of sweep files and the options of ``fersweep train``, whose help shows the text
under each field.
"""

import math
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from fer_sweep.errors import ConfigError, Problem

IMAGE_SIZE = 48
"""Height and width of an image in pixels, where the data set says nothing else."""
SYNTHETIC = "synthetic"
"""The data set that each host generates itself."""

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]

TRIAL_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*$"
"""Pattern of `SWEEP/TRIAL`, a trial by its ids."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class AugmentConfig(_Frozen):
    """Augmentation of a training batch, never of validation images. Zero switches a part off."""

    shift: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Largest shift along each axis, as a fraction of the image's side."""
    rotation: Annotated[float, Field(ge=0.0, le=45.0)] = 10.0
    """Largest rotation to either side, in degrees."""
    scale: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Largest change of size: 0.2 scales by 0.8 to 1.2."""
    flip: bool = True
    """Mirror every image left to right with probability one half."""
    brightness: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Largest change of brightness to either side, in standard deviations of the pixels (FER2013: 65 of 255)."""
    contrast: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Largest change of contrast: 0.2 multiplies each pixel's distance from the mean grey by 0.8 to 1.2."""
    erasing: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability that a rectangle of 2 to 33 % of an image's area is blanked."""
    mixup: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Alpha of mixup's Beta(alpha, alpha) (Zhang et al. 2018)."""
    cutmix: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Alpha of CutMix's Beta(alpha, alpha) (Yun et al. 2019). With mixup too, each batch takes one of them."""
    mix_until: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """Fraction of the epochs with mixup and CutMix; those after it train on images as they are."""


class SharedConfig(_Frozen):
    """The fields every architecture has: data, training, augmentation."""

    data: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "fer2013"
    """Name of a prepared data set (`fersweep data list`), or `synthetic`."""
    train_samples: Annotated[int, Field(ge=7)] | None = None
    """Train on this many images, drawn class by class in the split's proportions; all of them if not given."""
    drop_val_copies: bool = False
    """Leave out training images that are exact copies of a validation image."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2, le=8192)] = 128
    """Images per step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum."""
    lr: Annotated[float, Field(gt=0.0, le=10.0)] = 1e-3
    """Peak learning rate, reached at the end of the warm-up; falls to zero along a cosine."""
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 1e-4
    """Decay of weights, not of biases and normalization parameters. SGD adds it to the gradient, AdamW decouples it."""
    momentum: Probability = 0.9
    """Momentum of SGD; AdamW ignores it."""
    warmup: Annotated[float, Field(ge=0.0, le=0.5)] = 0.05
    """Fraction of all steps over which the learning rate rises linearly from zero."""
    label_smoothing: Probability = 0.0
    """Probability mass spread evenly over all classes."""
    dropout: Probability = 0.0
    """Dropout before the classifier; in ViT throughout."""
    clip_norm: Annotated[float, Field(ge=0.0)] = 0.0
    """Gradients are scaled down to this L2 norm; 0 switches it off."""
    ema_decay: Probability = 0.0
    """Decay per step of the exponential moving average of the weights that is evaluated instead of the
    weights themselves; 0 switches it off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; `auto` is bf16 where the processor has it and the model is faster with it."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seeds weights, data order, augmentation and dropout."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training batches."""
    weights_from: Annotated[str, Field(pattern=TRIAL_NAME)] | None = None
    """Start from the weights of the best epoch of an earlier trial, `SWEEP/TRIAL` by their ids, with the same model,
    sizes and data."""
    distill_from: str | None = None
    """Learn also from the predictions of a teacher, the best epoch of an earlier trial on the same data, `SWEEP/TRIAL`
    by their ids, or the absolute path of a trial's or an export's folder. It may be of another architecture."""
    distill_weight: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Weight of the loss against the teacher; the loss against the labels has the rest."""
    distill_temperature: Annotated[float, Field(ge=0.0, le=100.0)] = 3.0
    """Temperature of both models' probabilities in the loss against the teacher (Hinton et al. 2015); 0 takes the
    teacher's likeliest class as a hard label (Touvron et al. 2021)."""

    @field_validator("train_samples", "weights_from", "distill_from", mode="before")
    @classmethod
    def _none_is_a_word(cls, value: object) -> object:
        return None if value in ("none", "None", "null", "") else value

    @field_validator("distill_from")
    @classmethod
    def _names_a_model(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(TRIAL_NAME, value):
            return value
        if not any(kind(value).is_absolute() for kind in (PurePosixPath, PureWindowsPath)):
            raise ValueError(
                "give SWEEP/TRIAL by their ids, or the absolute path of the folder of a trial or an export"
            )
        return value

    def check_image_size(self, height: int, width: int) -> None:
        """Check the configuration against the images of its data set, in pixels.

        Raises:
            ConfigError: The architecture cannot take such images.
        """


class SimpleCNNConfig(SharedConfig):
    """Two convolutions and two fully connected layers."""

    model: Literal["simple_cnn"] = "simple_cnn"
    """The architecture."""
    channels: Annotated[int, Field(ge=1, le=512)] = 32
    """Channels of the first convolution; the second has twice as many."""
    kernel_size: Literal[3, 5, 7] = 3
    """Side of both convolutions' kernels, in pixels."""
    hidden: Annotated[int, Field(ge=7, le=4096)] = 128
    """Width of the fully connected layer."""

    @field_validator("kernel_size", mode="before")
    @classmethod
    def _number_of_any_kind(cls, value: object) -> object:
        # Unlike an int, a Literal accepts neither "5" from a command line nor 5.0 from a sweep.
        return {"3": 3, "5": 5, "7": 7}.get(str(value).removesuffix(".0"), value)


class DeeperCNNConfig(SharedConfig):
    """Blocks of convolution, BatchNorm and ReLU, each with pooling and Dropout at its end; each doubles the width."""

    model: Literal["deeper_cnn"] = "deeper_cnn"
    """The architecture."""
    blocks: Annotated[int, Field(ge=1, le=5)] = 3
    """Each halves height and width: 48 -> 24 -> 12 -> 6 -> 3 -> 1."""
    convs_per_block: Annotated[int, Field(ge=1, le=4)] = 2
    """Convolutions per block."""
    width: Annotated[int, Field(ge=1, le=256)] = 32
    """Channels of the first block; block b has width * 2**b, at most 512."""
    head: Literal["gap", "flatten"] = "gap"
    """Global average pooling, or every position into the classifier."""
    conv_dropout: Probability = 0.1
    """Dropout of whole channels at the end of each block."""


class ResNet18Config(SharedConfig):
    """torchvision's ResNet18 with a 1-channel conv1."""

    model: Literal["resnet18"] = "resnet18"
    """The architecture."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """`cifar`: 3x3 stride 1, no max-pool, a 6x6 final map. `imagenet`: 7x7 stride 2 + max-pool, 2x2."""
    width: Annotated[int, Field(ge=8, le=128, multiple_of=8)] = 64
    """Channels of the first stage; each later one doubles it."""
    pretrained: bool = False
    """Start from torchvision's ImageNet weights, conv1 summed over its three channels."""

    @model_validator(mode="after")
    def _weights_fit(self) -> "ResNet18Config":
        if self.pretrained and self.width != 64:
            raise ValueError(f"pretrained weights have width 64, not {self.width}: set width=64 or pretrained=false")
        if self.pretrained and self.stem != "imagenet":
            raise ValueError("pretrained weights have the 7x7 stem: set stem=imagenet or pretrained=false")
        return self


_POWERS = (2, 4, 8, 16)
"""Patch sizes that convolutions of stride 2 can have."""


class ViTConfig(SharedConfig):
    """Hugging Face ViTForImageClassification with stochastic depth."""

    model: Literal["vit"] = "vit"
    """The architecture."""
    patch_size: Annotated[int, Field(ge=2, le=24)] = 8
    """Side of a patch in pixels; divides height and width of the images."""
    stem: Literal["patch", "conv"] = "patch"
    """What makes tokens of an image: a linear projection of patches, or log2(patch_size) 3x3 convolutions of stride 2
    with BatchNorm, which give as many tokens; then patch_size is 2, 4, 8 or 16."""
    pool: Literal["cls", "mean", "sequence"] = "cls"
    """What the classifier reads: the class token, or the patches' tokens by their mean or by weights that a linear
    layer gives (sequence pooling, Hassani et al. 2021)."""
    dim: Annotated[int, Field(ge=16, le=1024)] = 192
    """Width of a token; a multiple of head_dim."""
    depth: Annotated[int, Field(ge=1, le=32)] = 9
    """Transformer layers."""
    head_dim: Annotated[int, Field(ge=4, le=256)] = 32
    """Width of an attention head; dim / head_dim heads."""
    mlp_ratio: Annotated[float, Field(ge=0.5, le=8.0)] = 2.0
    """Width of the MLP's hidden layer over dim."""
    stochastic_depth: Probability = 0.0
    """Probability of skipping the last layer's branches; falls linearly to zero at the first (Huang et al. 2016)."""
    pretrained: Annotated[str, Field(min_length=1)] | None = None
    """Name on the Hugging Face hub, or a folder, of a ViT to start from: its own sizes replace patch_size, dim,
    depth, head_dim and mlp_ratio, and faces are resized to its input."""

    @field_validator("pretrained", mode="before")
    @classmethod
    def _no_weights(cls, value: object) -> object:
        return None if value in ("none", "None", "null", "", False) else value

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ViTConfig":
        if self.pretrained is None and self.dim % self.head_dim:
            raise ValueError(f"dim {self.dim} is not a multiple of head_dim {self.head_dim}")
        if self.pretrained is not None and (self.stem != "patch" or self.pool != "cls"):
            raise ValueError("pretrained weights have patches and a class token: set stem=patch and pool=cls")
        if self.stem == "conv" and self.patch_size not in _POWERS:
            raise ValueError(f"patch_size {self.patch_size} cannot have stem=conv: take one of {list(_POWERS)}")
        return self

    def check_image_size(self, height: int, width: int) -> None:
        """Check that whole patches cover the images."""
        common = math.gcd(height, width)
        if self.pretrained is None and common % self.patch_size:
            sizes = _POWERS if self.stem == "conv" else range(2, 25)
            divisors = [size for size in sizes if common % size == 0]
            message = f"patch_size {self.patch_size} does not divide images of {width}x{height} pixels"
            raise ConfigError([Problem(f"{message}: take one of {divisors}")])


TrialConfig = SimpleCNNConfig | DeeperCNNConfig | ResNet18Config | ViTConfig

ARCHITECTURES: dict[str, type[SharedConfig]] = {
    kind.model_fields["model"].default: kind for kind in get_args(TrialConfig)
}

_ADAPTER: TypeAdapter[TrialConfig] = TypeAdapter(Annotated[TrialConfig, Field(discriminator="model")])


def parse_trial(values: Mapping[str, Any]) -> TrialConfig:
    """Validate plain values, nested or with dotted names, into a TrialConfig.

    >>> parse_trial({"model": "resnet18", "lr": 0.05, "augment.flip": False}).augment.flip
    False

    Raises:
        ConfigError: With one Problem for every unknown or impossible value.
    """
    try:
        tree = nest(values)
    except RecursionError:
        raise ConfigError([Problem("is nested without end")]) from None
    if "model" not in tree:
        names = ", ".join(ARCHITECTURES)
        raise ConfigError([Problem(f"missing: which architecture to train, one of {names}", key="model")])
    try:
        return _ADAPTER.validate_python(tree)
    except ValidationError as error:
        known = known_names(str(tree["model"]))
        raise ConfigError([_problem(item, known) for item in error.errors()]) from None


def parse_trial_json(text: str | bytes) -> TrialConfig:
    """Validate the JSON of a TrialConfig, written by this version of fersweep or an earlier one.

    A missing field has its default, so that an update can add a field while a sweep is under way: compare the models
    that this returns, never their JSON.

    >>> parse_trial_json('{"model": "vit"}') == parse_trial_json('{"model": "vit", "seed": 0}')
    True

    Raises:
        ConfigError: The text is not JSON, or has fields or values that this version does not know.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise ConfigError([_problem(item, known_names()) for item in error.errors()]) from None


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested dictionaries.

    >>> nest({"lr": 0.1, "augment.shift": 0.2})
    {'lr': 0.1, 'augment': {'shift': 0.2}}

    Raises:
        ConfigError: A name is used both as a value and as a group.
    """
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        groups = str(name).split(".")  # a file's dictionary may have a number for a key
        leaf = None if isinstance(value, Mapping) else groups.pop()
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise ConfigError([Problem(f"{group} is a value and cannot also be a group", key=name)])
        if leaf is None:
            node.update(nest(value))
        else:
            node[leaf] = value
    return tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of ``nest``.

    >>> flatten({"lr": 0.1, "augment": {"shift": 0.2}})
    {'lr': 0.1, 'augment.shift': 0.2}
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def describe_fields(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf field of a config class with its dotted name, in the order of the source."""
    for name, info in kind.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from describe_fields(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


FIELDS = {name: info for kind in ARCHITECTURES.values() for name, info in describe_fields(kind)}
"""The fields of all architectures by dotted name."""


def known_names(model: str | None = None) -> list[str]:
    """Dotted names of the fields of one architecture; of all architectures if ``model`` is unknown."""
    return [name for name, _ in describe_fields(ARCHITECTURES[model])] if model in ARCHITECTURES else list(FIELDS)


def suggest(name: str, known: list[str]) -> str | None:
    """A "did you mean" for a misspelt name; None if no known name is similar.

    >>> suggest("learning_rte", ["learning_rate", "seed"]), suggest("shift", ["augment.shift"])
    ('did you mean learning_rate?', 'did you mean augment.shift?')
    """
    alias = {"learning_rate": "lr", "wd": "weight_decay", "bs": "batch_size", "architecture": "model"}.get(name)
    if alias in known:
        return f"did you mean {alias}?"
    leaf = name.rpartition(".")[2]
    near = (
        [dotted for dotted in known if dotted.endswith(f".{name}")]
        or get_close_matches(name, known, n=1, cutoff=0.6)
        or get_close_matches(leaf, [dotted for dotted in known if "." in dotted], n=1, cutoff=0.4)
    )
    return f"did you mean {near[0]}?" if near else None


def _problem(item: Any, known: list[str]) -> Problem:
    # pydantic puts the discriminator's value first in the location of a union's errors.
    key = ".".join(str(part) for part in item["loc"] if str(part) not in ARCHITECTURES)
    if item["type"] == "extra_forbidden":
        return Problem("no such parameter", key=key, hint=suggest(key, known))
    if item["type"] == "union_tag_invalid":
        wrong, models = str(item["ctx"]["tag"]), list(ARCHITECTURES)
        hint = suggest(wrong, models) or f"one of {', '.join(models)}"
        return Problem(f"no such model: {wrong!r}", key="model", hint=hint)
    message = item["msg"].removeprefix("Value error, ")
    if not isinstance(item["input"], Mapping):
        message = f"{item['input']!r}: {message[:1].lower()}{message[1:]}"
    return Problem(message, key=key)
