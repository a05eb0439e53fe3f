"""GraphQL without a schema: answers exactly the fields that W&B's clients select.

Answering by field instead of by operation name keeps the stand-in honest: a client that asks for a field the server
does not have gets the error a real server gives, and a new operation over known fields works without a change here.
"""

import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import graphql
from graphql import FieldNode, FragmentDefinitionNode, GraphQLError, InlineFragmentNode, SelectionSetNode

Fields = Mapping[str, Any]
"""A GraphQL object: its fields by name, each a value or a function of the field's arguments."""
parse = functools.cache(graphql.parse)


class Refused(GraphQLError):
    """An error that is answered with another HTTP status than 200."""

    def __init__(self, message: str, status: int = 404) -> None:
        super().__init__(message, extensions={"code": "PERMISSION_ERROR"} if status == 403 else None)
        self.status = status


@dataclass
class Execution:
    """One operation under way."""

    variables: Mapping[str, Any]
    """Those that were not sent are None."""
    fragments: Mapping[str, FragmentDefinitionNode]

    def arguments(self, node: Any) -> dict[str, Any]:
        """A field's or directive's arguments but for those that are null."""
        given = {item.name.value: item.value for item in node.arguments or ()}
        values = {name: graphql.value_from_ast_untyped(value, self.variables) for name, value in given.items()}
        return {name: value for name, value in values.items() if value is not None}

    def selected(self, value: Fields, selections: SelectionSetNode) -> Iterator[FieldNode]:
        """The fields to answer for this object, fragments resolved; one without a type's name takes them all."""
        for node in selections.selections:
            conditions = {item.name.value: self.arguments(item)["if"] for item in node.directives or ()}
            if conditions.get("skip") or not conditions.get("include", True):
                continue
            if isinstance(node, FieldNode):
                yield node
            else:
                fragment = node if isinstance(node, InlineFragmentNode) else self.fragments[node.name.value]
                on = fragment.type_condition
                if on is None or value.get("__typename", on.name.value) == on.name.value:
                    yield from self.selected(value, fragment.selection_set)

    def answer(self, value: Any, selections: SelectionSetNode | None) -> Any:
        if isinstance(value, list):
            return [self.answer(item, selections) for item in value]
        if value is None or selections is None:
            return value
        result: dict[str, Any] = {}
        for node in self.selected(value, selections):
            name = (node.alias or node.name).value
            below = self.answer(self.resolve(value, node), node.selection_set)
            before = result.get(name)  # a field selected in two fragments
            result[name] = {**before, **below} if isinstance(before, dict) and below else below
        return result

    def resolve(self, value: Fields, node: FieldNode) -> Any:
        name = node.name.value
        if name not in value:
            if name == "__typename":
                return "Connection"
            raise GraphQLError(f'Cannot query field "{name}" on type "{value.get("__typename", "Object")}".')
        if not callable(value[name]):
            return value[name]
        arguments = self.arguments(node)
        try:
            inspect.signature(value[name]).bind(**arguments)
        except TypeError as error:
            raise GraphQLError(f'Field "{name}": {error}.') from None
        return value[name](**arguments)


def operation_name(payload: Mapping[str, Any]) -> str:
    """The operation's name, from the payload or from its document; '' where it has none."""
    match = re.search(r"\b(?:query|mutation)\s+(\w+)", str(payload.get("query", "")))
    return str(payload.get("operationName") or (match[1] if match else ""))


def execute(payload: Mapping[str, Any], roots: Mapping[str, Fields]) -> tuple[int, dict[str, Any]]:
    """Answer one GraphQL request: the HTTP status and the body."""
    try:
        document = parse(str(payload.get("query", "")))
        operation = graphql.get_operation_ast(document, payload.get("operationName") or None)
        sent = payload.get("variables") or {}
        variables = {}
        for defined in operation.variable_definitions or ():
            usual = defined.default_value and graphql.value_from_ast_untyped(defined.default_value)
            variables[defined.variable.name.value] = sent.get(defined.variable.name.value, usual)
        fragments = {n.name.value: n for n in document.definitions if isinstance(n, FragmentDefinitionNode)}
        root = roots[operation.operation.value]
        return 200, {"data": Execution(variables, fragments).answer(root, operation.selection_set)}
    except GraphQLError as error:
        return getattr(error, "status", 200), {"errors": [error.formatted], "data": None}
