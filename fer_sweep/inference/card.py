"""The model card (README.md) of an exported model. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fer_sweep.config.trial import TrialConfig, flatten
from fer_sweep.data.dataset import DatasetInfo, Split
from fer_sweep.errors import printable
from fer_sweep.openings import Opening
from fer_sweep.records import DataSpec, TrialResult
from fer_sweep.verdicts import explain


@dataclass(frozen=True)
class Card:
    """The content of a model card."""

    name: str
    """SWEEP/TRIAL, or the name of its folder."""
    config: TrialConfig
    spec: DataSpec
    data: DatasetInfo | None
    """The data it was trained on; None if that is not on this host."""
    result: TrialResult | None
    """The result of its training; None if unknown."""
    openings: Sequence[Opening]
    """The openings of a test split for it."""
    library: str
    """The library that loads it, by its name on the hub."""
    use: str
    """How to load it, in Markdown; HEIGHT and WIDTH stand for those of an image."""
    versions: Mapping[str, str]
    """The versions it was exported with, by package."""


def render(card: Card) -> str:
    """A model card in Markdown, with the front matter of Hugging Face's hub."""
    data = _code(card.config.data)
    if card.data is not None:
        data += (
            f", {card.data.split_total(Split.TRAIN):,} training and {card.data.split_total(Split.VAL):,} validation "
            f"images, SHA-256 {_code(card.data.fingerprint[:16])}..."
        )
    height, width = str(card.spec.height), str(card.spec.width)
    fields = "\n".join(f"| {name} | {_code(value)} |" for name, value in flatten(card.config.model_dump()).items())
    return f"""\
---
library_name: {card.library}
pipeline_tag: image-classification
tags: [facial-expression-recognition, fersweep]
---

# {card.config.model}: facial expressions

Input: a face as a {width}x{height} grey image. Output: {len(card.spec.classes)} classes, in this order: \
{", ".join(card.spec.classes)}. The model is
{_code(card.name)}, trained and exported by fersweep ({", ".join(f"{k} {v}" for k, v in card.versions.items())}).

## Use

{card.use.replace("HEIGHT", height).replace("WIDTH", width)}
## Accuracy

{_quality(card)}
## Training

Data: {data}.

| parameter | value |
|---|---|
{fields}

## Limits

The model predicts expressions as people labelled them on pictures from the web, and people disagree on many of these.
An expression is not an emotion: do not use the predictions for decisions about people.
"""


def _quality(card: Card) -> str:
    result = card.result
    if result is None:
        return "Unknown: no result was recorded.\n"
    recall = "\n".join(
        f"| {name} | {100 * r:.1f} % |" for name, r in zip(result.classes, result.per_class_recall, strict=True)
    )
    tests = "".join(
        f"- {opening.images:,} test images of {_code(opening.data)}, averaging {_code(opening.averaging)}: "
        f"{100 * opening.accuracy:.2f} %{' (the split had been opened before)' if opening.again else ''}\n"
        for opening in card.openings
    )
    return f"""\
On the validation images, which it was selected on, so expect less on unseen faces:

- accuracy {100 * result.best_val_acc:.2f} % (epoch {result.best_epoch} of {result.epochs}), \
{100 * result.val_acc_clean:.2f} % on those with no copy in training
- macro F1 {result.macro_f1:.3f}, train-val gap {100 * result.train_val_gap:+.1f} points
- {result.verdict}: {explain(result)}
- {result.parameters:,} parameters, trained in {result.precision}

On a test split:

{tests or "- never evaluated there, according to the records"}

| class | recall on the validation images |
|---|---|
{recall}
"""


def _code(value: object) -> str:
    """A value as inline code, safe in a table and a sentence."""
    text = printable(str(value)).replace("\n", " ").replace("`", "'").replace("|", "\\|")
    return f"`{text}`"
