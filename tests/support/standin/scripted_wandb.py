"""wandb, played by a few lines that speak to the stand-in over HTTP: a run starts and ends within milliseconds.

It enters where ``fer_sweep.wandb_client.tracking`` gets the wandb package, so that agents, ``sync`` and ``TrackedRun`` are real.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import wandb

from tests.support.standin.client import RESUME_STATUS, Client
from tests.support.standin.server import StandIn

LABELS = {"displayName": "name", "groupName": "group", "jobType": "job_type", "notes": "notes", "tags": "tags"}
"""What UpsertBucket calls some of the arguments of ``wandb.init``."""


class ScriptedWandb:
    """What ``quiet_wandb`` gives: wandb's own settings, and an ``init`` that starts scripted runs."""

    Settings = wandb.Settings

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self.runs: list[ScriptedRun] = []
        """Every run that was started, in order."""
        self.refused: list[str] = []
        """The ids of runs that could not be started as the server was out of reach."""

    def init(self, *, settings: wandb.Settings, **given: Any) -> ScriptedRun:
        run = ScriptedRun(self.server, given, settings)
        try:
            run.begin()
        except ConnectionError as error:
            self.refused.append(given["id"])
            raise wandb.errors.CommError("Run initialization has timed out") from error
        self.runs.append(run)
        return run

    def close(self) -> None:
        for run in self.runs:
            run.client.http.close()


@dataclass
class ScriptedRun:
    """A run as far as fersweep can tell one from wandb's."""

    server: StandIn
    given: dict[str, Any]
    """The arguments of ``wandb.init``."""
    settings: wandb.Settings
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What was logged in this process."""
    summary: dict[str, Any] = field(default_factory=dict)
    starting_step: int = 0

    def __post_init__(self) -> None:
        self.id: str = self.given["id"]
        self.mode: str = self.settings.mode
        self.client = Client(self.server)
        self._project = self.given["project"] or "fersweep"
        self._line = 0
        """Of the history on the server, where the next row that is sent goes."""
        self._sent = 0

    @property
    def resumed(self) -> bool:
        return self.starting_step > 0

    def begin(self) -> None:
        if self.mode == "offline":
            return
        entity = self.given["entity"] or self.server.entity
        status = self.client.graphql(RESUME_STATUS, project=self._project, entity=entity, name=self.id)["model"]
        fields = {field: self.given[name] for field, name in LABELS.items()}
        if known := status and status["bucket"]:
            fields["id"] = known["id"]
            self._line = known["historyLineCount"]
            self.starting_step = max((row["_step"] + 1 for row in self.server.runs[self.id].history), default=0)
        sweep = self.settings.sweep_id
        self.client.begin(self.id, sweep, self._project, self.given["config"], entityName=entity, **fields)

    def define_metric(self, name: str, **how: Any) -> None:
        """The x axis is no matter here."""

    def log(self, row: dict[str, Any], *, step: int, commit: bool) -> None:
        """Keep a row, and send what the server has not got yet; a chart is sent as the name of its type."""
        plain = {k: v if isinstance(v, int | float | str) else type(v).__name__ for k, v in row.items()}
        self.rows.append({**plain, "_step": step})
        try:
            self._send_rows()
        except ConnectionError:
            return  # as wandb, which sends it later

    def mark_preempting(self) -> None:
        self._stream(preempting=True)

    def finish(self, exit_code: int = 0) -> None:
        """Send the rest.

        Raises:
            ConnectionError: The server is out of reach; wandb would wait for it.
        """
        self._send_rows()
        summary = {**(self.rows[-1] if self.rows else {}), **self.summary}
        self._stream(files={"wandb-summary.json": {"offset": 0, "content": [json.dumps(summary)]}})
        self._stream(complete=True, exitcode=exit_code)

    def _send_rows(self) -> None:
        if new := self.rows[self._sent :]:
            chunk = {"offset": self._line, "content": [json.dumps(row) for row in new]}
            self._stream(files={"wandb-history.jsonl": chunk})
            self._line, self._sent = self._line + len(new), len(self.rows)

    def _stream(self, **posted: Any) -> None:
        if self.mode != "offline" and self.client.stream(self.id, self._project, **posted)["stopped"]:
            self.settings.stop_fn()
