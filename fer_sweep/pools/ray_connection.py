"""Connecting to Ray: to a cluster that answers, or to a Ray of this host alone that has what an agent needs."""

import os
import socket
from typing import Any

from fer_sweep.pools.ray_job import Job, lacking

REACH_S = 10.0
"""Until a host that does not answer is out of reach."""
_HINTS = {
    True: "run it on a node of the cluster, where `ray status` answers, with the Python and the Ray that it has; "
    "`ray start --head` makes this host one; a pool file without address starts a Ray of this host alone",
    False: "the log folder below /tmp/ray says why",
}


class Refusal(Exception):
    """Nothing can be started, for a reason that a person can act on."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def connect(ray: Any, job: Job) -> None:
    """Open Ray.

    Raises:
        Refusal: It cannot be had.
    """
    _see_that_it_answers(job.address)
    try:
        if job.address is None:
            # Agents keep nothing in the object store; it has a least size.
            ray.init("local", include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
        else:
            ray.init(job.address, log_to_driver=False)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        first = " ".join(str(error).split())[:300]
        if "Could not find any running Ray" in first:  # what it advises is for others
            raise Refusal("this host is no node of a Ray cluster", _HINTS[True]) from error
        raise Refusal(f"Ray cannot be had: {first}", _HINTS[job.address is not None]) from error
    if job.address is None and (lack := lacking(job, [node["Resources"] for node in ray.nodes()])):
        raise Refusal(f"here {lack}", "ask for less in the pool file: gpus: 0 trains on CPU cores")


def _see_that_it_answers(address: str | None) -> None:
    """Try a host and port, for Ray itself takes minutes to give up.

    Raises:
        Refusal: Nothing listens there.
    """
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address or ""
    host, colon, port = named.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return  # Ray itself looks for one on this host, or knows what it is
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except OSError as error:
        hint = "`ray status` on one of its nodes shows the address; 6379 is the usual port"
        raise Refusal(f"no Ray answers at {named}: {error}", hint) from error
