"""Hints for what people write in place of a sweep file's words: a misspelling, another tool's word, YAML gone wrong.

A hint changes no decision: W&B's validator alone says what is accepted.
"""

import json
import re
import shlex
import unicodedata
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import yaml

FORM_KEYS = ("value", "values", "min", "max", "distribution", "probabilities", "parameters", "q", "mu", "sigma")
"""What stands in a parameter."""

_TOP = {
    "run_cap": "count max_runs max_trials n_trials num_trials trials num_runs runs run_count run_limit budget",
    "method": "algorithm strategy search search_method search_strategy sampler",
    "metric": "objective goal optimize target",
    "early_terminate": "early_stopping early_stop early_termination stopping pruner hyperband",
    "parameters": "params parameter hyperparameters hyperparams search_space space config",
    "program": "script entrypoint entry_point",
    "name": "sweep_name title",
}
_FORM = {
    "values": "choices choice options list categories grid",
    "value": "default const constant fixed",
    "min": "low lower minimum from start lower_bound",
    "max": "high upper maximum to end stop upper_bound",
    "distribution": "type dist sampling",
    "q": "step quantum",
}
_DISTRIBUTION = {
    "categorical": "choice choices options list values enum",
    "int_uniform": "randint int integer rand_int range int_range uniform_int quniform_int suggest_int",
    "uniform": "float real double suggest_float rand continuous",
    "log_uniform_values": "log logarithmic log_scale reciprocal",
    "normal": "gaussian gauss randn",
    "log_normal": "loggaussian",
    "constant": "const fixed single value",
}
"""Our word, and other tools' words for it."""


def _meant(word: str, ours: Mapping[str, str]) -> str | None:
    plain = word.strip().strip(":：").strip().lower().replace("-", "_")
    return next((name for name, others in ours.items() if plain == name or plain in others.split()), None)


def unknown_key(key: str) -> str | None:
    """The hint for an unknown key at the top of a sweep file."""
    if odd := odd_character(key):
        return odd
    if spaced := missing_space(key):
        return spaced
    meant = _meant(key, _TOP)
    if meant == "metric":
        return f"write {metric('best_val_acc')}"
    return f"did you mean {meant}?" if meant else None


def distribution(name: str, known: list[str]) -> str | None:
    """The distribution that is meant by a word that names none."""
    near = get_close_matches(name.strip().lower().replace(" ", "_"), known, n=1)
    return _meant(name, _DISTRIBUTION) or (near[0] if near else None)


def parameter(raw: Any) -> str:
    """The hint for what stands in place of a parameter: a scalar, a list, or a dictionary in no form."""
    if raw is None:
        return "give value: or values:, indented below it"
    if not isinstance(raw, Mapping):
        spaced = missing_space(raw) if isinstance(raw, str) else None
        return spaced or f"write {'values' if isinstance(raw, list) else 'value'}: {plain(raw)}"
    usual = "give value, values, min and max, or a distribution"
    for key in map(str, raw):
        if hint := odd_character(key) or missing_space(key):
            return hint
        near = _meant(key, _FORM) or next(iter(get_close_matches(key.strip(": "), FORM_KEYS, n=1, cutoff=0.7)), None)
        if near:
            return f"did you mean {near}?"
    if not raw:
        return usual
    first, inner = next(iter(raw.items()))
    inner = plain(inner) if isinstance(inner, Mapping) else f"{{value: {plain(inner)}}}"
    return f"for a group of parameters put parameters: between: {{parameters: {{{first}: {inner}}}}}; else {usual}"


def wrong_type(key: str, given: Any) -> str | None:
    """The hint for a key of a sweep file whose value should be a dictionary."""
    match key, given:
        case "parameters", list():
            return "write the names as keys, without the dashes"
        case "metric", str():
            return f"write {metric(given)}"
        case "metric", list():
            return f"one objective: {metric('best_val_acc')}; several: metrics: [...] with method: custom"
        case "early_terminate", str():
            return "write early_terminate: {type: hyperband, min_iter: 3}"
        case "scheduler", str():
            return "write scheduler: {engine: optuna}"
        case "controller", str():
            return f"write controller: {{type: {plain(given)}}}"
    return None


def metric(name: str) -> str:
    """An objective of this name, as a line of a sweep file."""
    goal = "minimize" if re.search("loss|err|gap|seconds|perplexity|mse|mae", name) else "maximize"
    return f"metric: {{name: {plain(name)}, goal: {goal}}}"


def as_list(name: str | None, given: Any) -> str | None:
    """The hint for a value that is no list; ``name`` is its key."""
    if isinstance(given, Mapping):
        return "write a list, each entry on a line that begins with a dash" if given else None
    if isinstance(given, str) and name == "command":
        try:
            words = shlex.split(given)
        except ValueError:
            words = given.split()
        return f"write a list of words: command: {json.dumps(words, ensure_ascii=False)}"
    entries = [part.strip() for part in given.strip("[]() ").split(",")] if isinstance(given, str) else [plain(given)]
    return f"write {name}: [{', '.join(entries)}]"


def plain(value: Any) -> str:
    """A value as YAML in one line.

    >>> plain({"value": "a: b"}), plain([1, True])
    ("{value: 'a: b'}", '[1, true]')
    """
    try:
        return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=1_000_000, allow_unicode=True)[
            1:-2
        ]
    except yaml.YAMLError:  # a value of Python's that YAML has not
        return repr(value)


def unquoted(value: Any) -> str | None:
    """The hint for a number in quotes."""
    if not isinstance(value, str):
        return None
    try:
        float(value)
    except ValueError:
        return None
    return f"write it without quotes: {value.strip()}"


def missing_space(text: str) -> str | None:
    """The hint for ``value:3``, which YAML reads as one word."""
    found = re.fullmatch(r"\s*([A-Za-z_][\w.-]*):([^\s:/].*)", text)
    return f"put a space after the colon: {found[1]}: {found[2]}" if found else None


def odd_character(text: str) -> str | None:
    """The hint for text with a space or punctuation mark that looks like YAML's and is not."""
    odd = next(_odd(text), None)
    if odd is None:
        return None
    called = f"{unicodedata.name(odd, 'a character').lower()} (U+{ord(odd):04X})"
    if not odd.isspace() and unicodedata.category(odd) != "Cf":
        return f"it has a {called}: type a plain {_PLAIN[odd]}"
    where = "the line begins with" if text[0] == odd else "it has"
    return f"{where} a {called}: type plain spaces"


_PLAIN = {"：": ":", "﹕": ":", "，": ",", "、": ",", "｛": "{", "｝": "}", "［": "[", "］": "]"}
_PLAIN |= {"“": '"', "”": '"', "‘": "'", "’": "'", "－": "-", "＃": "#"}


def _odd(text: str) -> Iterator[str]:
    for character in text:
        if character in _PLAIN or (character != " " and unicodedata.category(character) in ("Zs", "Cf")):
            yield character


def of_yaml(error: str, text: str, line: int | None, opened: tuple[int, int] | None, column: int) -> str | None:
    """The hint for text that is not YAML.

    Args:
        error: What PyYAML says.
        text: The whole text.
        line: Of the error, from 1.
        opened: Line, from 1, and column of the block that the error is in; None if it is in none.
        column: Of the error.
    """
    if "\\t" in error:
        return "indent with spaces, not tabs"
    if "expected a single document" in error:
        return "one document a file: remove the --- line"
    lines = text.splitlines()
    near = [number for number in (opened[0] if opened else None, line) if number and number <= len(lines)]
    # Where PyYAML stops may be a line or two behind the cause.
    for number in [*near, *range(1, len(lines) + 1)]:
        code = lines[number - 1].partition(" #")[0]
        if (hint := odd_character(code)) and not code.lstrip().startswith("#"):
            return f"line {number}: {hint}"
    for number in [*near, *(number - 1 for number in near if number > 1)]:
        if spaced := missing_space(lines[number - 1].partition(" #")[0].strip()):
            return f"line {number}: {spaced}"
    if opened and line and re.search(r"expected <block end>, but found '(<block|\?|-)", error):
        return (
            f"line {line} is indented by {column}, and line {opened[0]}, where its block begins, by {opened[1]}: "
            "indent what belongs together alike"
        )
    if "mapping values are not allowed" in error:
        return "quote a text that has a colon and a space, or correct the indentation of this line"
    if "<stream end>" in error or "expected ',' or" in error:
        return "close every bracket, brace and quote, and put commas between the entries"
    if "undefined alias" in error:
        return "give the anchor (&name) on a line above"
    if "cannot start any token" in error:
        return "quote a text that begins with @, ` or %"
    return None


def anchored(key: str, value: Any, parameters: Any) -> bool:
    """Whether an unknown key at the top of a file is there only to be reused in the parameters."""
    return key.startswith(("x-", ".")) or (
        bool(value) and isinstance(value, Mapping | list) and _occurs(value, parameters)
    )


def _occurs(value: Any, where: Any) -> bool:
    """Whether a value is somewhere in another one, or merged into it."""
    if isinstance(where, Mapping):
        is_merged = isinstance(value, Mapping) and value.items() <= where.items()
        return is_merged or any(_occurs(value, item) for item in where.values())
    return bool(value == where)
