"""The README.md of an exported model: what it is, how to use it, how it was trained and how good it is. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fer_sweep.config.trial import TrialConfig, flatten
from fer_sweep.data.dataset import DatasetInfo, Split
from fer_sweep.errors import printable
from fer_sweep.openings import Opening
from fer_sweep.records import CLASSES, TrialResult
from fer_sweep.verdicts import explain


@dataclass(frozen=True)
class Card:
    """What a model card tells."""

    name: str
    """Of the model: SWEEP/TRIAL, or its folder's name."""
    config: TrialConfig
    data: DatasetInfo | None
    """What it was trained on; None where that is not here."""
    result: TrialResult | None
    """What its training came to; None where no result was recorded with it."""
    openings: Sequence[Opening]
    """When its accuracy on a test split was looked at."""


def render(card: Card, *, library: str, use: str, versions: Mapping[str, str]) -> str:
    """A model card in Markdown, with the front matter of Hugging Face's hub.

    Args:
        card: What it tells.
        library: The hub's name of the library that loads it.
        use: How to load it, in Markdown.
        versions: What it was exported with: package to version.
    """
    data = _code(card.config.data)
    if card.data is not None:
        data += (
            f", {card.data.split_total(Split.TRAIN):,} training and {card.data.split_total(Split.VAL):,} validation "
            f"images, SHA-256 {_code(card.data.fingerprint[:16])}..."
        )
    fields = "\n".join(f"| {name} | {_code(value)} |" for name, value in flatten(card.config.model_dump()).items())
    return f"""\
---
library_name: {library}
pipeline_tag: image-classification
tags: [facial-expression-recognition, fersweep]
---

# {card.config.model}: facial expressions

A face as a 48x48 grey image in, seven classes out, in this order: {", ".join(CLASSES)}. This is {_code(card.name)},
trained and exported by fersweep ({", ".join(f"{name} {version}" for name, version in versions.items())}).

## Use

{use}
## How good it is

{_quality(card)}
## How it was trained

Data: {data}.

| parameter | value |
|---|---|
{fields}

## What it is not for

It names expressions as people labelled them on pictures from the web, and people disagree on many of those. An
expression is not a feeling: do not decide anything about a person by it.
"""


def _quality(card: Card) -> str:
    result = card.result
    if result is None:
        return "No result was recorded with it.\n"
    recall = "\n".join(
        f"| {name} | {100 * r:.1f} % |" for name, r in zip(result.classes, result.per_class_recall, strict=True)
    )
    tests = "".join(
        f"- {opening.images:,} test images of {_code(opening.data)}, averaging {_code(opening.averaging)}: "
        f"{100 * opening.accuracy:.2f} %{' (that split had been looked at before)' if opening.again else ''}\n"
        for opening in card.openings
    )
    return f"""\
On the validation images, which it was chosen by, so that unseen faces will do worse:

- accuracy {100 * result.best_val_acc:.2f} % (epoch {result.best_epoch} of {result.epochs}), \
{100 * result.val_acc_clean:.2f} % on those with no copy in training
- macro F1 {result.macro_f1:.3f}, train-val gap {100 * result.train_val_gap:+.1f} points
- {result.verdict}: {explain(result)}
- {result.parameters:,} parameters, trained in {result.precision}

On a test split:

{tests or "- never evaluated there, as far as is recorded"}

| class | recall on the validation images |
|---|---|
{recall}
"""


def _code(value: object) -> str:
    """A value as code, where Markdown means nothing, in a table's cell or a sentence."""
    text = printable(str(value)).replace("\n", " ").replace("`", "'").replace("|", "\\|")
    return f"`{text}`"
