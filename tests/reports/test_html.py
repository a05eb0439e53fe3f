"""The page as text: nothing from outside is markup, only known scripts run, and everything it needs is in it."""

import base64
import dataclasses
import hashlib
import itertools
import json
import re
from colorsys import rgb_to_hsv
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fer_sweep.data.cache import find_dataset
from fer_sweep.openings import Opening
from fer_sweep.records import TrialState
from fer_sweep.reports import html as page
from fer_sweep.reports import plot
from fer_sweep.reports.faces import Face
from fer_sweep.reports.html import render
from fer_sweep.reports.tables import markdown
from tests.support import reports as made_up

EVIL = "</script><script>window.evil=1</script><img src=x onerror='window.evil=1'>\"'`{{7*7}}%{x}$&\u2028<!--"
PNG = "data:image/png;base64,iVBORw0KGgo="


def elements(text: str) -> list[tuple[str, dict[str, str | None]]]:
    """What a browser would see: elements with their attributes."""
    found: list[tuple[str, dict[str, str | None]]] = []

    class Elements(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Elements().feed(text)
    return found


def scripts(text: str) -> list[str]:
    """The page's data, Plotly, and the page's own."""
    return re.findall(r"<script\b[^>]*>(.*?)</script>", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patched:
        # A module's fixture comes before a test's own folders, and this host may have a data set of that name.
        patched.setenv("FERSWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return render(made_up.report(made_up.sweep(trials=12)))


def test_only_the_two_scripts_of_the_file_may_run_on_data_that_ends_none(text: str) -> None:
    policy = next(a["content"] for t, a in elements(text) if t == "meta" and a.get("http-equiv"))
    directives = dict(part.strip().split(" ", 1) for part in (policy or "").split(";"))
    assert directives["default-src"] == "'none'" and directives["form-action"] == "'none'"
    assert not {"connect-src", "font-src", "frame-src", "worker-src"} & set(directives), "left to default-src"
    data, *code = scripts(text)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in code]
    assert sorted(re.findall(r"'sha256-([^']+)'", directives["script-src"])) == sorted(hashes)
    assert len(hashes) == 2 and "unsafe-inline" not in directives["script-src"]
    assert "<" not in data
    assert set(json.loads(data)) == {"table", "views", "figures", "dark", "colours", "chance"}
    assert len(json.loads(data)["table"]["rows"]) == 12


def test_text_from_outside_is_no_markup() -> None:
    opening = Opening("1", 1.0, EVIL, "w", EVIL, "f", "t", EVIL, 1, 1, False)
    report = dataclasses.replace(made_up.hostile(EVIL), openings=(opening,))
    hostile = render(report, (), [Face(PNG, EVIL, EVIL, EVIL)], EVIL)
    assert len(scripts(hostile)) == 3
    found = elements(hostile)
    assert [attributes["src"] for tag, attributes in found if tag == "img"] == [PNG]
    assert not [attributes for _, attributes in found if any(name.startswith("on") for name in attributes)]
    rows = json.loads(scripts(hostile)[0])["table"]["rows"]
    assert any(EVIL[:20] in str(row) for row in rows), "it is there, as text"


def test_the_winner_and_how_to_train_it_are_in_the_page_and_faces_only_if_given(text: str) -> None:
    report = made_up.report(made_up.sweep(trials=12))
    winner = report.selection.winner
    assert winner is not None
    assert f"{100 * winner.result.best_val_acc:.2f} %" in text
    assert "fersweep train --config winner.json" in text
    assert "fersweep create sweep-s0000000.yaml --search optuna" in text
    assert "fersweep data prepare auto --name fer2013" in text
    assert render(report) == text, "the same report gives the same bytes"
    assert "<img" not in text and "gets most wrong" not in text
    with_faces = render(report, (), [Face(PNG, "happy", "sad", "93 %")])
    assert with_faces.count("<img") == 1 and "licence may forbid sharing this file" in with_faces
    assert "They are elsewhere." in render(report, faces_note="They are elsewhere.")


def test_a_page_without_a_winner_says_why() -> None:
    sweep, histories = made_up.sweep(trials=30)
    running = tuple(dataclasses.replace(r, state=TrialState.RUNNING, result=None) for r in sweep.records)
    report = made_up.report((dataclasses.replace(sweep, records=running), {}))
    text = render(report)
    assert "No winner: no trial has a result yet." in text
    assert "- **Winner**: none: no trial has a result yet" in markdown(report)
    data = json.loads(scripts(text)[0])
    assert (data["views"], data["figures"]) == ([], {})
    failure = {"best_epoch": 0, "best_val_acc": 0.0}
    diverged = tuple(
        dataclasses.replace(r, result=r.result.model_copy(update=failure)) for r in sweep.records if r.result
    )
    text = render(made_up.report((dataclasses.replace(sweep, records=diverged), histories)))
    assert "No winner: every trial diverged." in text and "winner.json" not in text and "The winner, " not in text


def test_what_is_said_of_the_environment(tiny_data: str) -> None:
    sweep, histories = made_up.sweep(trials=4)
    records = tuple(
        dataclasses.replace(r, config={**r.config, "data": name})
        for r, name in zip(sweep.records, (tiny_data, "gone", tiny_data, tiny_data), strict=True)
    )
    report = made_up.report((dataclasses.replace(sweep, records=records), histories))
    text = render(report, ["H100, 81,559 MB"])
    assert "train 140, val 70, test 0" in text and find_dataset(tiny_data).fingerprint in text
    assert text.count("Not prepared on this machine") == 1 and "H100" in text
    assert all(f'<th scope="row">{package}</th>' in text for package in ("python", "torch", "optuna"))


def contrast(a: str, b: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_and_figures_stand_out_from_their_grounds() -> None:
    css = (Path(page.__file__).parent / "templates" / "report.css").read_text()
    both = {name: pair for name, *pair in re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", css)}
    for text in ("text", "quiet", "accent", "mark", "good", "warn", "bad"):
        for ground, theme in itertools.product(("ground", "card", "chosen"), (0, 1)):
            assert contrast(both[text][theme], both[ground][theme]) >= 4.5, (text, ground, theme)
    for light in (*plot.LINES, *plot.SCALE, plot.QUIET, plot.STAR):
        assert contrast(light, "#ffffff") >= 4.5 and contrast(plot.DARK[light], "#171c24") >= 4.5, light


def test_a_good_accuracy_is_green_in_both_themes() -> None:
    for scale in (plot.SCALE, [plot.DARK[colour] for colour in plot.SCALE]):
        *_, best = hues = [rgb_to_hsv(*(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0] for c in scale]
        assert 0.38 < best < 0.46 and hues == sorted(hues)


HEADINGS = (
    "Winner",
    "Learning curves",
    "Parameter importance",
    "Confusion matrix",
    "Optimization history",
    "Reproduce",
)


def test_sections_have_the_usual_headings_and_every_figure_can_be_saved(text: str) -> None:
    assert all(re.search(rf"<h2 [^>]*>{heading}</h2>", text) for heading in HEADINGS)
    drawn = [attributes for _, attributes in elements(text) if "plot" in (attributes.get("class") or "").split()]
    saved = [attributes["data-save"] for _, attributes in elements(text) if "data-save" in attributes]
    assert saved.count("svg") == saved.count("png") == len(drawn) > 5
