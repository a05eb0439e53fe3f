"""GraphQL documents: what the clients' texts say, as operations, fragments and selections."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOKENS = re.compile(
    r'(?P<skip>[\s,\ufeff]+|\#[^\n]*)|(?P<block>"""(?:.(?!"""))*."""|"{6})|(?P<string>"(?:[^"\\\n]|\\.)*")'
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<name>[_A-Za-z]\w*)|(?P<mark>\.\.\.|[!$&()\[\]{}:=@|])",
    re.DOTALL,
)
MISSING = object()  # a variable the client did not send: its argument is left out, as the specification asks


class GraphQLError(Exception):
    """An error for the `errors` list; `status` is the HTTP status it travels with."""

    def __init__(self, message: str, *, status: int = 200, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code

    def as_json(self, path: Sequence[str]) -> dict[str, Any]:
        error: dict[str, Any] = {"message": self.message, "path": list(path)}
        if self.code:
            error["extensions"] = {"code": self.code}
        return error


@dataclass(frozen=True)
class Variable:
    name: str


@dataclass(frozen=True)
class Selection:
    """A field, a fragment spread (`spread`), or an inline fragment (neither name nor spread)."""

    name: str = ""
    alias: str = ""
    spread: str = ""
    on: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    directives: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    selections: tuple[Selection, ...] = ()


@dataclass(frozen=True)
class Operation:
    kind: str
    name: str
    defaults: Mapping[str, Any]
    selections: tuple[Selection, ...]


class Parser:
    """Recursive descent over the tokens of one document."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            match = TOKENS.match(text, position)
            if match is None:
                raise GraphQLError(f"Syntax Error: Cannot parse the unexpected character {text[position]!r}.")
            if match.lastgroup != "skip":
                self.tokens.append((str(match.lastgroup), match.group()))
            position = match.end()
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position][1] if self.position < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        text = self.peek()
        if not text or (expected is not None and text != expected):
            raise GraphQLError(f"Syntax Error: Expected {expected or 'more'}, found {text or '<EOF>'}.")
        self.position += 1
        return text

    def accept(self, text: str) -> bool:
        if self.peek() != text:
            return False
        self.position += 1
        return True

    def document(self) -> tuple[list[Operation], dict[str, Selection]]:
        operations: list[Operation] = []
        fragments: dict[str, Selection] = {}
        while self.peek():
            if self.accept("fragment"):
                name = self.take()
                self.take("on")
                on = self.take()
                self.directives()
                fragments[name] = Selection(on=on, selections=self.selections())
                continue
            kind, name, defaults = "query", "", {}
            if self.peek() != "{":
                kind = self.take()
                if kind not in ("query", "mutation", "subscription"):
                    raise GraphQLError(f"Syntax Error: Unexpected Name {kind!r}.")
                if self.peek() not in ("(", "{", "@"):
                    name = self.take()
                defaults = self.variable_definitions()
                self.directives()
            operations.append(Operation(kind, name, defaults, self.selections()))
        return operations, fragments

    def variable_definitions(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {}
        if self.accept("("):
            while not self.accept(")"):
                self.take("$")
                name = self.take()
                self.take(":")
                while self.peek() in ("[", "]", "!") or self.tokens[self.position][0] == "name":
                    self.take()
                defaults[name] = self.value() if self.accept("=") else MISSING
        return defaults

    def selections(self) -> tuple[Selection, ...]:
        self.take("{")
        found = []
        while not self.accept("}"):
            found.append(self.selection())
        return tuple(found)

    def selection(self) -> Selection:
        if self.accept("..."):
            if self.peek() not in ("on", "{", "@"):
                return Selection(spread=self.take(), directives=self.directives())
            on = self.take() if self.accept("on") else ""
            return Selection(on=on, directives=self.directives(), selections=self.selections())
        name = alias = self.take()
        if self.accept(":"):
            name = self.take()
        arguments = self.arguments()
        directives = self.directives()
        below = self.selections() if self.peek() == "{" else ()
        return Selection(name=name, alias=alias, arguments=arguments, directives=directives, selections=below)

    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.accept("("):
            while not self.accept(")"):
                name = self.take()
                self.take(":")
                found[name] = self.value()
        return found

    def directives(self) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        while self.accept("@"):
            name = self.take()
            found[name] = self.arguments()
        return found

    def value(self) -> Any:
        if self.accept("$"):
            return Variable(self.take())
        if self.accept("["):
            items = []
            while not self.accept("]"):
                items.append(self.value())
            return items
        if self.accept("{"):
            pairs: dict[str, Any] = {}
            while not self.accept("}"):
                name = self.take()
                self.take(":")
                pairs[name] = self.value()
            return pairs
        kind = self.tokens[self.position][0] if self.position < len(self.tokens) else ""
        text = self.take()
        if kind == "block":
            return text[3:-3]
        if kind in ("string", "number"):
            return json.loads(text)
        return {"true": True, "false": False, "null": None}.get(text, text)  # any other name is an enum's value
