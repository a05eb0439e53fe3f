"""The page as text: nothing from outside is markup, only known scripts run, and everything it needs is in it."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("plotly", reason="the HTML report needs plotly")

from fer_sweep.records import TrialState
from fer_sweep.reports import html as page
from fer_sweep.reports.environment import Environment, environment
from fer_sweep.reports.faces import Face
from fer_sweep.reports.html import render
from fer_sweep.reports.sources import Report
from tests.reports.conftest import Show
from tests.support import reports as made_up

EVIL = "</script><script>window.evil=1</script><img src=x onerror='window.evil=1'>\"'`{{7*7}}%{x}$&\u2028<!--"
PNG = "data:image/png;base64,iVBORw0KGgo="


class Elements(HTMLParser):
    """What a browser would see: elements with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def shown(report: Report, **options: Any) -> str:
    return render(report, Environment((("python", "3"),), "machine", "no GPU", (), "fp32"), **options)


@pytest.fixture(scope="module")
def text() -> str:
    return shown(made_up.report(made_up.sweep(trials=12)))


def test_only_the_two_scripts_of_the_file_may_run(text: str) -> None:
    policy = next(a["content"] for t, a in Elements(text).found if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'" and directives["form-action"] == "'none'"
    assert not {"connect-src", "font-src", "frame-src", "worker-src"} & set(directives), "left to default-src"
    hashes = re.findall(r"'sha256-([^']+)'", directives["script-src"])
    assert "unsafe-inline" not in directives["script-src"]
    found = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in Elements(text).scripts[1:]]
    assert sorted(hashes) == sorted(found)


def test_the_file_names_no_other(text: str) -> None:
    elements = Elements(text)
    outside = ("src", "href", "srcset", "data", "action", "poster", "background")
    named = [(tag, a[name]) for tag, a in elements.found for name in outside if name in a]
    assert all(value and value.startswith(("#", "data:")) for _, value in named), named
    assert not [tag for tag, _ in elements.found if tag in ("link", "iframe", "object", "embed", "base", "form")]


def test_text_from_outside_is_no_markup() -> None:
    plain = Elements(shown(made_up.report(made_up.sweep(trials=24, seed=1))))
    hostile = Elements(shown(made_up.hostile(EVIL), faces=[Face(PNG, EVIL, EVIL, EVIL)], faces_note=EVIL))
    assert len(hostile.scripts) == len(plain.scripts) == 3
    images = [attributes for tag, attributes in hostile.found if tag == "img"]
    assert [a["src"] for a in images] == [PNG]
    assert not [a for _, a in hostile.found if any(name.startswith("on") for name in a)]
    data = json.loads(hostile.scripts[0])
    assert any(EVIL[:20] in str(row) for row in data["table"]["rows"]), "it is there, as text"


def test_hostile_text_does_nothing_in_a_browser(show: Show) -> None:
    seen = show(made_up.hostile(EVIL))
    seen.draw_all()
    assert seen.page.evaluate("window.evil ?? null") is None
    assert seen.errors == [] and seen.outside() == []
    assert "window.evil=1" in seen.page.locator("h1").inner_text(), "shown as it is"
    assert seen.page.locator("#parallel a, svg a").count() == 0


def test_the_data_is_json_that_no_script_ends(text: str) -> None:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    assert "<" not in data
    read = json.loads(data)
    assert set(read) == {"table", "views", "figures", "dark"}
    assert len(read["table"]["rows"]) == 12


def test_the_winner_and_how_to_train_it_are_in_the_page(text: str) -> None:
    winner = made_up.report(made_up.sweep(trials=12)).selection.winner
    assert winner is not None
    assert f"{100 * winner.result.best_val_acc:.2f} %" in text
    assert "fersweep train --config winner.json" in text
    assert "fersweep create sweep-s0000000.yaml --search optuna" in text
    assert "fersweep data prepare PATH --name fer2013" in text


def test_faces_are_there_only_if_given(text: str) -> None:
    assert "<img" not in text and "gets most wrong" not in text
    report = made_up.report(made_up.sweep(trials=12))
    with_faces = shown(report, faces=[Face(PNG, "happy", "sad", "93 %")])
    assert with_faces.count("<img") == 1 and "its licence decides" in with_faces
    assert "They are elsewhere." in shown(report, faces_note="They are elsewhere.")


def test_the_same_report_gives_the_same_bytes() -> None:
    first, second = (shown(made_up.report(made_up.sweep(trials=30, seed=5))) for _ in range(2))
    assert first == second


def test_a_sweep_of_which_nothing_has_ended() -> None:
    sweep, _ = made_up.sweep(trials=3)
    running = [dataclasses.replace(r, state=TrialState.RUNNING, result=None) for r in sweep.records]
    text = shown(made_up.report((dataclasses.replace(sweep, records=tuple(running)), {})))
    assert "There is none: no trial has a result yet." in text
    assert json.loads(Elements(text).scripts[0])["views"] == []


def test_trials_that_all_diverged() -> None:
    sweep, histories = made_up.sweep(trials=30)
    records = [
        dataclasses.replace(r, result=r.result.model_copy(update={"best_epoch": 0, "best_val_acc": 0.0}))
        for r in sweep.records
        if r.result is not None
    ]
    report = made_up.report((dataclasses.replace(sweep, records=tuple(records)), histories))
    assert "There is none: every trial diverged." in shown(report)


def test_what_is_said_of_the_environment(tiny_data: str) -> None:
    sweep, histories = made_up.sweep(trials=4)
    records = [
        dataclasses.replace(r, config={**r.config, "data": name})
        for r, name in zip(sweep.records, (tiny_data, "gone", tiny_data, tiny_data), strict=True)
    ]
    report = made_up.report((dataclasses.replace(sweep, records=tuple(records)), histories))
    found = environment(report, ["H100, 81,559 MB"])
    gone, tiny = found.data
    assert (gone.name, gone.fingerprint) == ("gone", "")
    assert tiny.sizes == "train 140, val 70, test 0" and len(tiny.fingerprint) == 64
    assert {"python", "torch", "optuna"} <= {name for name, _ in found.versions}
    text = render(report, found)
    assert tiny.fingerprint in text and "Not prepared on this machine" in text and "H100" in text


def _contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("selector", [":root", '[data-theme="dark"]', '[data-theme="auto"]'])
def test_text_stands_out_from_its_ground(selector: str) -> None:
    css = (Path(page.__file__).parent / "templates" / "report.css").read_text()
    block = css.split(f"{selector} {{", 1)[1].split("}", 1)[0]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    for ground in ("ground", "card", "chosen"):
        for text in ("text", "quiet", "accent", "mark"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_templates_are_in_the_package() -> None:
    from importlib.resources import files

    names = {item.name for item in (files("fer_sweep.reports") / "templates").iterdir()}
    assert {"report.html.j2", "report.css", "report.js"} <= names
