"""What the W&B run of a trial is called, and where it goes."""

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
    """What names a run and places it in the W&B UI."""

    name: str
    group: str
    sweep_id: str | None = None
    """The sweep on the server whose run it is."""
    job_type: str = "trial"
    project: str | None = None
    """None lets wandb take it from its environment and settings; entity likewise."""
    entity: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None

    def with_environment(self) -> "RunLabels":
        """The same, where ``WANDB_RUN_GROUP``, ``WANDB_JOB_TYPE``, ``WANDB_TAGS``, ``WANDB_NOTES`` have their say."""
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
    """Where the runs of a sweep go."""

    entity: str | None
    project: str | None
    sweep_id: str | None = None
    """The sweep on the server that they belong to."""

    @classmethod
    def from_file(cls, sweep: SweepFile) -> "Place":
        """Where the runs of a sweep go that is on no server, in W&B's usual order."""
        return cls(*place(sweep.entity, sweep.project))


def trial_labels(sweep_id: str, trial_id: str, config: Mapping[str, Any], where: Place) -> RunLabels:
    """What the run of a trial is called.

    Args:
        sweep_id: The sweep here.
        trial_id: The trial in it.
        config: The trial's whole configuration.
        where: Where the run goes.
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
