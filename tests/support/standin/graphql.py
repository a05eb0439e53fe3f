"""A small GraphQL: answers exactly the fields that W&B's clients select.

Answering by field instead of by operation name keeps the stand-in honest: a client that asks for a field the server
does not have gets the error a real server gives, and a new operation over known fields works without a change here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.support.standin.graphql_document import MISSING, GraphQLError, Parser, Selection, Variable

Method = TypeVar("Method", bound=Callable[..., Any])


def resolves(function: Method) -> Method:
    """Mark a method as a GraphQL field of its type; what is not marked cannot be asked for."""
    function.__graphql__ = True  # type: ignore[attr-defined]
    return function


class Node:
    """A GraphQL object: its fields are its methods marked with `resolves`."""

    typename = ""

    def resolve(self, name: str, arguments: Mapping[str, Any]) -> Any:
        method = getattr(self, name, None)
        if method is None or not getattr(method, "__graphql__", False):
            raise GraphQLError(f'Cannot query field "{name}" on type "{self.typename or type(self).__name__}".')
        try:
            inspect.signature(method).bind(**arguments)
        except TypeError as error:
            raise GraphQLError(f'Field "{name}" of type "{self.typename}": {error}.') from None
        return method(**arguments)


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

    def flat(self, node: Node | Mapping[str, Any], selections: Sequence[Selection]) -> list[Selection]:
        """The fields to answer for this node, fragments resolved."""
        typename = node.typename if isinstance(node, Node) else node.get("__typename", "")
        found: list[Selection] = []
        for selection in selections:
            if not self.wanted(selection):
                continue
            if selection.name:
                found.append(selection)
                continue
            fragment = selection
            if selection.spread:
                if selection.spread not in self.fragments:
                    raise GraphQLError(f'Unknown fragment "{selection.spread}".')
                fragment = self.fragments[selection.spread]
            interfaces = getattr(node, "interfaces", ())
            if not fragment.on or not typename or fragment.on == typename or fragment.on in interfaces:
                found += self.flat(node, fragment.selections)
        return found

    def answer(self, value: Any, selections: Sequence[Selection]) -> Any:
        if isinstance(value, list | tuple):
            return [self.answer(item, selections) for item in value]
        if value is None or not selections:
            return value
        if not isinstance(value, Node | Mapping):
            raise GraphQLError(f'Field "{self.path[-1]}" must not have a selection.')
        result: dict[str, Any] = {}
        for selection in self.flat(value, selections):
            self.path.append(selection.alias)
            resolved = self.resolve(value, selection)
            below = self.answer(resolved, selection.selections)
            self.path.pop()
            before = result.get(selection.alias)
            result[selection.alias] = merged(before, below) if isinstance(before, dict) else below
        return result

    def resolve(self, value: Node | Mapping[str, Any], selection: Selection) -> Any:
        if isinstance(value, Node):
            if selection.name == "__typename":
                return value.typename
            return value.resolve(selection.name, self.fill(dict(selection.arguments)))
        if selection.name not in value:
            if selection.name == "__typename":
                return "Connection"
            raise GraphQLError(f'Cannot query field "{selection.name}" here.')
        return value[selection.name]


def merged(first: dict[str, Any], second: Any) -> Any:
    """Two answers for the same key (a field selected in two fragments) as one."""
    return {**first, **second} if isinstance(second, dict) else second


def operation_name(payload: Mapping[str, Any]) -> str:
    """The operation's name, from the payload or from its document; '' where it has none."""
    if payload.get("operationName"):
        return str(payload["operationName"])
    match = re.search(r"\b(?:query|mutation)\s+(\w+)", str(payload.get("query", "")))
    return match.group(1) if match else ""


def execute(payload: Mapping[str, Any], roots: Mapping[str, Node]) -> tuple[int, dict[str, Any]]:
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
