"""An agent in the test's own process: with trials played by threads, or with real trial processes below it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer_sweep.agent.failures import OnOom
from fer_sweep.agent.loop import Agent
from fer_sweep.agent.shown import AgentSummary
from fer_sweep.agent.silence import Silence
from fer_sweep.records import TrialOutcome, TrialRequest
from fer_sweep.search import Search
from fer_sweep.wandb_client.tracking import TrackedRun
from fer_sweep.worker.memory import Admission, total_mb
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.starters import TrialHandle, TrialStarter
from fer_sweep.worker.trial_process import TrialJob
from tests.support.processes import alive
from tests.support.scripted_starter import ScriptedStarter

TIMINGS = {"seconds", "images_per_second", "peak_memory_mb"}


class ForkingStarter(TrialStarter):
    """Forks real trials, and remembers their processes."""

    def __init__(self) -> None:
        super().__init__()
        self.pids: list[int] = []
        self.pid_of: dict[str, int] = {}
        """By trial, its latest."""
        self.memory_mb: float | None = None
        """As if this host had so much memory; None for what it has."""
        self.memory_share: float | None = None
        """Of a GPU's memory, what each trial may take; None for what the agent gives."""

    def close(self) -> None:
        """Left open: starting it takes longer than most tests, and the next one can have it."""

    def start(self, job: TrialJob, *, is_probe: bool = False) -> TrialHandle:
        if self.memory_mb is not None and job.memory_share is not None:
            job = replace(job, memory_share=job.memory_share * self.memory_mb / (total_mb() or self.memory_mb))
        if self.memory_share is not None:
            job = replace(job, memory_share=self.memory_share)
        handle = super().start(job, is_probe=is_probe)
        assert handle.process.pid is not None
        self.pids.append(handle.process.pid)
        self.pid_of[job.folder.name] = handle.process.pid
        return handle

    @property
    def all_have_ended(self) -> bool:
        return not any(alive(pid) for pid in self.pids)


class View:
    """Keeps what it is shown, and calls back at every epoch and note so that a test can act at that very moment."""

    def __init__(
        self,
        at_epoch: Callable[[str, int], None] = lambda trial_id, epoch: None,
        at_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.started: list[str] = []
        self.notes: list[str] = []
        self.at_epoch = at_epoch
        self.at_note = at_note

    def trial_started(self, slot: str, request: TrialRequest) -> None:
        self.started.append(request.trial_id)

    def epoch(self, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None:
        self.at_epoch(trial_id, int(metrics["epoch"]))

    def trial_ended(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.at_note(text)


class Stage:
    """One agent's surroundings; ``run`` works a search through."""

    def __init__(self, folder: Path, cache: str = "", starter: ScriptedStarter | ForkingStarter | None = None) -> None:
        self.folder = folder
        self.cache = cache
        self.starter: Any = starter or ScriptedStarter()
        self.view = View()
        self.admission = Admission()
        self.silence = Silence()

    def run(
        self,
        search: Search,
        *,
        slots: int = 1,
        count: int | None = None,
        track: Callable[[TrialRequest], TrackedRun] = lambda request: TrackedRun(None),
        caches: Mapping[int, str] | None = None,
        on_oom: OnOom = OnOom.FAIL,
        gpu: str | None = None,
    ) -> AgentSummary:
        """Work it through; ``caches`` gives slots a data cache of their own, such as an empty one.

        With ``gpu``, a UUID, the slots share it.
        """
        found = dict.fromkeys(range(slots), self.cache) | dict(caches or {})
        name, device = ("gpu0/", "cuda:0") if gpu else ("cpu", "cpu")
        places = [
            # The forkserver outlives a test, and a fork has the environment of its start.
            Slot(f"{name}{number}", device, 1, {"CUDA_VISIBLE_DEVICES": gpu or "", "FERSWEEP_CACHE": cache})
            for number, cache in found.items()
        ]
        agent = Agent(
            search=search,
            slots=places,
            folder_of=lambda trial_id: self.folder / trial_id,
            track=track,
            view=self.view,
            count=count,
            starter=self.starter,
            admission=self.admission,
            on_oom=on_oom,
            silence=self.silence,
        )
        return agent.run()

    def result(self, trial_id: str) -> dict[str, Any]:
        result = json.loads((self.folder / trial_id / "result.json").read_text())
        return {name: value for name, value in result.items() if name not in TIMINGS}

    def history(self, trial_id: str) -> list[int]:
        lines = (self.folder / trial_id / "history.jsonl").read_text().splitlines()
        return [json.loads(line)["epoch"] for line in lines]
