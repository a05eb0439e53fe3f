"""The job of a Ray driver: the agents' command and resources. Does not import Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """The first message to a driver."""

    sweep: str
    words: tuple[str, ...]
    """The whole command of an agent."""
    environment: Mapping[str, str]
    """The variables that agents get from the command's environment."""
    folder: str
    """The working directory of agents."""
    logs: Mapping[str, str]
    """The log of each agent, by its id."""
    address: str | None
    """The address of the cluster; None for a Ray of this host alone."""
    gpus: float
    cpus: int
    memory: int | None
    """Bytes."""
    resources: Mapping[str, float]

    def wants(self) -> str:
        """The resources of an agent, in words.

        >>> Job("s", (), {}, "", {}, None, 0.5, 4, 2**34, {"fast": 1.0}).wants()
        '4 CPUs, 0.5 GPU, 16 GB of memory, 1 fast'
        """
        return _listed(self.needs())

    def needs(self) -> Mapping[str, float]:
        """The resources of an agent, by Ray's names."""
        own = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory or 0}
        return {**{name: float(amount) for name, amount in own.items() if amount}, **self.resources}


def lacking(job: Job, nodes: Sequence[Mapping[str, float]]) -> str:
    """Why no node, by its total resources, can take an agent; empty if one can.

    >>> lacking(Job("s", (), {}, "", {}, None, 1, 4, None, {}), [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}])
    'no node has 4 CPUs, 1 GPU; the maximum on a node is 8 CPUs, 1 GPU'
    """
    needs = job.needs()
    if any(all(node.get(name, 0.0) >= amount for name, amount in needs.items()) for node in nodes):
        return ""
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in needs}
    return f"no node has {job.wants()}; the maximum on a node is {_listed(most)}"


def _listed(amounts: Mapping[str, float]) -> str:
    """Resources in words."""
    words = []
    for name, amount in amounts.items():
        if name == "memory":
            words.append(f"{amount / 2**30:.3g} GB of memory")
        else:
            several = name in ("CPU", "GPU") and not 0 < amount <= 1
            words.append(f"{amount:g} {name}{'s' if several else ''}")
    return ", ".join(words)
