"""The report and the workspace that ``fersweep report --wandb`` saves, as the library's own loader reads them back."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fer_sweep.search.entries import SweepEntry

from fer_sweep.errors import InputError, LoginError, ServerError
from fer_sweep.files import sweep_folder
from fer_sweep.records import TrialOutcome, TrialRequest
from fer_sweep.reports.shown import TITLE_LENGTH
from fer_sweep.reports.wandb_views import Views, load_library, save_views
from fer_sweep.search import pages, registry
from fer_sweep.sync import sync
from tests.support.scripted_search import TINY
from tests.support.standin.server import StandIn

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
RESULTS = ["best_val_acc", "train_val_gap"]
WEIRD = {
    "quotes": 'it\'s "so" `nice`',
    "link": "a](http://evil.example) [b](javascript:alert(1)) http://evil.example",
    "html": "<script>alert(1)</script><img src=x onerror=y>",
    "lines": "one\n# two\r\n\x1b[31mthree\u202efour\x00",
    "latex": "$$\\input{/etc/passwd}$$ **bold** ${run:name}",
    "long": "x" * 300,
    "emoji": "faces 😀🧑‍🚀 a+b=c ~^",
    "slashes": "../a/b?c=d#e%2f--Vmlldzox",
}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def save(said: list[str]) -> Callable[..., Views]:
    def run(*entries: SweepEntry, new: bool = False) -> Views:
        return save_views(entries, new=new, say=said.append)

    return run


def shipped(name: str, search: str = "wandb") -> SweepEntry:
    return registry.create(SWEEPS / f"{name}.yaml", search=search)


def of_own(**plain: Any) -> SweepEntry:
    """A small embedded sweep with other words in its file."""
    parameters = {**{name: {"value": value} for name, value in TINY.items()}, "lr": {"min": 0.001, "max": 0.01}}
    sweep = {"method": "random", "metric": {"name": "best_val_acc", "goal": "maximize"}, "parameters": parameters}
    Path("own.yaml").write_text(yaml.safe_dump({**sweep, **plain}))
    return registry.create(Path("own.yaml"), search="optuna")


def loaded(views: Views) -> tuple[Any, Any]:
    """Report and workspace, read back from their addresses by the library."""
    wr, ws = load_library()
    return wr.Report.from_url(views.report), ws.Workspace.from_url(views.workspace)


def of_kind(blocks: list[Any], kind: str) -> list[Any]:
    return [block for block in blocks if type(block).__name__ == kind]


def spec(server: StandIn, kind: str) -> Any:
    (view,) = [view for view in server.views.values() if view.type == kind]
    return json.loads(view.spec)


def nodes(tree: Any) -> list[dict[str, Any]]:
    """Every object in a spec."""
    if isinstance(tree, list):
        return [node for item in tree for node in nodes(item)]
    return [tree, *(node for item in tree.values() for node in nodes(item))] if isinstance(tree, dict) else []


def axes(plot: Any) -> dict[str, bool]:
    return {column.metric.name: column.log for column in plot.columns}


def texts(blocks: list[Any]) -> str:
    return json.dumps([repr(block) for block in blocks])


def test_one_sweep_as_its_report_is_read_back(online: StandIn, save: Callable[..., Views]) -> None:
    entry = shipped("resnet")
    views = save(entry)
    report, _ = loaded(views)
    assert (report.entity, report.project) == ("tester", "fersweep")
    assert report.title == f"resnet18 sweep resnet ({entry.id})"
    grid, matrix = of_kind(report.blocks, "PanelGrid")
    parallel, by_accuracy, by_gap, scatter, gap, accuracy, loss, comparer = grid.panels
    assert list(axes(parallel))[-2:] == RESULTS
    assert [name for name, log in axes(parallel).items() if log] == ["lr", "weight_decay"]
    assert {"augment.shift", "augment.mixup", "stem", "width", "batch_size"} < set(axes(parallel))
    assert not {"model", "data", "epochs", "optimizer"} & set(axes(parallel)), "constants are no axes"
    assert [by_accuracy.with_respect_to, by_gap.with_respect_to] == RESULTS
    assert [scatter.x.name, scatter.y.name] == RESULTS
    lines = {plot.title: (plot.x.name, [metric.name for metric in plot.y]) for plot in (accuracy, loss, gap)}
    assert list(lines.values()) == [
        ("epoch", ["val_acc", "train_acc"]),
        ("epoch", ["val_loss", "train_loss"]),
        ("epoch", ["train_val_gap"]),
    ]
    assert type(comparer).__name__ == "RunComparer"
    assert matrix.panels[0].query["summaryTable"] == {"tableKey": "confusion_matrix_table"}
    assert "one standard error" in texts(report.blocks)
    assert f"fersweep create sweep-{entry.id}.yaml --search wandb" in texts(report.blocks)
    assert f"fersweep best tester/fersweep/{entry.id}" in texts(report.blocks)


def test_the_file_in_the_report_makes_the_sweep_again(online: StandIn, save: Callable[..., Views]) -> None:
    entry = registry.create(SWEEPS / "vit.yaml", search="optuna", seed=3, max_gap=0.15, constants={"epochs": 2})
    report, _ = loaded(save(entry))
    page = pages.page_of(entry).path.id
    command, *_ = of_kind(report.blocks, "CodeBlock")
    assert f"fersweep create sweep-{page}.yaml --search optuna --max-gap 0.15 --seed 3\n" in command.code
    (heading,) = of_kind(report.blocks, "H3")
    (file,) = heading.collapsed_blocks
    Path("again.yaml").write_text(file.code)
    again = registry.create(Path("again.yaml"), search="optuna")
    assert registry.load(again) == registry.load(entry)


def test_nested_parameters_are_addressed_where_wandb_keeps_them(online: StandIn, save: Callable[..., Views]) -> None:
    save(shipped("simple_cnn"))
    accessors = [node["accessor"] for node in nodes(spec(online, "runs")) if "accessor" in node]
    assert "config:augment.value.shift" in accessors  # wandb wraps the outermost level: augment: {value: {shift: ...}}
    assert "config:lr.value" in accessors
    assert accessors[-2:] == ["summary:best_val_acc", "summary:train_val_gap"]


def test_only_the_sweeps_own_runs_show_best_first(online: StandIn, save: Callable[..., Views]) -> None:
    entry = shipped("simple_cnn")
    report, workspace = loaded(save(entry))
    wanted = {"key": {"section": "run", "name": "sweep"}, "op": "=", "value": entry.id, "disabled": False}
    for kind in ("runs", "project-view"):
        filters = [node["filters"]["filters"] for node in nodes(spec(online, kind)) if "runFeed" in node]
        assert filters and all(found == [wanted] for found in filters)
    (runset,) = of_kind(report.blocks, "PanelGrid")[0].runsets
    assert runset.filters == workspace.runset_settings.filters == f"Metric(\"Sweep\") == '{entry.id}'"
    assert (runset.order[0].name.name, runset.order[0].ascending) == ("best_val_acc", False)
    order = workspace.runset_settings.order[0]
    assert (order.item.name, order.ascending) == ("best_val_acc", False)


def test_several_sweeps_stand_side_by_side(online: StandIn, save: Callable[..., Views], said: list[str]) -> None:
    entries = [shipped("simple_cnn"), shipped("resnet"), shipped("vit", "optuna")]
    views = save(*entries)
    report, workspace = loaded(views)
    assert report.title == "3 sweeps side by side: simple_cnn, resnet18, vit"
    side, *single, matrix = of_kind(report.blocks, "PanelGrid")
    ids = [shown.id for shown in views.sweeps]
    names = [f"simple_cnn ({ids[0]})", f"resnet18: resnet ({ids[1]})", f"vit ({ids[2]})"]
    assert [runset.name for runset in side.runsets] == [runset.name for runset in matrix.runsets] == names
    assert [grid.runsets[0].name for grid in single] == names
    accuracy, gap = side.panels[:2]
    assert [panel.metrics[0].name for panel in (accuracy, gap)] == RESULTS
    grouped = [panel for panel in side.panels if getattr(panel, "groupby", None)]
    assert [panel.groupby.name for panel in grouped] == ["model"] * 5, "two bar charts, three line plots"
    shared = axes(side.panels[-1])
    assert next(iter(shared)) == "model" and list(shared)[-2:] == RESULTS
    assert shared["lr"] and not shared["dropout"]
    assert not {"stem", "hidden", "depth"} & set(shared), "what only some of them search"
    assert workspace.runset_settings.filters == f'Metric("Sweep") in {ids!r}'
    assert [note for note in said if "no run of sweep" in note and note.endswith(f"fersweep agent {entries[2].id}")]


def test_sweeps_of_one_architecture_are_told_apart_by_sweep(online: StandIn, save: Callable[..., Views]) -> None:
    report, _ = loaded(save(shipped("simple_cnn"), shipped("simple_cnn")))
    bars = of_kind(of_kind(report.blocks, "PanelGrid")[0].panels, "BarPlot")
    assert [bar.groupby for bar in bars] == ["Sweep", "Sweep"]
    assert "model" not in axes(of_kind(of_kind(report.blocks, "PanelGrid")[0].panels, "ParallelCoordinatesPlot")[0])


def test_sweeps_in_several_projects(online: StandIn, save: Callable[..., Views], said: list[str]) -> None:
    here = shipped("simple_cnn")
    there = registry.create(SWEEPS / "resnet.yaml", search="wandb", entity="lab", project="other")
    report, workspace = loaded(save(here, there))
    runsets = of_kind(report.blocks, "PanelGrid")[0].runsets
    assert [(runset.entity, runset.project) for runset in runsets] == [("tester", "fersweep"), ("lab", "other")]
    assert here.id in workspace.runset_settings.filters and there.id not in workspace.runset_settings.filters
    assert any("one project" in note for note in said)


def test_the_workspace_as_it_is_read_back(online: StandIn, save: Callable[..., Views]) -> None:
    _, workspace = loaded(save(shipped("resnet")))
    sections = {section.name: [type(panel).__name__ for panel in section.panels] for section in workspace.sections}
    assert sections == {
        "Swept parameters": ["ParallelCoordinatesPlot"],
        "Parameter importance": ["ParameterImportancePlot"] * 2,
        "Accuracy against gap": ["ScatterPlot"],
        "Over the epochs": ["LinePlot"] * 3,
        "Run by run": ["RunComparer"],
        "Confusion matrix": ["CustomChart"],
    }
    assert all(section.is_open for section in workspace.sections)
    assert workspace.auto_generate_panels is False
    assert workspace.settings.x_axis == "epoch"
    log = [name for name, is_log in axes(workspace.sections[0].panels[0]).items() if is_log]
    assert log == ["lr", "weight_decay"]


def test_every_panel_lies_on_the_grid_and_none_on_another(online: StandIn, save: Callable[..., Views]) -> None:
    report, _ = loaded(save(shipped("simple_cnn"), shipped("resnet")))
    for grid in of_kind(report.blocks, "PanelGrid"):
        cells = [
            (x, y)
            for panel in grid.panels
            for x in range(panel.layout.x, panel.layout.x + panel.layout.w)
            for y in range(panel.layout.y, panel.layout.y + panel.layout.h)
        ]
        assert len(cells) == len(set(cells))
        assert {x for x, _ in cells} == set(range(24)), "the full width is used"


def test_the_winners_confusion_matrix_is_where_its_run_logged_it(
    online: StandIn, save: Callable[..., Views], complete: Callable[..., TrialOutcome], said: list[str]
) -> None:
    entry = of_own(run_cap=2)
    search = registry.open_search(entry)
    for gap in (0.2, 0.01):
        request = search.next_trial("cpu0")
        assert isinstance(request, TrialRequest)
        search.report(request.trial_id, 1, {"epoch": 1, "val_acc": 0.5})
        search.finish(request.trial_id, complete(train_val_gap=gap))
    search.close()
    loaded(save(entry))
    assert said == [f"note: no run of sweep {entry.id} is on the server yet; next: fersweep sync {entry.id}"]
    sync(entry, say=lambda line: None)
    views = save(entry)
    (shown,) = views.sweeps
    assert (shown.runs, shown.winner) == (2, f"{entry.id}-1")
    report, _ = loaded(views)
    matrix = of_kind(report.blocks, "PanelGrid")[-1]
    (runset,) = matrix.runsets
    assert runset.filters == f"Metric(\"Sweep\") == '{shown.id}' and Metric(\"ID\") == '{shown.winner}'"
    run = online.runs[f"{entry.id}-1"]
    assert run.sweep_id == shown.id
    assert matrix.panels[0].query["summaryTable"]["tableKey"] in run.summary
    assert "shift" in run.config["augment"], "nested, as the axes address it"
    assert set(RESULTS) <= set(run.summary)


def test_saving_again_brings_the_same_two_up_to_date(online: StandIn, save: Callable[..., Views]) -> None:
    entry = shipped("simple_cnn")
    first = save(entry)
    report, workspace = loaded(first)
    report.title, report.blocks, workspace.sections = "changed by hand", [], []
    report.save(), workspace.save()
    again = save(entry)
    assert (again.report, again.workspace) == (first.report, first.workspace)
    assert len(online.views) == 2
    report, workspace = loaded(again)
    assert report.title.startswith("simple_cnn sweep")
    assert len(report.blocks) > 5 and len(workspace.sections) == 6
    assert all(node["width"] == "fluid" for node in nodes(spec(online, "runs")) if "blocks" in node)


def test_new_ones_on_request_for_other_sweeps_and_after_deletion(online: StandIn, save: Callable[..., Views]) -> None:
    one, other = shipped("simple_cnn"), shipped("resnet")
    first, both = save(one), save(one, other)
    new = save(one, new=True)
    assert len({views.report for views in (first, both, new)}) == 3
    assert save(one).report == new.report, "the latest is the one that is kept up to date"
    online.views.clear()
    after = save(one)
    assert after.report not in (first.report, new.report)
    assert sorted(view.type for view in online.views.values()) == ["project-view", "runs"]


def test_the_order_of_sweeps_makes_no_new_report(online: StandIn, save: Callable[..., Views]) -> None:
    one, other = shipped("simple_cnn"), shipped("resnet")
    assert save(one, other).report.rpartition("--")[2] == save(other, one).report.rpartition("--")[2]


def test_a_spoilt_note_of_what_was_saved_is_no_obstacle(online: StandIn, save: Callable[..., Views]) -> None:
    entry = shipped("simple_cnn")
    for content in ("{", "[]", '{"views": [{"sweeps": 1}]}', '{"views": [{"no": "sweeps"}]}'):
        (sweep_folder(entry.id) / "views.json").write_text(content)
        save(entry)
    note = json.loads((sweep_folder(entry.id) / "views.json").read_text())
    assert [record["server"] for record in note["views"]] == [online.url]


def test_a_report_that_was_saved_is_known_though_the_workspace_failed(
    online: StandIn, save: Callable[..., Views]
) -> None:
    entry = shipped("simple_cnn")
    online.faults.error("UpsertView2", "permission denied")
    with pytest.raises(LoginError, match="workspace"):
        save(entry)
    save(entry)
    assert sorted(view.type for view in online.views.values()) == ["project-view", "runs"]


@pytest.mark.parametrize("name", WEIRD.values(), ids=WEIRD.keys())
def test_names_from_files_are_text_and_nothing_else(name: str, online: StandIn, save: Callable[..., Views]) -> None:
    views = save(of_own(name=name, description=name))
    report, workspace = loaded(views)
    assert 0 < len(report.title) <= TITLE_LENGTH
    assert 0 < len(workspace.name) <= TITLE_LENGTH
    found = nodes(spec(online, "runs"))
    kinds = {node.get("type") for node in found}
    assert not kinds & {"markdown-block", "latex", "image", "html", "video", "gallery"}
    links = [node["url"] for node in found if "url" in node]
    assert links and all(link.startswith(f"{online.url}/tester/") for link in links)
    assert views.report.isascii() and views.report.count("/") == 6 and "?" not in views.report
    shown = [node["text"] for node in found if node.get("text") and "\n" not in node["text"]]
    assert all(text.isprintable() for text in [report.title, workspace.name, *shown])
    panels = [node["config"] for node in found if "viewType" in node]
    assert all("evil" not in json.dumps(panel) and "script" not in json.dumps(panel) for panel in panels)


def test_a_name_is_still_to_be_recognised(online: StandIn, save: Callable[..., Views]) -> None:
    report, workspace = loaded(save(of_own(name=WEIRD["emoji"], description="All of it")))
    assert "faces 😀🧑 🚀 a+b=c ~^ (" in report.title
    assert "faces a b c (" in workspace.name
    assert "All of it. " in texts(report.blocks)


def test_a_search_over_architectures(online: StandIn, save: Callable[..., Views]) -> None:
    parameters = {
        "model": {"values": ["simple_cnn", "vit"]},
        "data": {"value": "synthetic"},
        "weight_decay": {"distribution": "q_log_normal", "mu": -7.0, "sigma": 0.1, "q": 1e-5},
        "dropout": {"values": [0.1]},
    }
    views = save(of_own(parameters=parameters))
    report, _ = loaded(views)
    plot = of_kind(report.blocks, "PanelGrid")[0].panels[0]
    assert axes(plot) == {"model": False, "weight_decay": True, "best_val_acc": False, "train_val_gap": False}
    assert report.title.startswith("simple_cnn, vit sweep")


def test_without_the_library(online: StandIn, save: Callable[..., Views], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = shipped("simple_cnn")
    for name in [name for name in sys.modules if name.startswith("wandb_workspaces")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(InputError, match="wandb-workspaces") as caught:
        save(entry)
    assert caught.value.hint == "pip install 'fersweep[views]'"
    assert not online.views


def test_a_wrong_key_a_deleted_sweep_and_a_server_that_refuses(
    online: StandIn, save: Callable[..., Views], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = shipped("simple_cnn")
    online.faults.error("upsertView", f"no room for {online.api_key}")
    with pytest.raises(ServerError, match="did not take the report") as caught:
        save(entry)
    assert online.api_key not in str(caught.value)
    monkeypatch.setenv("WANDB_API_KEY", "local-" + "7" * 40)
    with pytest.raises(LoginError, match="does not know this API key"):
        save(entry)
    monkeypatch.setenv("WANDB_API_KEY", online.api_key)
    online.delete_sweep(entry.id)
    with pytest.raises(InputError, match=entry.id):
        save(entry)
    assert not online.views
