"""Trial parameters on a command line: ``--lr 0.05 --augment.flip=false --augment='{"shift": 0.1}'``.

It also reads what the stock ``wandb agent`` passes: booleans as ``True``, and a nested parameter as one Python or JSON
dictionary.
"""

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from fer_sweep.config.trial import (
    ARCHITECTURES,
    FIELDS,
    SharedConfig,
    TrialConfig,
    describe_fields,
    flatten,
    suggest,
)
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


def train_command(config: TrialConfig) -> str:
    """The command that trains a configuration; it leaves out what is a default.

    >>> from fer_sweep.config.trial import parse_trial
    >>> train_command(parse_trial({"model": "vit", "lr": 0.01, "augment.flip": False}))
    'fersweep train --model vit --lr 0.01 --augment.flip False'
    """
    changed = flatten({"model": config.model, **config.model_dump(mode="json", exclude_defaults=True)})
    words = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in changed.items()]
    return " ".join(["fersweep train", *words])


def option_groups() -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """The options for ``--help``, those of all architectures first: heading, what it is, each option's meaning."""
    shared = dict(describe_fields(SharedConfig))
    yield "All architectures", "", [_option(name, info) for name, info in shared.items()]
    for model, kind in ARCHITECTURES.items():
        own = [(name, info) for name, info in describe_fields(kind) if name not in (*shared, "model")]
        yield model, _sentence(kind.__doc__), [_option(name, info) for name, info in own]


def _option(name: str, info: FieldInfo) -> tuple[str, str]:
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    if info.annotation is bool:
        choices = ("true", "false")
    shown = f"--{name} {'|'.join(map(str, choices))}".rstrip()
    default = "" if info.default is None else f" [{str(info.default).lower() if choices else info.default}]"
    return shown, f"{_sentence(info.description)}{default}"


def _sentence(text: str | None) -> str:
    """The first sentence without its full stop; ``e.g.``, ``i.e.`` and ``et al.`` end none.

    >>> _sentence("Decay, e.g. AdamW's (Loshchilov et al. 2019). SGD has another.")
    "Decay, e.g. AdamW's (Loshchilov et al. 2019)"
    """
    return _END.split(" ".join((text or "").split()))[0].rstrip(".")


_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!\bal)(?<!\bcf)(?<!\bvs)\. (?=[A-Z`])")


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
