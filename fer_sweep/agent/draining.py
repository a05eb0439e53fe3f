"""``fersweep drain``: free a slot of a running agent for another user, and let the agent use it again.

An agent describes itself in ``agents/NAME.json`` of its sweep's folder: its owner name, its slots, and those it has
freed. The command writes beside it, in ``NAME.drain``, which slots to free; the agent reads that every second. The
files of a dead agent mean nothing, since they name their owner.
"""

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fer_sweep.errors import InputError, NothingToDo, StorageError
from fer_sweep.files import home, read_object, write_atomically
from fer_sweep.owners import is_dead, on_this_host


class Drains:
    """An agent's side: which of its slots are drained."""

    def __init__(self, folder: Path | None = None, slots: Sequence[str] = (), owner: str = "") -> None:
        """Drain none.

        Args:
            folder: The sweep's; None without one, where no request can arrive.
            slots: The names of the agent's slots.
            owner: The agent's name among all agents.
        """
        name = hashlib.sha256(owner.encode()).hexdigest()[:16]
        self._file = None if folder is None else folder / "agents" / f"{name}.json"
        self._about = {"owner": owner, "slots": list(slots)}
        self._free: set[str] = set()
        self._asked: dict[str, bool] = {}

    def __enter__(self) -> Self:
        if self._file is not None:
            for _, file in _described(self._file.parent.glob("*.json"), dead=True):
                _remove(file)
            write_atomically(self._file, json.dumps({**self._about, "free": []}))
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            _remove(self._file)

    @property
    def slots(self) -> Collection[str]:
        """Those that take no further trial."""
        return self._asked.keys()

    def at_once(self, slot: str) -> bool:
        """Whether a slot's trial is to be checkpointed and stopped."""
        return self._asked.get(slot, False)

    def read(self, busy: Mapping[str, str]) -> Sequence[str]:
        """Read what is asked for, and answer; returns a note on each change.

        Args:
            busy: The trial that runs in a slot, by its name.
        """
        if self._file is None:
            return ()
        asked = {slot: now is True for slot, now in read_object(self._file.with_suffix(".drain")).items()}
        notes = [f"slot {slot} is no longer drained" for slot in self._asked.keys() - asked.keys()]
        for slot in [slot for slot in asked.keys() & busy.keys() if asked[slot] != self._asked.get(slot)]:
            how = "once it is checkpointed" if asked[slot] else "after it"
            notes.append(f"slot {slot} is drained: trial {busy[slot]} runs there, and the slot is free {how}")
        free = asked.keys() - busy.keys()
        notes += [
            f"slot {slot} is drained and free; to undo: fersweep drain --undo {slot}" for slot in free - self._free
        ]
        self._asked = asked
        if free != self._free:
            self._free = set(free)
            with contextlib.suppress(StorageError):  # a full disk: the slot is free all the same
                write_atomically(self._file, json.dumps({**self._about, "free": sorted(free)}))
        return sorted(notes)


@dataclass(frozen=True)
class Drained:
    """A slot that ``drain`` was asked for."""

    sweep: str
    slot: str
    file: Path
    """The description of its agent."""

    @property
    def is_free(self) -> bool:
        """Whether no trial runs there any more, or its agent has ended."""
        about = read_object(self.file)
        return not about or self.slot in about.get("free", ())


def drain(word: str, *, now: bool = False, undo: bool = False) -> Sequence[Drained]:
    """Ask the agents on this host to free slots, or to use them again.

    Args:
        word: A slot's name, or the number or name of a GPU with all its slots.
        now: Checkpoint the trials that run there.
        undo: Let the agents use the slots again.

    Raises:
        NothingToDo: No agent runs on this host.
        InputError: No agent has such a slot.
        StorageError: The request cannot be written.
    """
    agents = list(_described((home() / "sweeps").glob("*/agents/*.json"), dead=False))
    if not agents:
        hint = "set FERSWEEP_HOME to that of the agent, or run this in the folder it was started in"
        raise NothingToDo(f"no agent of {home()} runs on this host", hint=hint)
    drained = []
    for about, file in agents:
        request = file.with_suffix(".drain")
        asked = read_object(request)
        if slots := [slot for slot in about["slots"] if is_part(slot, word)]:
            others = {slot: at_once for slot, at_once in asked.items() if slot not in slots}
            write_atomically(request, json.dumps(others if undo else {**others, **dict.fromkeys(slots, now)}))
            drained += [Drained(file.parent.parent.name, slot, file) for slot in slots]
    if not drained:
        known = ", ".join(dict.fromkeys(slot for about, _ in agents for slot in about["slots"]))
        raise InputError(f"no agent on this host has a slot {word}", hint=f"their slots: {known}")
    return drained


def is_part(slot: str, word: str) -> bool:
    """Whether a slot is the named one, or one of several on the named GPU.

    >>> [is_part("gpu1/0", word) for word in ("1", "gpu1", "gpu1/0", "gpu1/1", "0")]
    [True, True, True, False, False]
    >>> is_part("gpu10", "1"), is_part("gpu0:1/0", "0"), is_part("gpu0:1/0", "0:1"), is_part("cpu1", "1")
    (False, True, True, False)
    """
    name = f"gpu{word}" if word[:1].isdigit() else word
    return slot == name or slot.startswith((f"{name}/", f"{name}:"))


def _described(files: Iterator[Path], *, dead: bool) -> Iterator[tuple[dict[str, Any], Path]]:
    """The agents of this host that run, or those that are dead, each with its file."""
    for file in files:
        about = read_object(file)
        owner = str(about.get("owner", ""))
        if owner.startswith(on_this_host()) and is_dead(owner) == dead:
            yield about, file


def _remove(file: Path) -> None:
    for path in (file, file.with_suffix(".drain")):
        with contextlib.suppress(OSError):
            path.unlink()
