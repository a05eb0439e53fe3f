"""The plot of ``command``: what a trial costs and how long a call waits, by agents and by trials."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.scale.measure import Point, Times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    by_agents = [point for point in free if 500 <= point.setting.trials <= 1_000]
    random = _of(by_agents, "random", hyperband=False)
    by_trials = [point for point in _of(free, "random", hyperband=False) if point.setting.agents == 32]

    figure, ((rate, waits), (cost, late)) = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for method, hyperband, name in SEARCHES:
        chosen = _of(by_agents, method, hyperband=hyperband)
        rate.plot(*_curve(chosen, _agents, lambda point: 1000 / _cost(point)), "o-", label=name)
    rate.set(title="Trials (of three epochs) that one core gets through")
    rate.set(xlabel="agents", ylabel="trials a second of processor time", ylim=(0, None))

    _waits(waits, random, _agents, late=False)
    waits.set(title="How long an agent waits (random; 500 to 1,000 trials)", xlabel="agents", ylabel="ms")

    cost.plot(*_curve(by_trials, _trials, lambda point: point.client_ms), "o-", label="the agent's")
    cost.plot(*_curve(by_trials, _trials, lambda point: point.server_ms), "s-", label="PostgreSQL's")
    cost.set(title="Processor time of a trial (random, 32 agents)", xlabel="trials of the sweep", ylabel="ms")

    _waits(late, by_trials, _trials, late=True)
    late.set(title="How long an agent waits (random, 32 agents)", ylabel="ms")
    late.set(xlabel="trials of the sweep")

    for axes in (rate, waits):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({point.setting.agents for point in by_agents}))
        axes.xaxis.set_major_formatter("{x:.0f}")
    for axes in (cost, late):
        axes.set_ylim(0, None)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    waits.set_yscale("log")
    waits.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (rate, waits, cost, late):
        axes.title.set_size("medium")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _waits(axes: "Axes", points: Sequence[Point], x: Callable[[Point], float], *, late: bool) -> None:
    def proposal(point: Point) -> Times:
        return _known(point.late_next_trial if late else point.next_trial)

    def report(point: Point) -> Times:
        return _known(point.report)

    calls = (
        {"next_trial of the last tenth": (proposal, "C0")}
        if late
        else {
            "next_trial": (proposal, "C0"),
            "report": (report, "C1"),
        }
    )
    for name, (times, color) in calls.items():
        axes.plot(*_curve(points, x, lambda point, times=times: times(point).p50), f"{color}o-", label=f"{name}, p50")
        axes.plot(*_curve(points, x, lambda point, times=times: times(point).p99), f"{color}^--", label=f"{name}, p99")


def _of(points: Sequence[Point], method: str, *, hyperband: bool) -> list[Point]:
    return [p for p in points if (p.setting.method, p.setting.hyperband) == (method, hyperband)]


def _known(times: Times | None) -> Times:
    assert times is not None, "agents that work sweeps through have been timed"
    return times


def _cost(point: Point) -> float:
    return point.client_ms + point.server_ms


def _curve(
    points: Sequence[Point], x: Callable[[Point], float], y: Callable[[Point], float]
) -> tuple[list[float], list[float]]:
    ordered = sorted(points, key=x)
    return [x(point) for point in ordered], [y(point) for point in ordered]


def _agents(point: Point) -> float:
    return point.setting.agents


def _trials(point: Point) -> float:
    return point.setting.trials
