"""How the cost of a trial's bookkeeping grows with agents and with trials, on one PostgreSQL.

Agents, PostgreSQL and whatever else the machine does share its cores, and trials take no time: every agent asks without
a pause, as 256 real ones never do. So the figures show what a trial costs and how that grows, not how long agents that
train would wait. Every sweep is checked: each trial once, none lost, none doubled, every history whole.

    python -m tests.benchmarks scale             all points, and the table (a quarter of an hour)
    python -m tests.benchmarks scale --quick     32 agents at most, in a minute
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.rows import Row
from tests.benchmarks.scale.measure import Point, Setting, Times, measure, server

QUICK = (Setting(8, 200), Setting(32, 200), Setting(32, 200, "bayes", hyperband=True))
SETTINGS = (
    *(Setting(agents, 1_000) for agents in (8, 32, 64, 128, 256)),
    Setting(32, 100),
    Setting(32, 10_000),
    Setting(256, 10_000),
    *(Setting(agents, 1_000, hyperband=True) for agents in (8, 32, 128, 256)),
    *(Setting(agents, 500, "bayes", hyperband=True) for agents in (8, 32, 128)),
    Setting(32, 500, durable=True),
)
COLUMNS = "agents|trials|search|processor time of one, ms: agent + PostgreSQL|a second|of the processors|"
COLUMNS += "next_trial, ms: p50, p99|report, ms|finish, ms|connections|memory of an agent, MB"


def table(points: Sequence[Point]) -> str:
    """A Markdown table of points."""
    lines = [f"| {COLUMNS.replace('|', ' | ')} |", "|" + "---|" * len(COLUMNS.split("|"))]
    for point in points:
        setting = point.setting
        search = setting.method + " + hyperband" * setting.hyperband + ", durable" * setting.durable
        cells = [
            setting.agents,
            f"{setting.trials:,}",
            search,
            f"{point.client_ms:.1f} + {point.server_ms:.1f}",
            f"{point.per_s:,.0f}",
            f"{point.share:.0%}",
            _two(point.next_trial),
            _two(point.report),
            _two(point.finish),
            point.connections,
            f"{point.private_mb:.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _two(times: Times) -> str:
    return f"{times[0]:,.0f}, {times[1]:,.0f}" if times else ""


def main(words: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few agents")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every value here")
    arguments = parser.parse_args(words)
    points = []
    for point in run(QUICK if arguments.quick else SETTINGS):
        points.append(point)
        print(f"{point.setting}: {point.per_s:,.0f} a second", file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n")
    print(table(points))


def run(settings: Sequence[Setting]) -> Iterator[Point]:
    """Measure points one after another."""
    for durable in (False, True):
        if chosen := [setting for setting in settings if setting.durable is durable]:
            with server(durable=durable) as postgres:
                yield from (measure(postgres, setting) for setting in chosen)


def _trials_per_s(agents: int, trials: int) -> float:
    (point,) = run([Setting(agents, trials)])
    return point.per_s


ROWS: Mapping[str, Row] = {
    "scale-32": Row(
        "trials a second that 32 agents get through on one PostgreSQL, with nothing to train",
        {"fersweep": lambda _: _trials_per_s(32, 500)},
        better="more",
    ),
    "scale-256": Row(
        "the same, 256 agents and a sweep of 10,000",
        {"fersweep": lambda _: _trials_per_s(256, 10_000)},
        better="more",
        is_slow=True,
    ),
}
