"""Connect to a Ray cluster, or start a Ray of this host alone; what an agent needs of a node."""

import logging
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from fer_sweep.config.pool_file import RayPool
from fer_sweep.errors import PoolError

REACH_S = 10.0
"""Timeout of a connection to the head node, in seconds."""
ANSWER_S = 120.0
"""Timeout of Ray's own start: a Ray of this host takes 5 s, and ten times that on busy cores."""
_UNITS = {unit: 1024**power for power, unit in enumerate("KMGT", 1)}
_NO_CLUSTER = (
    "run this on a node of the cluster, where `ray status` works, with the same versions of Python and Ray; "
    "or start a cluster with `ray start --head`; or leave the address out for a Ray of this host alone"
)
"""The hint where a cluster cannot be reached."""


def import_ray() -> Any:
    """The module ``ray``.

    Raises:
        PoolError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise PoolError("Ray is not installed", hint="pip install 'fersweep[ray]', here and on all nodes") from None
    return ray


def connect(ray: Any, pool: RayPool) -> None:
    """Connect to the Ray of a pool, or start one if it has no address.

    Raises:
        PoolError: It is not reachable, or this host alone lacks the resources.
    """
    is_local = pool.address is None
    _check_reachable(pool.address)
    # Agents keep nothing in the object store; it has a least size.
    of_local = {"include_dashboard": False, "object_store_memory": 80 * 2**20} if is_local else {}
    started: Future[None] = Future()

    def start() -> None:
        try:
            ray.init(pool.address or "local", log_to_driver=False, logging_level=logging.ERROR, **of_local)
            started.set_result(None)
        except BaseException as error:
            started.set_exception(error)
        threading.Event().wait()  # the processes of a local Ray end with the thread that has started them

    # In a thread: in the main one Ray would handle SIGTERM, and a cluster that does not answer is tried for minutes.
    threading.Thread(target=start, daemon=True, name="ray").start()
    try:
        started.result(ANSWER_S)
    except TimeoutError as error:
        raise PoolError("Ray does not respond", hint="`ray status` shows the cluster") from error
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        first = " ".join(str(error).split())[:300]
        if "Could not find any running Ray" in first:  # Ray's own advice does not apply
            raise PoolError("no Ray cluster found on this host", hint=_NO_CLUSTER) from error
        hint = "see the logs below /tmp/ray" if is_local else _NO_CLUSTER
        raise PoolError(f"cannot connect to Ray: {first}", hint=hint) from error
    if is_local and (lack := lacking(pool, [node["Resources"] for node in ray.nodes()])):
        raise PoolError(f"on this host {lack}", hint="request less in the pool file: gpus: 0 trains on CPU cores")


def memory_bytes(pool: RayPool) -> int | None:
    """The memory of an agent; None if the pool file does not say."""
    return int(pool.memory[:-1]) * _UNITS[pool.memory[-1]] if pool.memory else None


def wanted(pool: RayPool) -> str:
    """The resources of an agent, in words.

    >>> wanted(RayPool(kind="ray", gpus=0.5, cpus=4, memory="16G", resources={"fast": 1.0}))
    '4 CPUs, 0.5 GPU, 16 GB of memory, 1 fast'
    """
    return _listed(_needs(pool))


def lacking(pool: RayPool, nodes: Sequence[Mapping[str, float]]) -> str:
    """Why no node, by its total resources, can take an agent; empty if one can.

    >>> lacking(RayPool(kind="ray", gpus=1, cpus=4), [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}])
    'no node has 4 CPUs, 1 GPU; the maximum on a node is 8 CPUs, 1 GPU'
    """
    needs = _needs(pool)
    if any(all(node.get(name, 0.0) >= amount for name, amount in needs.items()) for node in nodes):
        return ""
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in needs}
    return f"no node has {_listed(needs)}; the maximum on a node is {_listed(most)}"


def _needs(pool: RayPool) -> Mapping[str, float]:
    """The resources of an agent, by Ray's names."""
    own = {"CPU": pool.cpus, "GPU": pool.gpus, "memory": memory_bytes(pool) or 0}
    return {**{name: float(amount) for name, amount in own.items() if amount}, **pool.resources}


def _listed(amounts: Mapping[str, float]) -> str:
    words = []
    for name, amount in amounts.items():
        if name == "memory":
            words.append(f"{amount / 2**30:.3g} GB of memory")
        else:
            several = name in ("CPU", "GPU") and not 0 < amount <= 1
            words.append(f"{amount:g} {name}{'s' if several else ''}")
    return ", ".join(words)


def _check_reachable(address: str | None) -> None:
    # The timeout of Ray itself is minutes.
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address or ""
    host, colon, port = named.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return  # Ray looks for a cluster on this host, or resolves the name
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except OSError as error:
        hint = "`ray status` on one of its nodes shows the address; 6379 is the usual port"
        raise PoolError(f"cannot connect to Ray at {named}: {error}", hint=hint) from error
