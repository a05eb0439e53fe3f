"""A small GraphQL: answers exactly the fields that W&B's clients select.

Answering by field instead of by operation name keeps the stand-in honest: a client that asks for a field the server
does not have gets the error a real server gives, and a new operation over known fields works without a change here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.standin.graphql_document import MISSING, GraphQLError, Parser, Selection, Variable

Fields = Mapping[str, Any]
"""A GraphQL object: its fields by name, each a value or a function of the field's arguments."""


@dataclass
class Execution:
    """One operation under way: its variables, its fragments, and where in the answer it is."""

    variables: Mapping[str, Any]
    fragments: Mapping[str, Selection]
    path: list[str] = field(default_factory=list)

    def fill(self, value: Any) -> Any:
        """A value with its variables put in; a variable that was not sent takes its key away."""
        if isinstance(value, Variable):
            return self.variables.get(value.name, MISSING)
        if isinstance(value, list):
            return [filled for item in value if (filled := self.fill(item)) is not MISSING]
        if isinstance(value, dict):
            return {key: filled for key, item in value.items() if (filled := self.fill(item)) is not MISSING}
        return value

    def wanted(self, selection: Selection) -> bool:
        skip = self.fill(dict(selection.directives.get("skip", {}))).get("if", False)
        include = self.fill(dict(selection.directives.get("include", {}))).get("if", True)
        return bool(include) and not skip

    def flat(self, value: Fields, selections: Sequence[Selection]) -> list[Selection]:
        """The fields to answer for this object, fragments resolved; one without a type's name takes them all."""
        typename = value.get("__typename", "")
        found: list[Selection] = []
        for selection in filter(self.wanted, selections):
            if selection.name:
                found.append(selection)
                continue
            if selection.spread and selection.spread not in self.fragments:
                raise GraphQLError(f'Unknown fragment "{selection.spread}".')
            fragment = self.fragments[selection.spread] if selection.spread else selection
            if not fragment.on or not typename or fragment.on == typename:
                found += self.flat(value, fragment.selections)
        return found

    def answer(self, value: Any, selections: Sequence[Selection]) -> Any:
        if isinstance(value, list):
            return [self.answer(item, selections) for item in value]
        if value is None or not selections:
            return value
        if not isinstance(value, Mapping):
            raise GraphQLError(f'Field "{self.path[-1]}" must not have a selection.')
        result: dict[str, Any] = {}
        for selection in self.flat(value, selections):
            self.path.append(selection.alias)
            below = self.answer(self.resolve(value, selection), selection.selections)
            self.path.pop()
            before = result.get(selection.alias)  # a field selected in two fragments
            result[selection.alias] = {**before, **below} if isinstance(before, dict) and below else below
        return result

    def resolve(self, value: Fields, selection: Selection) -> Any:
        if selection.name not in value:
            if selection.name == "__typename":
                return "Connection"
            raise GraphQLError(f'Cannot query field "{selection.name}" on type "{value.get("__typename", "Object")}".')
        found = value[selection.name]
        if not callable(found):
            return found
        arguments = self.fill(dict(selection.arguments))
        try:
            inspect.signature(found).bind(**arguments)
        except TypeError as error:
            raise GraphQLError(f'Field "{selection.name}": {error}.') from None
        return found(**arguments)


def operation_name(payload: Mapping[str, Any]) -> str:
    """The operation's name, from the payload or from its document; '' where it has none."""
    if payload.get("operationName"):
        return str(payload["operationName"])
    match = re.search(r"\b(?:query|mutation)\s+(\w+)", str(payload.get("query", "")))
    return match.group(1) if match else ""


def execute(payload: Mapping[str, Any], roots: Mapping[str, Fields]) -> tuple[int, dict[str, Any]]:
    """Answer one GraphQL request: the HTTP status and the body."""
    path: list[str] = []
    try:
        operations, fragments = Parser(str(payload.get("query", ""))).document()
        name = payload.get("operationName")
        chosen = [operation for operation in operations if not name or operation.name == name]
        if not chosen or chosen[0].kind not in roots:
            raise GraphQLError("Must provide an operation.")
        sent = payload.get("variables") or {}
        variables = {key: sent.get(key, default) for key, default in chosen[0].defaults.items()}
        execution = Execution({k: v for k, v in variables.items() if v is not MISSING}, fragments, path)
        return 200, {"data": execution.answer(roots[chosen[0].kind], chosen[0].selections)}
    except GraphQLError as error:
        return error.status, {"errors": [error.as_json(path)], "data": dict.fromkeys(path[:1]) or None}
