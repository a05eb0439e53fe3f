"""The HTML report as people meet it: in Chromium, with mouse and keyboard, light, dark, and on a phone."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fer_sweep.records import TrialRecord
from fer_sweep.reports.html import render
from fer_sweep.reports.sources import Report
from tests.pictures.__main__ import take
from tests.reports.conftest import Show, Shown
from tests.reports.test_html import EVIL
from tests.support import reports as made_up

AXIS = "data[0].dimensions[0]"


@pytest.fixture(scope="module")
def many() -> Report:
    return made_up.report(made_up.sweep(trials=120, seed=2))


@pytest.fixture(scope="module")
def three() -> Report:
    names = ("simple_cnn", "resnet18", "vit")
    return made_up.report(*(made_up.sweep(name, trials=12, seed=seed) for seed, name in enumerate(names)))


def number(shown: Shown, id: str) -> int:
    """The number that an output of the page begins with."""
    return int(shown.page.locator(id).inner_text().split()[0])


def between(report: Report, low: float, high: float) -> list[TrialRecord]:
    """Trials with a result and a learning rate between two."""
    return [r for _, r in report.trials if r.result is not None and low <= r.parameters["lr"] <= high]


def column(shown: Shown, label: str) -> Any:
    """What the table shows in a column."""
    place = [text.strip() for text in shown.page.locator("#table thead th").all_inner_texts()].index(label) + 1
    return shown.page.locator(f"#table tbody tr > :nth-child({place})").all_inner_texts()


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_and_everything_to_operate_has_a_name(show: Show, three: Report, width: int) -> None:
    shown = show(three, viewport={"width": width, "height": 844})
    shown.draw_all()
    assert shown.errors == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    labels = [figure.get_attribute("aria-label") for figure in shown.page.locator("[data-figure]").all()]
    assert len(labels) == 10  # accuracy against gap, six of curves, matrix, recall, progress
    assert min(map(len, labels)) > 20
    nameless = shown.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, summary, a, [tabindex]")]
            .filter(n => !(n.textContent.trim() || n.getAttribute("aria-label") || n.labels?.length))
            .map(n => n.outerHTML)"""
    )
    assert nameless == []
    marks = shown.page.evaluate("performance.getEntriesByType('mark').map(mark => mark.name)")
    assert marks.index("table-shown") < marks.index("plotly-started"), "the table does not wait for Plotly"
    assert shown.parallel(f"{AXIS}.label") == "model"
    shown.page.get_by_label("Show").select_option(label=three.names[three.sweeps[1].id])
    shown.wait_for(f"{AXIS}.label === 'lr (log)'")
    count = sum(record.result is not None for record in three.sweeps[1].records)
    assert shown.parallel(f"{AXIS}.values.length") == count, "one sweep's view"


def test_hostile_text_does_nothing(show: Show) -> None:
    shown = show(made_up.hostile(EVIL))
    shown.draw_all()
    assert shown.errors == []
    assert shown.page.evaluate("window.evil ?? null") is None
    assert "window.evil=1" in shown.page.locator("h1").inner_text(), "shown as it is"
    assert shown.page.locator("#parallel a, svg a").count() == 0


def test_brushing_an_axis_chooses_trials_everywhere(show: Show, many: Report) -> None:
    shown = show(many)
    box, mouse = shown.brush(), shown.page.mouse
    x = box["x"] + box["width"] / 2
    mouse.move(x, box["y"] + 0.75 * box["height"])
    mouse.down()
    mouse.move(x, box["y"] + 0.45 * box["height"], steps=8)
    mouse.up()
    shown.wait_for(f"{AXIS}.constraintrange")
    low, high = shown.parallel(f"{AXIS}.constraintrange")
    within = between(many, 10**low, 10**high)
    shown.page.wait_for_function("document.getElementById('brushed').textContent !== ''")
    chosen = number(shown, "#brushed")
    assert 0 < chosen < 100 and abs(chosen - len(within)) <= 1, "coordinates have six digits"
    assert shown.page.locator("#found").inner_text() == f"{chosen} of 120 trials"
    shown.page.locator("[data-figure=pareto]").scroll_into_view_if_needed()
    shown.page.locator("[data-figure=pareto] .main-svg").first.wait_for()
    selected = """document.querySelector("[data-figure=pareto]").data
        .filter(t => t.mode === "markers" && t.name !== "winner")
        .reduce((n, t) => n + (t.selectedpoints || []).length, 0)"""
    shown.page.wait_for_function(f"{selected} === {chosen}")
    shown.page.locator("#clear").click()
    shown.page.wait_for_function("document.getElementById('brushed').textContent === ''")
    assert shown.page.locator("#found").inner_text() == "120 of 120 trials"
    assert shown.parallel("data[0].line.reversescale") is False
    shown.page.get_by_label("gap", exact=True).check()
    shown.wait_for("data[0].line.reversescale")
    gaps = [100 * r.result.train_val_gap for _, r in many.trials if r.result is not None]
    assert shown.parallel("data[0].line.color") == pytest.approx(gaps, abs=1e-3), "coloured by the gap"


def test_the_same_brushes_by_keyboard_alone(show: Show, many: Report) -> None:
    shown = show(many)
    shown.brush()
    keyboard = shown.page.keyboard
    shown.page.locator("#clear").focus()
    for key in (*["Tab"] * 4, "Enter", "Tab"):  # two buttons to save, the figure that scrolls sideways, the summary
        keyboard.press(key)
    assert shown.page.evaluate("document.activeElement.getAttribute('aria-label')") == "lr from"
    for value in ("0.001", "0.01"):
        keyboard.type(value)
        keyboard.press("Tab")
    shown.wait_for(f"{AXIS}.constraintrange")
    assert shown.parallel(f"{AXIS}.constraintrange") == [[-3, -2]]
    within = between(many, 0.001, 0.01)
    assert number(shown, "#brushed") == len(within)
    shown.page.get_by_role("checkbox", name="adamw").focus()
    keyboard.press("Space")
    shown.wait_for("data[0].dimensions[3].constraintrange")
    assert number(shown, "#brushed") == sum(r.parameters["optimizer"] == "adamw" for r in within)


def test_the_table_has_pages_sorts_by_its_headings_and_filters(show: Show, many: Report) -> None:
    shown = show(many)
    accuracies = [float(text.split()[0]) for text in column(shown, "best_val_acc") if text]
    assert accuracies == sorted(accuracies, reverse=True), "the best first, to begin with"
    first = column(shown, "trial")
    shown.page.locator("#next").click()
    shown.page.locator("#next").click()
    assert (len(first), len(column(shown, "trial"))) == (50, 20) and not set(first) & set(column(shown, "trial"))
    assert shown.page.locator("#next").is_disabled()
    assert shown.page.locator("#page").inner_text() == "page 3 of 3"
    button = shown.page.get_by_role("button", name="lr", exact=True)
    button.click()
    lowest = min(record.parameters["lr"] for _, record in many.trials)
    rates = [float(text) for text in column(shown, "lr")]
    assert rates == sorted(rates) and rates[0] == pytest.approx(lowest, rel=1e-2)
    heading = shown.page.locator("th", has=button)
    assert heading.get_attribute("aria-sort") == "ascending"
    shown.page.keyboard.press("Enter")  # the heading has the focus
    assert heading.get_attribute("aria-sort") == "descending"
    rates = [float(text) for text in column(shown, "lr")]
    assert rates == sorted(rates, reverse=True)

    def found(query: str) -> int:
        shown.page.locator("#filter").fill(query)
        return number(shown, "#found")

    records = [record for _, record in many.trials]
    adamw = [r for r in records if r.state == "complete" and r.parameters["optimizer"] == "adamw"]
    good = [r for r in between(many, 0, 1e-2) if r.result is not None and r.result.best_val_acc > 0.6]
    assert found("pruned") == sum(r.state == "pruned" for r in records)
    assert found("state=complete optimizer!=sgd") == len(adamw)
    assert found("best_val_acc>0.6 lr<=1e-2 state!=running") == len(good)
    accurate = sum(r.result is not None and r.result.best_val_acc > 0.6 for r in records)
    running = sum(r.state == "running" and r.metrics["best_val_acc"] > 0.6 for r in records)
    for query in (">60%", "> 60 %", "accuracy>60", "best_val_acc > 0.6", "best_val_acc > 60.0 %"):
        assert found(query) == accurate + running, query
    gaps = [r.result.train_val_gap if r.result else r.metrics.get("train_val_gap", 1) for r in records]
    for query in ("gap < 10 points", "train_val_gap<10", "gap<0.1"):
        assert found(query) == sum(gap < 0.1 for gap in gaps), query
    assert found("gap < 1") == found("gap < 1 point") < found("gap<0.1")
    times = [r.result.seconds if r.result else 0 for r in records]
    short = sum(0 < seconds < 60 for seconds in times)
    for query in ("< 1 min", "<60s", "minutes < 1", "seconds < 60", "time < 0.01667 h"):
        assert found(query) == short, query
    pruned = [r for r in records if r.state == "pruned" and r.result is not None]
    assert found("pruned >40%") == sum(r.result.best_val_acc > 0.4 for r in pruned) > 0, "a word, and a condition"
    assert found("parameters > 11,000,000 state = pruned") == sum(r.state == "pruned" for r in records)
    unknown = shown.page.locator("#unknown")
    assert unknown.inner_text() == "" and found("accurcy>3") == 120
    assert unknown.inner_text().startswith("Unknown column accurcy. Columns: ") and "lr" in unknown.inner_text()
    assert found("nothing-like-it") == 0
    assert found("") == 120


@pytest.mark.parametrize(
    ("system", "ground", "card"),
    [("light", "rgb(245, 246, 248)", "#171c24"), ("dark", "rgb(15, 19, 25)", "#ffffff")],
)
def test_the_theme_follows_the_system(show: Show, many: Report, system: str, ground: str, card: str) -> None:
    shown = show(many, color_scheme=system)
    shown.brush()
    body = "getComputedStyle(document.body).backgroundColor"
    assert shown.page.evaluate(body) == ground
    shown.page.get_by_label("Theme").select_option("dark" if system == "light" else "light")
    shown.wait_for(f"layout.paper_bgcolor === '{card}'")
    assert shown.page.evaluate(body) != ground
    assert shown.errors == []


def test_without_webgl_the_fields_still_choose(show: Show, many: Report) -> None:
    shown = show(many)
    shown.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    shown.page.reload()
    shown.page.locator("#parallel").scroll_into_view_if_needed()
    shown.page.get_by_text("This browser has no WebGL").wait_for()
    field = shown.page.get_by_label("lr to")
    field.fill("0.001")
    field.press("Tab")
    assert number(shown, "#brushed") == len(between(many, 0, 1e-3))


def test_pictures_are_taken_of_a_report_and_of_its_sections(chromium: Any) -> None:
    Path("report.html").write_text(render(made_up.report(made_up.sweep(trials=12, seed=1))))
    for section, least in (("", 1000), ("best", 400)):
        take(chromium, Path("report.html"), Path("picture.png"), section)
        with Image.open("picture.png") as picture:
            assert 900 < picture.width <= 1280 and least < picture.height <= 2400


def test_pointing_at_a_trial_marks_it_everywhere_and_clicking_leads_to_its_row(show: Show, many: Report) -> None:
    shown = show(many)
    shown.draw_all()
    shown.page.locator("#parallel polyline.winner").wait_for(state="attached")
    off = shown.page.evaluate(
        """() => {
            const [line, top] = [document.querySelector("polyline.winner"), document.getElementById("parallel")];
            const {values, ticktext} = top.data[0].dimensions[3], row = [...top.querySelectorAll(".axis")][3];
            const winner = JSON.parse(document.getElementById("data").textContent).views[0].rows
                .indexOf(document.querySelector("tr.winner").dataset.row * 1);
            const tick = [...row.querySelectorAll(".tick")].find(t => t.textContent === ticktext[values[winner]]);
            const box = tick.querySelector("line").getBoundingClientRect();
            return line.points[3].y + top.getBoundingClientRect().top - (box.top + box.bottom) / 2;
        }"""
    )
    assert abs(off) < 3, "the winner's line passes through its optimizer"
    figure = shown.page.locator("[data-figure=pareto]")
    figure.scroll_into_view_if_needed()
    figure.locator(".main-svg").first.wait_for()
    x, y, row = shown.page.evaluate(
        """() => {
            const node = document.querySelector("[data-figure=pareto]"), box = node.getBoundingClientRect();
            const {xaxis, yaxis} = node._fullLayout, trace = node.data.find(t => t.name === "winner");
            return [box.left + xaxis._offset + xaxis.l2p(trace.x[0]), box.top + yaxis._offset + yaxis.l2p(trace.y[0]),
                trace.customdata[0]];
        }"""
    )
    shown.page.mouse.move(x - 1, y)
    shown.page.mouse.move(x, y)
    figure.locator("svg.marks circle.hovered").wait_for(state="attached")
    assert shown.page.locator("#parallel polyline.hovered").count() == 1
    assert shown.page.locator("[data-figure=curves-best-loss] polyline.hovered").count() == 1, "the trial's curve"
    assert "dropout" in (figure.locator(".hoverlayer").text_content() or "")
    shown.page.mouse.down()
    shown.page.mouse.up()
    shown.page.locator(f"tr.target[data-row='{row}']").wait_for()
    assert shown.errors == []


@pytest.mark.parametrize("figure", ["[data-figure=pareto]", "#parallel"])
def test_figures_are_saved(show: Show, many: Report, figure: str) -> None:
    shown = show(many)
    card = shown.page.locator(".card", has=shown.page.locator(figure))
    for suffix, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with shown.page.expect_download() as saved:
            card.locator(f"[data-save={suffix}]").click()
        assert saved.value.suggested_filename.endswith(f".{suffix}")
        assert Path(saved.value.path()).read_bytes().startswith(start)
    assert shown.errors == []


def test_two_checked_rows_are_compared(show: Show, three: Report) -> None:
    shown = show(three)
    boxes = shown.page.locator("#table tbody input")
    boxes.nth(0).check()
    assert shown.page.locator("#compared").is_hidden()
    boxes.nth(5).check()
    assert "noise: chance explains up to" in shown.page.locator("#difference").inner_text()
    first, *rows = shown.page.locator("#side-by-side th").all_inner_texts()
    assert first == "" and "lr" in rows and "best_val_acc" in rows and rows[0].count("/") == 1
    shown.page.locator("#table thead .trial button").click()
    assert shown.page.locator("#table tbody input:checked").count() <= 2
    sticky = "getComputedStyle(document.querySelector('#table tbody th')).position"
    assert shown.page.evaluate(sticky) == "sticky"
