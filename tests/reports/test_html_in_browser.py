"""The HTML report as people meet it: in Chromium, with mouse and keyboard, light, dark, and on a phone."""

import json
from typing import Any

import pytest

pytest.importorskip("plotly", reason="the HTML report needs plotly")

from fer_sweep.reports.sources import Report
from tests.reports.conftest import Show, Shown
from tests.support import reports as made_up


@pytest.fixture(scope="module")
def many() -> Report:
    return made_up.report(made_up.sweep(trials=120, seed=2))


@pytest.fixture(scope="module")
def three() -> Report:
    names = ("simple_cnn", "resnet18", "vit")
    return made_up.report(*(made_up.sweep(name, trials=12, seed=seed) for seed, name in enumerate(names)))


def chosen(shown: Shown) -> int:
    """How many trials the brushes leave."""
    return int(shown.page.locator("#brushed").inner_text().split()[0])


def ranges(shown: Shown) -> dict[str, Any]:
    """The brushes that Plotly shows, by the place of the axis."""
    script = "() => document.getElementById('parallel').data[0].dimensions.map(d => [d.name, d.constraintrange])"
    return {name: found for name, found in shown.page.evaluate(script) if found}


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_without_an_error_or_a_request(show: Show, three: Report, width: int) -> None:
    shown = show(three, viewport={"width": width, "height": 844})
    shown.draw_all()
    assert shown.errors == []
    assert shown.outside() == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    # accuracy against gap, three curves of the best and three of the architectures, matrix, recall, progress, parallel
    assert shown.page.locator(".plot .main-svg").count() >= 11


def test_the_policy_lets_nothing_out(show: Show, many: Report) -> None:
    shown = show(many)
    refused = shown.page.evaluate(
        """async () => {
            const seen = [];
            addEventListener("securitypolicyviolation", event => seen.push(event.effectiveDirective));
            await fetch("http://127.0.0.1:9/").catch(() => {});
            const image = new Image();
            const over = new Promise(resolve => { image.onerror = resolve; });
            image.src = "http://127.0.0.1:9/x.png";
            await over;
            const script = document.createElement("script");
            script.textContent = "window.smuggled = 1";
            document.body.append(script);
            await new Promise(resolve => setTimeout(resolve, 50));
            return [seen, window.smuggled ?? null];
        }"""
    )
    assert refused == [["connect-src", "img-src", "script-src-elem"], None]


def test_brushing_an_axis_chooses_trials_everywhere(show: Show, many: Report) -> None:
    shown = show(many)
    box = shown.brush()
    x, low, high = box["x"] + box["width"] / 2, box["y"] + 0.75 * box["height"], box["y"] + 0.45 * box["height"]
    shown.page.mouse.move(x, low)
    shown.page.mouse.down()
    shown.page.mouse.move(x, (low + high) / 2, steps=4)
    shown.page.mouse.move(x, high, steps=4)
    shown.page.mouse.up()
    shown.page.wait_for_function("document.getElementById('brushed').textContent !== ''")
    (low_lr, high_lr) = ranges(shown)["0"]
    within = [
        record.trial_id
        for _, record in many.trials
        if record.result is not None and 10**low_lr <= record.parameters["lr"] <= 10**high_lr
    ]
    assert 0 < len(within) < 100
    assert abs(chosen(shown) - len(within)) <= 1, "coordinates have six digits"
    assert shown.page.locator("#found").inner_text() == f"{chosen(shown)} of 120 trials"
    shown.page.locator("[data-figure=pareto]").scroll_into_view_if_needed()
    shown.page.locator("[data-figure=pareto] .main-svg").first.wait_for()
    script = """() => document.querySelector("[data-figure=pareto]").data
        .filter(t => t.mode === "markers" && t.name !== "winner")
        .reduce((n, t) => n + (t.selectedpoints || []).length, 0)"""
    shown.page.wait_for_function(f"({script})() === {chosen(shown)}")
    shown.page.locator("#clear").click()
    shown.page.wait_for_function("document.getElementById('brushed').textContent === ''")
    assert ranges(shown) == {}
    assert shown.page.locator("#found").inner_text() == "120 of 120 trials"


def test_the_same_brushes_by_keyboard_alone(show: Show, many: Report) -> None:
    shown = show(many)
    shown.brush()
    keyboard = shown.page.keyboard
    shown.page.locator("#clear").focus()
    for _ in range(2):  # the figure that scrolls sideways, then the fields' summary
        keyboard.press("Tab")
    keyboard.press("Enter")
    keyboard.press("Tab")
    assert shown.page.evaluate("document.activeElement.getAttribute('aria-label')") == "lr from"
    keyboard.type("0.001")
    keyboard.press("Tab")
    keyboard.type("0.01")
    keyboard.press("Tab")
    shown.page.wait_for_function("document.getElementById('parallel').data[0].dimensions[0].constraintrange")
    within = [r for _, r in many.trials if r.result is not None and 0.001 <= r.parameters["lr"] <= 0.01]
    assert chosen(shown) == len(within)
    assert ranges(shown)["0"] == [[-3, -2]]
    box = shown.page.get_by_role("checkbox", name="adamw")
    box.focus()
    keyboard.press("Space")
    shown.page.wait_for_function("document.getElementById('parallel').data[0].dimensions[3].constraintrange")
    assert chosen(shown) == sum(r.parameters["optimizer"] == "adamw" for r in within)


def test_lines_are_coloured_by_accuracy_or_gap(show: Show, many: Report) -> None:
    shown = show(many)
    shown.brush()
    line = "(() => { const l = document.getElementById('parallel').data[0].line; return [l.color, l.reversescale]; })()"
    gaps = [round(100 * r.result.train_val_gap, 3) for _, r in many.trials if r.result is not None]
    assert shown.page.evaluate(line)[1] is False
    shown.page.get_by_label("gap", exact=True).check()
    shown.page.wait_for_function("document.getElementById('parallel').data[0].line.reversescale")
    assert shown.page.evaluate(line)[0] == pytest.approx(gaps)


def test_a_view_a_sweep(show: Show, three: Report) -> None:
    shown = show(three)
    shown.brush()
    names = "document.getElementById('parallel').data[0].dimensions.map(d => d.label)"
    assert shown.page.evaluate(names)[0] == "model"
    shown.page.get_by_label("Show").select_option(label=three.sweeps[1].label)
    shown.page.wait_for_function(f"({names})[0] === 'lr (log)'")
    count = sum(record.result is not None for record in three.sweeps[1].records)
    assert shown.page.evaluate("document.getElementById('parallel').data[0].dimensions[0].values.length") == count


def test_headings_sort_the_table(show: Show, many: Report) -> None:
    shown = show(many)
    accuracies = [float(text.split()[0]) for text in shown.column("best_val_acc") if text]
    assert accuracies == sorted(accuracies, reverse=True), "the best first, to begin with"
    shown.page.get_by_role("button", name="lr", exact=True).click()
    rates = [float(text) for text in shown.column("lr")]
    assert rates == sorted(rates) and min(rates) == pytest.approx(
        min(r.parameters["lr"] for _, r in many.trials), rel=1e-2
    )
    heading = shown.page.locator("th", has=shown.page.get_by_role("button", name="lr", exact=True))
    assert heading.get_attribute("aria-sort") == "ascending"
    shown.page.keyboard.press("Enter")  # the heading has the focus
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in shown.column("lr")] == sorted(map(float, shown.column("lr")), reverse=True)


def test_filters_are_words_and_conditions(show: Show, many: Report) -> None:
    shown = show(many)
    field = shown.page.locator("#filter")
    records = [record for _, record in many.trials]

    def found(query: str) -> int:
        field.fill(query)
        return int(shown.page.locator("#found").inner_text().split()[0])

    assert found("pruned") == sum(r.state == "pruned" for r in records)
    assert found("state=complete optimizer!=sgd") == sum(
        r.state == "complete" and r.parameters["optimizer"] == "adamw" for r in records
    )
    good = [r for r in records if r.result is not None and r.result.best_val_acc > 0.6 and r.parameters["lr"] <= 1e-2]
    running = [r for r in records if r.state == "running" and r.metrics["best_val_acc"] > 0.6]
    assert found("best_val_acc>0.6 lr<=1e-2") in (len(good), len(good) + len(running))
    assert found("nothing-like-it") == 0
    assert found("") == 120


def test_pages_of_the_table(show: Show, many: Report) -> None:
    shown = show(many)
    assert len(shown.column("trial")) == 50
    first = shown.column("trial")
    shown.page.locator("#next").click()
    shown.page.locator("#next").click()
    assert len(shown.column("trial")) == 20 and not set(first) & set(shown.column("trial"))
    assert shown.page.locator("#next").is_disabled()
    assert shown.page.locator("#page").inner_text() == "page 3 of 3"


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_switched(show: Show, many: Report, system: str) -> None:
    shown = show(many, color_scheme=system)
    shown.brush()
    ground = {"light": "rgb(245, 246, 248)", "dark": "rgb(15, 19, 25)"}
    card = {"light": "#ffffff", "dark": "#171c24"}
    other = "dark" if system == "light" else "light"
    of_body = "getComputedStyle(document.body).backgroundColor"
    paper = "document.getElementById('parallel').layout.paper_bgcolor"
    assert (shown.page.evaluate(of_body), shown.page.evaluate(paper)) == (ground[system], card[system])
    shown.page.get_by_label("Theme").select_option(other)
    shown.page.wait_for_function(f"{paper} === '{card[other]}'")
    assert shown.page.evaluate(of_body) == ground[other]
    assert shown.errors == []


def test_without_webgl_the_fields_still_choose(show: Show, many: Report) -> None:
    shown = show(many)
    shown.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    shown.open()
    shown.page.locator("#parallel").scroll_into_view_if_needed()
    shown.page.get_by_text("This browser has no WebGL").wait_for()
    field = shown.page.get_by_label("lr to")
    field.fill("0.001")
    field.press("Tab")
    assert chosen(shown) == sum(r.result is not None and r.parameters["lr"] <= 1e-3 for _, r in many.trials)


def test_everything_to_operate_has_a_name_and_every_figure_words(show: Show, many: Report) -> None:
    shown = show(many)
    nameless = shown.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, summary, a, [tabindex]")]
            .filter(n => !(n.textContent.trim() || n.getAttribute("aria-label") || n.labels?.length))
            .map(n => n.outerHTML)"""
    )
    assert nameless == []
    figures = shown.page.locator("[data-figure]").all()
    assert len(figures) == 8
    assert all(len(figure.get_attribute("aria-label") or "") > 20 for figure in figures)


def test_two_thousand_trials_are_shown_in_time(show: Show, record_property: Any) -> None:
    shown = show(made_up.report(made_up.sweep(trials=2000, seed=2)))
    shown.draw_all()
    marks = shown.page.evaluate(
        """() => Object.fromEntries([...performance.getEntriesByType("paint"), ...performance.getEntriesByType("mark")]
            .map(entry => [entry.name, Math.round(entry.startTime)]))"""
    )
    record_property("milliseconds", json.dumps(marks))
    assert marks["table-shown"] < marks["plotly-started"], "the table does not wait for Plotly"
    assert marks["first-contentful-paint"] < marks["plotly-started"], "nor does the page"
    assert shown.page.locator("#found").inner_text() == "2000 of 2000 trials"
    assert shown.errors == []
