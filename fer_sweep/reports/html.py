"""The HTML report: one self-contained file that makes no network request.

Untrusted text is escaped everywhere: by jinja in the page, by its ``tojson`` in the script's data, by ``plot.safe`` in
labels of figures. A Content-Security-Policy admits only the scripts of the file, by their hashes, and no request.
"""

import base64
import contextlib
import hashlib
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from fer_sweep.config.trial import SYNTHETIC
from fer_sweep.data.cache import DatasetInfo, Split, find_dataset, is_prepared
from fer_sweep.errors import FersweepError
from fer_sweep.openings import how_often
from fer_sweep.processor import processor_name
from fer_sweep.reports.comparing import Pair
from fer_sweep.reports.faces import Face
from fer_sweep.reports.figures import figures_of
from fer_sweep.reports.page import document
from fer_sweep.reports.plot import DARK, colours_of
from fer_sweep.reports.reproducing import steps
from fer_sweep.reports.sources import MEASURED, Report, title
from fer_sweep.reports.summary import BY_ARCHITECTURE, answer, architectures, certainty, interval, mean_of, tests_of
from fer_sweep.reports.tables import templates_of_reports
from fer_sweep.selection import RULE, SHOWN
from fer_sweep.sweeps.entries import pinned_data

_PACKAGES = ("fersweep", "torch", "torchvision", "transformers", "optuna", "wandb", "numpy", "plotly")
_SCRIPTS = ("figures.js", "marks.js", "parallel.js", "table.js", "start.js")
"""One script in this order; everything shown comes from the JSON in #data, and Plotly draws it."""
_WHOLE = re.compile(r"[\d.]+ %|--\w+")
"""Text that must not be broken: percentages and options of commands."""


def render(
    report: Report,
    devices: Sequence[str] = (),
    faces: Sequence[Face] = (),
    faces_note: str = "",
    pair: Pair | None = None,
) -> str:
    """The page.

    Args:
        report: What to show.
        devices: The names of this machine's GPUs.
        faces: The validation images that the winner gets most wrong.
        faces_note: Why there are none, if they were requested.
        pair: The two trials that the page compares, if it does.
    """
    templates = templates_of_reports(autoescape=True)
    templates.filters["whole"] = _whole
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    parts = "\n".join(_source(templates, name) for name in _SCRIPTS)
    plotly, script = _script(get_plotlyjs()), _script(f'"use strict";\n(() => {{\n{parts}}})();\n')
    figures = figures_of(report)
    winner = report.selection.winner
    mean = mean_of(report, winner) if winner is not None else None
    names = [report.label(c.name) for c in (pair.first, pair.second)] if pair is not None else []
    datasets = sorted({str(record.config.get("data", "")) for _, record in report.trials} - {""})
    return templates.get_template("report.html.j2").render(
        policy=_policy(plotly, script),
        style=Markup(_source(templates, "report.css")),
        plotly=Markup(plotly),
        script=Markup(script),
        data=document(report, figures),
        report=report,
        title=f"{names[0]} and {names[1]} side by side" if pair else title(report.sweeps),
        answer=answer(report),
        by_architecture=BY_ARCHITECTURE,
        architectures=architectures(report),
        mean=mean,
        interval=interval(mean),
        tested=tests_of(report, winner) if winner is not None else [],
        opened=how_often(len(report.openings)),
        colours={model: f"light-dark({light}, {DARK[light]})" for model, light in colours_of(report.models).items()},
        pair=pair,
        pair_names=names,
        states=Counter(str(record.state) for _, record in report.trials).most_common(),
        made=time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(report.made)),
        certainty=certainty(report),
        shown=SHOWN,
        figures=figures,
        faces=faces,
        faces_note=faces_note,
        environment=_environment(report, devices),
        datasets=(trained_on := [(name, info) for name in datasets for info in _trained_on(name, report)]),
        steps=steps(report, {name: info.source if info else "" for name, info in trained_on if name != SYNTHETIC}),
        splits=list(Split),
        measured=f"{MEASURED} {RULE}",
    )


def _whole(line: str) -> Markup:
    return Markup(_WHOLE.sub(r'<span class="whole">\g<0></span>', str(escape(line))))


def _source(templates: Any, name: str) -> str:
    source: str = templates.loader.get_source(templates, name)[0]
    return source


def _script(text: str) -> str:
    # A browser hashes the parsed script, in which line ends are line feeds.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _policy(*scripts: str) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Plotly adds style rules, saves figures as blobs, and compiles the shaders of parallel coordinates (regl) by
    # Function, hence unsafe-eval, which admits no script from outside the file.
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _environment(report: Report, devices: Sequence[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    processor = processor_name() or platform.processor() or "processor unknown"
    found["machine"] = f"{platform.system()} {platform.machine()}, {processor}, {os.cpu_count()} logical cores"
    found["GPUs"] = "; ".join(devices) or "no GPU"
    precisions = sorted({record.result.precision for _, record in report.trials if record.result is not None})
    return found | ({"arithmetic of the trials": ", ".join(precisions)} if any(precisions) else {})


def _trained_on(name: str, report: Report) -> list[DatasetInfo | None]:
    """The contents that the sweeps pinned under a name, or else the one prepared here; None if it is unknown."""
    pinned = (pinned_data(sweep.id, name) for sweep in report.sweeps)
    infos = {info.fingerprint: info for info in pinned if info is not None}
    with contextlib.suppress(FersweepError):  # a damaged data set must not prevent the report
        if not infos and is_prepared(name):
            return [find_dataset(name)]
    return list(infos.values()) or [None]
