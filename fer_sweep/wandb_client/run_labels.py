"""Name, group, tags and place of a trial's W&B run."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.files import trial_folder
from fer_sweep.wandb_client.account import place


@dataclass(frozen=True)
class RunLabels:
    """Name and place of a run in the W&B UI."""

    name: str
    group: str
    sweep_id: str | None = None
    """The sweep on the server that it belongs to."""
    job_type: str = "trial"
    project: str | None = None
    """None for the project of wandb's environment and settings; entity likewise."""
    entity: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None

    def with_environment(self) -> "RunLabels":
        """The labels with ``WANDB_RUN_GROUP``, ``WANDB_JOB_TYPE``, ``WANDB_TAGS`` and ``WANDB_NOTES`` applied."""
        tags = tuple(tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip())
        return replace(
            self,
            group=os.environ.get("WANDB_RUN_GROUP") or self.group,
            job_type=os.environ.get("WANDB_JOB_TYPE") or self.job_type,
            notes="\n".join(note for note in (os.environ.get("WANDB_NOTES"), self.notes) if note) or None,
            tags=tuple(dict.fromkeys((*self.tags, *tags))),
        )


@dataclass(frozen=True)
class Place:
    """Where the runs of a sweep are."""

    entity: str | None
    project: str | None
    sweep_id: str | None = None
    """The sweep on the server that they belong to."""

    @classmethod
    def from_file(cls, sweep: SweepFile) -> "Place":
        """The place of the offline runs of a sweep."""
        return cls(*place(sweep.entity, sweep.project))


def trial_labels(sweep_id: str, trial_id: str, config: Mapping[str, Any], where: Place) -> RunLabels:
    """The labels of a trial's run.

    Args:
        sweep_id: The sweep's id in this home.
        trial_id: The trial.
        config: Its whole TrialConfig as plain values.
        where: Where the run is.
    """
    return RunLabels(
        name=f"{config['model']}-{trial_id}",
        group=sweep_id,
        sweep_id=where.sweep_id,
        project=where.project,
        entity=where.entity,
        tags=(str(config["model"]),),
        notes=f"fersweep train --config {shlex.quote(str(trial_folder(sweep_id, trial_id) / 'config.json'))}",
    )
