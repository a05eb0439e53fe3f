"""Connect to a Ray cluster, or start a Ray of this host alone."""

import os
import socket
from typing import Any

from fer_sweep.errors import PoolError
from fer_sweep.pools.ray_job import Job, lacking

REACH_S = 10.0
"""Timeout of a connection to the head node, in seconds."""
_HINTS = {
    True: "run this on a node of the cluster, where `ray status` works, with the same versions of Python and Ray; "
    "or start a cluster with `ray start --head`; or leave the address out for a Ray of this host alone",
    False: "see the logs below /tmp/ray",
}


def connect(ray: Any, job: Job) -> None:
    """Connect to the Ray of a job.

    Raises:
        PoolError: It is not reachable, or this host alone lacks the resources.
    """
    _check_reachable(job.address)
    try:
        if job.address is None:
            # Agents keep nothing in the object store; it has a least size.
            ray.init("local", include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
        else:
            ray.init(job.address, log_to_driver=False)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        first = " ".join(str(error).split())[:300]
        if "Could not find any running Ray" in first:  # Ray's own advice does not apply
            raise PoolError("no Ray cluster found on this host", hint=_HINTS[True]) from error
        raise PoolError(f"cannot connect to Ray: {first}", hint=_HINTS[job.address is not None]) from error
    if job.address is None and (lack := lacking(job, [node["Resources"] for node in ray.nodes()])):
        raise PoolError(f"on this host {lack}", hint="request less in the pool file: gpus: 0 trains on CPU cores")


def _check_reachable(address: str | None) -> None:
    """Try to connect to a host and port, as the timeout of Ray itself is minutes.

    Raises:
        PoolError: No process listens there.
    """
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address or ""
    host, colon, port = named.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return  # Ray looks for a cluster on this host, or resolves the name
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except OSError as error:
        hint = "`ray status` on one of its nodes shows the address; 6379 is the usual port"
        raise PoolError(f"cannot connect to Ray at {named}: {error}", hint=hint) from error
