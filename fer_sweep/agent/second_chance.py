"""Trials that failed where everything does: given back to the search, to be tried again by whoever is in order."""

import logging
from collections.abc import Sequence

from fer_sweep.errors import FersweepError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search import Search

log = logging.getLogger(__name__)


def give_back(search: Search, trials: Sequence[str], why: str) -> None:
    """Take back that these trials of this agent have failed; the search has it happen to each of them once.

    Args:
        search: Where they were said to have failed.
        trials: Their ids.
        why: Why it was not their fault.
    """
    for trial in trials:
        try:
            search.finish(trial, TrialOutcome(TrialState.PREEMPTED, reason=why))
        except FersweepError as error:
            # They stay failed, which is what has been said of them so far.
            log.warning("trial %s could not be given back to be tried again: %s", trial, error)
