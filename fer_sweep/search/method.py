"""Which algorithm searches a sweep, and whether it can do what is asked."""

from pathlib import Path

from fer_sweep.config.metrics import EPOCH_METRICS
from fer_sweep.config.parameters import Categorical
from fer_sweep.config.samplers import IN_WORDS
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import EarlyTerminate, SweepFile, parse_sweep
from fer_sweep.errors import InputError
from fer_sweep.search.turns import MOST_TRIALS, can_take_turns
from fer_sweep.store.trials import Settings

SEVERAL_OBJECTIVES_RULE = EarlyTerminate(type="hyperband", min_iter=3)
"""The default with several objectives: stops trials that are far behind in the first one. W&B's schema allows no
early_terminate beside a scheduler, and Optuna prunes nothing with several objectives."""


def takes_turns(sweep: SweepFile, *, sampler: str | None, max_gap: float | None) -> bool:
    """Whether freeze-thaw searches a sweep, given the sampler that was asked for, if any."""
    return can_take_turns(sweep, max_gap=max_gap) if sampler is None else sampler == "freeze_thaw"


def sampler_of(sweep: SweepFile, settings: Settings) -> str:
    """The algorithm that searches a sweep, a key of ``IN_WORDS``."""
    if sweep.method in ("grid", "random"):
        return sweep.method
    if sweep.scheduler is not None and sweep.scheduler.optimizer:
        return "own"
    if takes_turns(sweep, sampler=settings.sampler, max_gap=settings.max_gap):
        return "freeze_thaw"
    return settings.sampler or "tpe"


def stopping_rule(sweep: SweepFile) -> EarlyTerminate | None:
    """The rule that stops a trial early, where the search does not pause it instead and no study of the user does."""
    return sweep.early_terminate or (SEVERAL_OBJECTIVES_RULE if len(sweep.objectives) > 1 else None)


def in_words(sweep: SweepFile, settings: Settings) -> str:
    """What searches a sweep, such as "TPE with hyperband"."""
    sampler = sampler_of(sweep, settings)
    stops = stopping_rule(sweep) is not None and sampler not in ("freeze_thaw", "own")
    return IN_WORDS[sampler] + (" with hyperband" if stops else "")


def searchable(
    sweep: SweepFile, sweep_id: str, *, max_gap: float | None, seed: int, sampler: str | None = None
) -> SweepFile:
    """The file with absolute paths, if the embedded search can do what it asks.

    Raises:
        InputError: It cannot.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: is below 0", hint="give 0 or more")
    if max_gap is not None and len(sweep.objectives) > 1:
        raise InputError(
            "max_gap constrains a sweep with one objective, and this file has several",
            hint="leave max_gap out and choose from the Pareto front, or use `metric:` instead of `metrics:`",
        )
    if sweep.method in ("bayes", "custom") and not sweep.objectives:
        raise InputError(
            f"method {sweep.method} searches for the best metric, but the sweep file names none",
            hint="add `metric: {name: best_val_acc, goal: maximize}`",
        )
    check_sampler(sweep, sampler, max_gap=max_gap)
    scheduler = sweep.scheduler
    if scheduler is None:
        return sweep
    if scheduler.engine != "optuna":
        raise InputError(
            f"scheduler.engine {scheduler.engine} needs a W&B server",
            hint="use engine optuna, which needs none",
        )
    if scheduler.source is not None:
        # An agent may be started in another folder than the sweep was created in.
        plain = sweep.to_plain()
        plain["scheduler"]["source"] = str(Path(scheduler.source).absolute())
        sweep = parse_sweep(plain)
        from fer_sweep.search.study import check_own_search  # only here: optuna takes half a second to import

        check_own_search(sweep, sweep_id)
    return sweep


def check_sampler(sweep: SweepFile, sampler: str | None, *, max_gap: float | None) -> None:
    """Raise ``InputError`` if the sampler that is asked for, if any, cannot search a sweep."""
    if sampler is None:
        return
    if sampler not in IN_WORDS or sampler in ("grid", "own"):
        raise InputError(f"unknown sampler {sampler!r}", hint="use freeze_thaw, tpe, gp, random or cmaes")
    if sweep.method not in ("bayes", "custom"):
        raise InputError(
            f"sampler {sampler} is for method bayes, and the sweep file has method {sweep.method}",
            hint="set `method: bayes` in the file, or leave the sampler out",
        )
    if sweep.has_own_code:
        raise InputError(
            f"sampler {sampler} is not used beside scheduler.source, whose functions propose the trials",
            hint="leave the sampler out, or set one in the study that the file's optimizer returns",
        )
    refusal = None
    if sampler == "freeze_thaw":
        refusal = _against_turns(sweep, max_gap)
    elif sampler == "cmaes":
        refusal = _against_cmaes(sweep, max_gap)
    if refusal is not None:
        raise InputError(f"sampler {sampler} {refusal}", hint="use the sampler tpe, gp or random, or leave it out")


def _against_turns(sweep: SweepFile, max_gap: float | None) -> str | None:
    """Why freeze-thaw cannot search a sweep; it needs no early_terminate, and is asked for in its place."""
    if can_take_turns(sweep.model_copy(update={"early_terminate": None}), max_gap=max_gap):
        return None
    if sweep.run_cap is not None and sweep.run_cap > MOST_TRIALS:
        return f"is for at most {MOST_TRIALS} trials, and the cap is {sweep.run_cap}"
    if len(sweep.objectives) > 2:
        return f"searches for one or two metrics, and the sweep file has {len(sweep.objectives)}"
    for metric in sweep.objectives:
        if metric.name not in EPOCH_METRICS:
            return f"needs metrics that are measured each epoch, and {metric.name} is not"
    return f"does not follow {sweep.objectives[0].name} alone: it is that of the best epoch"


def _against_cmaes(sweep: SweepFile, max_gap: float | None) -> str | None:
    """Why CMA-ES cannot search a sweep."""
    if len(sweep.objectives) > 1:
        return "searches for one metric, and the sweep file has several"
    if max_gap is not None:
        return "has no constraint on the gap, which max_gap asks for"
    sources = Space.from_sweep(sweep).parameters.values()
    if sum(source.size != 1 and not isinstance(source, Categorical) for source in sources) < 2:
        return "needs at least two parameters with a range (min and max); it draws `values:` at random"
    return None
