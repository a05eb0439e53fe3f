"""What the pool uses of the module ``ray``, in one process: actors are objects here, and a test plays the cluster."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch


class RayError(Exception):
    """An actor has died."""


class ActorUnavailableError(RayError):
    """An actor does not answer for now."""


class RayTaskError(RayError):
    """A method has raised ``cause``."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


@dataclass
class Actor:
    """One of the cluster's; its methods are called once it can answer, unless calls come to an error."""

    object: Any
    is_placed: bool = True
    answers: bool = True
    error: RayError | None = None

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self._call(getattr(self.object, method), arguments))

    def _call(self, method: Any, arguments: tuple[Any, ...]) -> Any:
        if method.__name__ == "tell" and self.answers:  # nobody asks for its answer
            method(*arguments)
        return self, partial(method, *arguments)


@dataclass
class ScriptedRay:
    """The module, with a cluster of one node."""

    made: Callable[[], Any] | None = None
    """Makes what stands in for an actor's object; None for the real class."""
    has_room: bool = True
    """Whether new actors get a place at once."""
    resources: dict[str, float] = field(default_factory=lambda: {"CPU": 8.0, "GPU": 2.0})
    is_alive: bool = True
    """Whether the node is."""
    init_fails: Exception | None = None
    addresses: list[str] = field(default_factory=list)
    """That were connected to."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of each actor."""
    actors: list[Actor] = field(default_factory=list)
    is_shut_down: bool = False

    exceptions = sys.modules[__name__]
    cloudpickle = SimpleNamespace(register_pickle_by_value=lambda module: None)

    def init(self, address: str, **_options: Any) -> None:
        self.addresses.append(address)
        if self.init_fails is not None:
            raise self.init_fails

    def shutdown(self) -> None:
        self.is_shut_down = True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": "n1", "Alive": self.is_alive, "Resources": self.resources}]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "n1")

    def remote(self, given: Callable[[], Any]) -> Any:
        def place() -> Actor:
            self.actors.append(Actor((self.made or given)(), self.has_room))
            return self.actors[-1]

        def options(**options: Any) -> Any:
            self.options = options
            return SimpleNamespace(remote=place)

        return SimpleNamespace(options=options)

    def wait(self, calls: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        ((actor, _),) = calls
        return (calls, []) if actor.error or (actor.is_placed and actor.answers) else ([], calls)

    def get(self, call: Any) -> Any:
        actor, method = call
        if actor.error is not None:
            raise actor.error
        # What Ray's processes have on a node; the command's own environment is not theirs.
        node = {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "0"}
        try:
            with patch.dict(os.environ, node, clear=True):
                return method()
        except OSError as error:
            raise RayTaskError(error) from error

    def kill(self, actor: Actor) -> None:
        actor.answers = False
