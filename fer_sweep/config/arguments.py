"""Trial parameters on a command line: ``--lr 0.05 --augment.flip=false --augment='{"shift": 0.1}'``.

It also reads what the stock ``wandb agent`` passes: booleans as ``True``, and a nested parameter as one Python or JSON
dictionary.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fer_sweep.config.trial import FIELDS, suggest
from fer_sweep.errors import ConfigError, InputError, Problem


def parse_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Read ``--name value`` and ``--name=value`` pairs.

    >>> parse_arguments(["--lr", "0.05", "--batch-size=64", "--drop-val-copies"])
    {'lr': '0.05', 'batch_size': '64', 'drop_val_copies': True}

    Returns:
        Dotted names to values: text that ``parse_trial`` reads by the field's type, True for a bare boolean
        option, and a dictionary for a nested group. ``-`` and ``_`` in a name are the same.

    Raises:
        InputError: A word without an option.
        ConfigError: An unknown name, or an option without its value.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    groups = {name.partition(".")[0] for name in FIELDS if "." in name}
    for name, text in _pairs(arguments):
        if name in groups:
            values[name] = _group(name, text)
        elif name not in FIELDS:
            problems.append(Problem("no such option", key=f"--{name}", hint=suggest(name, list(FIELDS))))
        elif text is not None:
            values[name] = text
        elif FIELDS[name].annotation is bool:
            values[name] = True
        else:
            problems.append(Problem("needs a value", key=f"--{name}"))
    if problems:
        raise ConfigError(problems, hint="fersweep train --help lists the options")
    return values


def option_lines() -> Iterator[tuple[str, str]]:
    """Every option with the first sentence of its meaning and its default, shared ones once, for ``--help``."""
    for field, info in FIELDS.items():
        if field != "model":
            meaning = " ".join((info.description or "").split()).partition(". ")[0].rstrip(".")
            yield f"--{field}", f"{meaning} [{info.default}]"


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise InputError(
                f"{word!r} is not an option or the value of one", hint="options look like --lr 0.05 or --lr=0.05"
            )
        name, equals, text = word[2:].partition("=")
        value: str | None = text if equals else None
        if not equals and words and not words[0].startswith("--"):
            value = words.pop(0)
        yield name.replace("-", "_"), value


def _group(name: str, text: str | None) -> dict[str, Any]:
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text or "")
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, Mapping):
            return {str(key): item for key, item in value.items()}
    raise ConfigError(
        [Problem(f"{text!r} is not a dictionary", key=f"--{name}", hint=f"such as --{name}='{{\"shift\": 0.1}}'")]
    )
