"""Read a YAML file: plain data, the line of every key, and every problem found.

PyYAML's safe loading, as in W&B, with three changes: ``1e-4`` and ``3e6`` are numbers (as in YAML 1.2), a date stays
text, and a key given twice is an error.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from fer_sweep.config import hints
from fer_sweep.errors import Problem, SweepFileError

LARGEST_FILE = 256_000
"""Bytes. A sweep file of a thousand lines has about 40,000; PyYAML reads 100,000 a second."""
LARGEST_TREE = 100_000
"""Values after aliases are expanded; stops a few lines of aliases from growing to gigabytes."""
DEEPEST = 64
"""Levels of nesting."""

_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates, and with numbers such as 1e-4."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


@dataclass
class Document:
    """A parsed file."""

    data: Any
    """Plain dictionaries, lists and scalars."""
    lines: dict[str, int]
    """Line of every key and list item by its dotted path, such as ``parameters.lr.values.2``, from 1."""


NEEDS = "a sweep file needs method and parameters"
"""The hint for an empty file."""


def read_document(path: Path, *, needs: str = NEEDS) -> Document:
    """Read a YAML file; ``needs`` is the hint for an empty one.

    Raises:
        SweepFileError: It cannot be read, is not text, not YAML, too large, or gives a key twice.
    """
    try:
        if path.is_dir():
            raise _error(path, "is a folder: name the file in it")
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            raise _error(path, f"is larger than {LARGEST_FILE // 1000} kB", hint=needs)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise _error(path, "no such file", hint=_similar_files(path)) from None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _error(path, "is not UTF-8 text", line=line, hint="save the file as UTF-8") from None
    except (OSError, ValueError) as error:  # a ValueError is a NUL in the name
        raise _error(path, f"cannot be read: {error}") from None
    return parse_document(text, source=str(path), needs=needs)


def parse_document(text: str, *, source: str, needs: str = NEEDS) -> Document:
    """Parse YAML text; ``source`` names it in errors, ``needs`` is the hint for an empty one.

    Raises:
        SweepFileError: It is not YAML, too large, or gives a key twice.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise _error(source, "is empty", hint=needs)
        builder = _Builder(loader, source)
        data = builder.build(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column) if mark else (None, 0)
        opened = (error.context_mark.line + 1, error.context_mark.column) if error.context_mark else None
        hint = hints.of_yaml(what, text, line, opened, column)
        raise _error(source, f"is not YAML: {what}", line=line, hint=hint) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise _error(source, "has a character that YAML does not allow", line=line, hint="is it a text file?") from None
    except RecursionError:
        raise _error(source, f"is nested deeper than {DEEPEST} levels") from None
    if builder.problems:
        raise SweepFileError(source, builder.problems)
    return Document(data, builder.lines)


@dataclass
class _Builder:
    """Turns PyYAML's nodes into plain data and lines; collects problems and stops at the limits."""

    loader: _Loader
    source: str
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    count: int = 0

    def build(self, node: yaml.Node, path: tuple[str, ...]) -> Any:
        self.count += 1
        if self.count > LARGEST_TREE:
            raise _error(self.source, f"has more than {LARGEST_TREE} values once its aliases are expanded")
        if len(path) > DEEPEST:
            message, line = f"is nested deeper than {DEEPEST} levels", node.start_mark.line + 1
            hint = "an alias inside its own anchor has no end"
            raise _error(self.source, message, key=".".join(path[:3]), line=line, hint=hint)
        if node.tag not in _CORE_TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            return self._refuse(f"the tag {tag} is not allowed", node, path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, child in enumerate(node.value):
                place = (*path, str(index))
                self.lines.setdefault(".".join(place), child.start_mark.line + 1)
                items.append(self.build(child, place))
            return items
        try:
            value = self.loader.construct_object(node)
            str(value).encode()  # fails for what cannot be written again: 0xfff... of any length, "\ud800"
            return value
        # A tag that does not fit (!!bool maybe), an integer of 5,000 digits, 1:1:1... in base 60 beyond any float.
        except (ValueError, KeyError, OverflowError):
            return self._refuse(f"{node.value[:40]!r} cannot be read as a value", node, path)

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        first_line: dict[Any, int] = {}  # by the key itself: 1 and true are one key of a dictionary
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                for part in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    other = self.build(part, path)
                    if isinstance(other, dict):
                        merged = {**other, **merged}
                    else:
                        self._refuse("<< merges only dictionaries", part, path)
                continue
            key = self.build(key_node, path)
            place = (*path, str(key))
            if not isinstance(key, Hashable):
                self._refuse("a key must be a name", key_node, path)
            elif key in own:
                message = f"given twice: on line {first_line[key]} and on line {line}"
                self._refuse(message, key_node, place, hint="keep one of them")
            else:
                first_line[key] = self.lines[".".join(place)] = line
                own[key] = self.build(value_node, place)
        return {**merged, **own}

    def _refuse(self, message: str, node: yaml.Node, path: tuple[str, ...], hint: str | None = None) -> None:
        self.problems.append(Problem(message, key=".".join(path), line=node.start_mark.line + 1, hint=hint))


def _error(source: str | Path, message: str, **where: Any) -> SweepFileError:
    return SweepFileError(str(source), [Problem(message, **where)])


def _similar_files(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"there is no folder {path.parent}"
    near = get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / near[0]}?" if near else None
