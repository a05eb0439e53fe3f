"""The plot of ``command``: throughput and waits by agents, processor time by trials."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.scale.measure import Point

SEARCHES = (
    ("random", False, "random"),
    ("random", True, "random + hyperband"),
    ("bayes", True, "TPE + hyperband"),
)


def draw(points: Sequence[Point], path: Path) -> None:
    """Write a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    free = [point for point in points if not point.setting.asks and not point.setting.durable]
    by_agents = [p for p in free if p.setting.trials <= 1_000 and p.setting.trials != 100]
    figure, (rate, waits, costs) = pyplot.subplots(1, 3, figsize=(14, 4.4), layout="constrained")

    for method, hyperband, name in SEARCHES:
        chosen = [p for p in by_agents if (p.setting.method, p.setting.hyperband) == (method, hyperband)]
        rate.plot(*_curve(chosen, _agents, lambda p: p.per_s), marker="o", label=name)
    rate.set(title="All agents together", xlabel="agents", ylabel="trials a second (3 epochs each)", ylim=(0, None))

    random = [p for p in by_agents if (p.setting.method, p.setting.hyperband) == ("random", False)]
    for name, times, color in (("next_trial", lambda p: p.next_trial, "C0"), ("report", lambda p: p.report, "C1")):
        waits.plot(*_curve(random, _agents, lambda p, t=times: t(p).p50), color + "o-", label=f"{name}, p50")
        waits.plot(*_curve(random, _agents, lambda p, t=times: t(p).p99), color + "^--", label=f"{name}, p99")
    waits.set(title="One call of one agent (random)", xlabel="agents", ylabel="ms, with nobody training", yscale="log")

    few = [p for p in free if p.setting.agents == 32 and (p.setting.method, p.setting.hyperband) == ("random", False)]
    costs.plot(*_curve(few, _trials, lambda p: p.client_ms), "o-", label="the agent's")
    costs.plot(*_curve(few, _trials, lambda p: p.server_ms), "s-", label="PostgreSQL's")
    costs.set(
        title="32 agents (random)", xlabel="trials of the sweep", ylabel="processor time a trial, ms", xscale="log"
    )
    costs.set_ylim(0, None)

    for axes in (rate, waits):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({p.setting.agents for p in by_agents}))
        axes.xaxis.set_major_formatter("{x:.0f}")
    costs.xaxis.set_major_formatter("{x:,.0f}")
    for axes in (rate, waits, costs):
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _curve(
    points: Sequence[Point], x: Callable[[Point], float], y: Callable[[Point], float]
) -> tuple[list[float], list[float]]:
    ordered = sorted(points, key=x)
    return [x(point) for point in ordered], [y(point) for point in ordered]


def _agents(point: Point) -> float:
    return point.setting.agents


def _trials(point: Point) -> float:
    return point.setting.trials
