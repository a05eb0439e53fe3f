"""An agent in the test's own process: with trials played by threads, or with real trial processes below it."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fer_sweep.agent.loop import Agent
from fer_sweep.agent.running import AgentSummary, HangLimit
from fer_sweep.records import TrialOutcome, TrialRequest
from fer_sweep.search import Search
from fer_sweep.wandb_client.tracking import TrackedRun
from fer_sweep.worker.resources import total_mb
from fer_sweep.worker.slots import Admission, Slot
from fer_sweep.worker.starters import TrialHandle, starter_for
from fer_sweep.worker.starters.spawn import SpawnStarter
from fer_sweep.worker.trial_process import TrialJob
from tests.support.processes import alive
from tests.support.scripted_starter import ScriptedStarter


class RealStarter:
    """Starts real trials as an agent does, and remembers their processes."""

    memory_mb: float | None = None
    """As if this host had so much memory; None for what it has."""
    memory_share: float | None = None
    """Of a GPU's memory, what each trial may take; None for what the agent gives."""

    def __init__(self) -> None:
        self.starter = starter_for(())
        self.pids: list[int] = []
        self.pid_of: dict[str, int] = {}
        """By trial, its latest."""

    def warm_up(self, slot: Slot) -> None:
        self.starter.warm_up(slot)

    def close(self) -> None:
        """A forkserver is left open: starting it takes longer than most tests, and the next one can have it."""
        if isinstance(self.starter, SpawnStarter):
            self.starter.close()

    def start(self, job: TrialJob) -> TrialHandle:
        share = self.memory_share or job.memory_share
        if self.memory_mb is not None and share is not None:
            share *= self.memory_mb / total_mb()
        handle = self.starter.start(replace(job, memory_share=share))
        self.pid_of[job.folder.name] = handle.process.pid
        self.pids.append(handle.process.pid)
        return handle

    @property
    def all_have_ended(self) -> bool:
        return not any(alive(pid) for pid in self.pids)


@dataclass
class View:
    """Keeps what it is shown, and calls back at every epoch and note so that a test can act at that very moment."""

    at_epoch: Callable[[str, int], None] = lambda trial_id, epoch: None
    at_note: Callable[[str], None] = lambda text: None
    started: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    drained: Collection[str] = ()

    def trial_started(self, slot: str, request: TrialRequest) -> None:
        self.started.append(request.trial_id)

    def progress(self, slot: str, share: float) -> None:
        """Shown by the live view only."""

    def epoch(self, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None:
        self.at_epoch(trial_id, int(metrics["epoch"]))

    def trial_ended(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None:
        """Told by the summary."""

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.at_note(text)


class Stage:
    """One agent's surroundings; ``run`` works a search through."""

    def __init__(self, folder: Path, cache: str = "", starter: ScriptedStarter | RealStarter | None = None) -> None:
        self.folder, self.cache = folder, cache
        self.starter: Any = starter or ScriptedStarter()
        self.view, self.admission, self.hang_limit = View(), Admission(), HangLimit()

    def run(
        self,
        search: Search,
        *,
        slots: int = 1,
        caches: Mapping[int, str] | None = None,
        gpu: str | None = None,
        **options: Any,
    ) -> AgentSummary:
        """Work it through, with these options of an agent.

        ``caches`` gives slots a data cache of their own, such as an empty one; the slots share ``gpu``, a UUID.
        """
        name, device = ("gpu0/", "cuda:0") if gpu else ("cpu", "cpu")
        places = []
        for number in range(slots):
            # The forkserver outlives a test, and a fork has the environment of its start.
            environment = {"CUDA_VISIBLE_DEVICES": gpu or "", "FERSWEEP_CACHE": (caches or {}).get(number, self.cache)}
            places.append(Slot(f"{name}{number}", device, 1, environment))
        given = {"track": lambda request: TrackedRun(None), "folder_of": lambda trial: self.folder / trial, **options}
        mine = {"view": self.view, "starter": self.starter, "admission": self.admission, "hang_limit": self.hang_limit}
        return Agent(search=search, slots=places, **given, **mine).run()

    def result(self, trial_id: str) -> dict[str, Any]:
        result = json.loads((self.folder / trial_id / "result.json").read_text())
        timings = ("seconds", "images_per_second", "peak_memory_mb")
        return {name: value for name, value in result.items() if name not in timings}

    def history(self, trial_id: str) -> list[int]:
        lines = (self.folder / trial_id / "history.jsonl").read_text().splitlines()
        return [json.loads(line)["epoch"] for line in lines]
