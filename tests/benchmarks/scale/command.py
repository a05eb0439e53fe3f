"""How the cost of a trial's bookkeeping grows with agents and with trials, on one PostgreSQL.

Agents, PostgreSQL and whatever else the machine does share its cores, and trials take no time: every agent asks without
a pause, as 256 real ones never do. So the figures show what a trial costs and how that grows, not how long agents that
train would wait. Every sweep is checked: each trial once, none lost, none doubled, every history whole.

    python -m tests.benchmarks scale             all points, the table and the plot (a quarter of an hour)
    python -m tests.benchmarks scale --quick     32 agents at most, in a minute, and no plot
    python -m tests.benchmarks scale --draw      the plot and the table again from figures.json
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from tests.benchmarks.rows import Row
from tests.benchmarks.scale.measure import Point, Setting, Times, measure, server
from tests.benchmarks.scale.plot import draw

FIGURES = Path(__file__).with_name("figures.json")
PLOT = Path(__file__).with_name("scale.png")
AGENTS = (8, 32, 64, 128, 256)
QUICK = (Setting(8, 200), Setting(32, 200), Setting(32, 200, "bayes", hyperband=True), Setting(32, 32, asks=50))
SETTINGS = (
    *(Setting(agents, 1_000) for agents in AGENTS),
    Setting(32, 100),
    Setting(32, 10_000),
    Setting(256, 10_000),
    *(Setting(agents, 1_000, hyperband=True) for agents in (8, 32, 128, 256)),
    *(Setting(agents, 500, "bayes", hyperband=True) for agents in (8, 32, 128)),
    *(Setting(agents, agents, asks=200) for agents in (32, 256)),
    Setting(32, 500, durable=True),
)
_POINTS = TypeAdapter(list[Point])


def table(points: Sequence[Point]) -> str:
    """A Markdown table of points."""
    lines = [
        "| agents | trials | search | processor time of one, ms: agent + PostgreSQL | a second | of the processors"
        " | next_trial, ms: p50, p99 | report, ms | finish, ms | connections |",
        "|" + "---|" * 10,
    ]
    for point in points:
        setting = point.setting
        search = (
            f"{setting.method}{' + hyperband' if setting.hyperband else ''}{', durable' if setting.durable else ''}"
        )
        if setting.asks:
            search = "questions only"
        times = point.ask if setting.asks else point.report
        lines.append(
            f"| {setting.agents} | {setting.trials:,} | {search} | {point.client_ms:.1f} + {point.server_ms:.1f}"
            f" | {point.per_s:,.0f} | {point.share:.0%} | {_two(point.next_trial)} | {_two(times)}"
            f" | {_two(point.finish)} | {point.connections} |"
        )
    return "\n".join(lines)


def _two(times: Times | None) -> str:
    return f"{times.p50:,.0f}, {times.p99:,.0f}" if times else ""


def main(words: Sequence[str]) -> None:
    """Measure, print the table, and draw the plot."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="few agents, and no plot")
    kind.add_argument("--draw", action="store_true", help="measure nothing: draw what was measured last")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"write every value here, not to {FIGURES.name}")
    arguments = parser.parse_args(words)
    figures = arguments.json or FIGURES
    if arguments.draw:
        points = _POINTS.validate_json(figures.read_bytes())
    else:
        points = []
        for point in run(QUICK if arguments.quick else SETTINGS):
            points.append(point)
            print(f"{point.setting}: {point.per_s:,.0f} a second", file=sys.stderr, flush=True)
            if arguments.json or not arguments.quick:
                figures.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n")
    print(table(points))
    if not arguments.quick:
        draw(points, PLOT)


def run(settings: Sequence[Setting]) -> Iterator[Point]:
    """Measure points one after another."""
    for durable in (False, True):
        chosen = [setting for setting in settings if setting.durable is durable]
        if chosen:
            with server(durable=durable) as postgres:
                yield from (measure(postgres, setting) for setting in chosen)


def trials_per_s(agents: int, trials: int) -> float:
    """One figure of one point."""
    with server() as postgres:
        return measure(postgres, Setting(agents, trials)).per_s


ROWS: Mapping[str, Row] = {
    "scale-32": Row(
        "trials a second that 32 agents get through on one PostgreSQL, with nothing to train",
        {"fersweep": lambda _: trials_per_s(32, 500)},
        better="more",
    ),
    "scale-256": Row(
        "the same, 256 agents and a sweep of 10,000",
        {"fersweep": lambda _: trials_per_s(256, 10_000)},
        better="more",
        is_slow=True,
    ),
}
