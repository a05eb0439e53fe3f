"""The HTML report: one self-contained file that makes no network request.

Untrusted text is escaped everywhere: by jinja in the page, by its ``tojson`` in the script's data, by ``plot.safe`` in
labels of figures. A Content-Security-Policy admits only the scripts of the file, by their hashes, and no request.
"""

import base64
import hashlib
import re
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from fer_sweep.config.trial import SYNTHETIC
from fer_sweep.errors import InputError
from fer_sweep.reports.environment import Environment
from fer_sweep.reports.faces import Face
from fer_sweep.reports.optuna_view import Importance, importance
from fer_sweep.reports.page import document, figures_of
from fer_sweep.reports.shown import file_name, plain
from fer_sweep.reports.sources import Report, ReportedSweep, certainty
from fer_sweep.reports.tables import short
from fer_sweep.selection import RULE

MEASURED = (
    "train_acc is measured as val_acc is: in evaluation mode, without augmentation, on a fixed sample of training "
    f"images as large as the validation split. The gap is train_acc minus val_acc at the best epoch. {RULE}"
)

_WHOLE = re.compile(r"[\d.]+ %|--\w+")
"""Text that must not be broken: percentages and options of commands."""

_MANY = 300
"""Number of trials from which on the page advises to brush first."""


@dataclass(frozen=True)
class Step:
    """One step to repeat the sweeps."""

    what: str
    command: str = ""
    file_name: str = ""
    file: str = ""
    """Its content."""


def render(report: Report, environment: Environment, faces: Sequence[Face] = (), faces_note: str = "") -> str:
    """The page.

    Args:
        report: What to show.
        environment: Where it was made, and the data.
        faces: The validation images that the winner gets most wrong.
        faces_note: Why there are none, if they were requested.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("fer_sweep.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["whole"] = lambda line: Markup(_WHOLE.sub(r'<span class="whole">\g<0></span>', str(escape(line))))
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    plotly, script = _script(get_plotlyjs()), _script(_source(templates, "report.js"))
    found = figures_of(report, _importances(report))
    data = document(report, found)
    groups = _groups(found)
    sections = [("winner", "Winner"), ("certainty", "Certainty")]
    sections += [("parameters", "Parameters")] if data["views"] else []
    sections += [(id, heading) for id, heading, _, _ in groups]
    sections += [*([("faces", "Faces")] if faces or faces_note else []), ("trials", "Trials"), ("again", "Repeat it")]
    return templates.get_template("report.html.j2").render(
        policy=_policy(plotly, script),
        title=_title(report),
        counts=_counts(report),
        made=time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(report.made)),
        style=Markup(_source(templates, "report.css")),
        plotly=Markup(plotly),
        script=Markup(script),
        data=data,
        sections=[*sections, ("environment", "Environment")],
        winner=_winner(report),
        reason=plain(report.selection.reason, 600),
        certainty=certainty(report),
        many=len(report.trials) > _MANY,
        has_views=bool(data["views"]),
        view_names=[view["label"] for view in data["views"]],
        groups=groups,
        faces=faces,
        faces_note=faces_note,
        steps=_steps(report),
        environment=environment,
        measured=MEASURED,
    )


def _source(templates: Any, name: str) -> str:
    source: str = templates.loader.get_source(templates, name)[0]
    return source


def _script(text: str) -> str:
    # A browser hashes the parsed script, in which line ends are line feeds.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in text.lower() or "<!--" in text:
        raise InputError("plotly's script contains </script or <!--", hint="install another release of plotly")
    return text


def _policy(*scripts: str) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Plotly adds style rules, saves figures as blobs, and compiles the shaders of parallel coordinates (regl) by
    # Function, hence unsafe-eval, which admits no script from outside the file.
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _importances(report: Report) -> list[tuple[ReportedSweep, Importance, Importance]]:
    return [
        (
            sweep,
            importance(sweep.records, sweep.axes, lambda result: result.best_val_acc, maximize=True),
            importance(sweep.records, sweep.axes, lambda result: result.train_val_gap, maximize=False),
        )
        for sweep in report.sweeps
    ]


_GROUPS = (
    ("pareto", "Accuracy against gap", ""),
    (
        "best",
        "The best trials over the epochs",
        "Click a legend entry to hide its trial, double-click it to hide all others.",
    ),
    ("models", "Each architecture's best over the epochs", ""),
    (
        "importance",
        "Which parameters matter",
        "PED-ANOVA: how much the distribution of the best complete trials (a tenth, at least five) over a parameter "
        "differs from that of all. It shows that a parameter matters, not which value is good.",
    ),
    ("winner-classes", "The winner's predictions by class", "On the validation split, at its best epoch."),
    ("progress", "The search's progress", ""),
)


def _groups(found: dict[str, Any]) -> list[tuple[str, str, str, Any]]:
    found = {**found, "winner-classes": found.get("winner", [])}
    return [(id, heading, note, found[id]) for id, heading, note in _GROUPS if found.get(id)]


def _title(report: Report) -> str:
    models = ", ".join(dict.fromkeys(model for sweep in report.sweeps for model in sweep.models))
    if len(report.sweeps) == 1:
        return f"{plain(models, 60)}: sweep {report.sweeps[0].label}"
    return f"{len(report.sweeps)} sweeps side by side: {plain(models, 80)}"


def _counts(report: Report) -> str:
    states = Counter(str(record.state) for _, record in report.trials)
    counted = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    total = len(report.trials)
    return f"{total:,} trial{'' if total == 1 else 's'}" + (f": {counted}" if counted else "")


def _winner(report: Report) -> dict[str, Any] | None:
    winner = report.selection.winner
    if winner is None:
        return None
    result, record = winner.result, winner.record
    sweep = next(s for s in report.sweeps if s.id == winner.sweep)
    swept = [axis.name for axis in sweep.axes if axis.name in record.parameters]
    return {
        "trial": plain(record.trial_id, 60),
        "sweep": sweep.label,
        "accuracy": f"{100 * result.best_val_acc:.2f} %",
        "gap": f"{100 * result.train_val_gap:+.1f} points",
        "clean": f"{100 * result.val_acc_clean:.2f} %",
        "weights": f"{result.parameters:,}",
        "model": plain(str(record.config.get("model", "")), 40),
        "verdict": str(result.verdict),
        "epoch": result.best_epoch,
        "reason": plain(report.selection.reason, 600),
        "parameters": [(plain(name, 40), short(record.parameters[name])) for name in swept],
    }


def _steps(report: Report) -> list[Step]:
    """The steps from the data set to the winner, on another machine."""
    import json

    steps = []
    for name in sorted({str(record.config.get("data", "")) for _, record in report.trials} - {"", SYNTHETIC}):
        command = shlex.join(["fersweep", "data", "prepare", "PATH", "--name", name])
        steps.append(Step("Prepare the data set; its fingerprint must match the one under Environment.", command))
    for sweep in report.sweeps:
        name = file_name(sweep.id)
        what = f"Create the sweep {plain(sweep.label, 80)} from its file, and train it."
        steps.append(Step(what, f"{sweep.create}\nfersweep agent", name, sweep.file))
    if len(report.sweeps) == 1:
        steps.append(Step("Show the winner.", "fersweep best"))
    else:
        ids = " ".join(f"SWEEP{number}" for number in range(1, len(report.sweeps) + 1))
        steps.append(Step("Show the winner of all, by the ids that create printed.", f"fersweep best {ids}"))
    if (winner := report.selection.winner) is not None:
        config = json.dumps(dict(winner.record.config), indent=2)
        what = "Or train only the winner, from its configuration and seed."
        steps.append(Step(what, "fersweep train --config winner.json", "winner.json", config))
    return steps
