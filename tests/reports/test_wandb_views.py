"""The report and the workspace that ``fersweep report --wandb`` saves, as the library's own loader reads them back."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.errors import InputError, LoginError, ServerError
from fer_sweep.files import sweep_folder
from fer_sweep.reports.wandb_views import Views, load_library, save_views
from fer_sweep.sweeps import Sweep
from fer_sweep.sync import upload
from tests.reports.test_sources import Complete, made
from tests.support.searches import create
from tests.support.standin.server import StandIn

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
RESULTS = ["best_val_acc", "train_val_gap"]
Save = Callable[..., Views]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def save(online: StandIn, said: list[str]) -> Save:
    return lambda *entries, new=False: save_views(entries, new=new, say=said.append)


def shipped(name: str = "simple_cnn", search: str = "wandb", **options: Any) -> Sweep:
    return create(SWEEPS / f"{name}.yaml", search=search, **options)


def loaded(views: Views) -> tuple[Any, Any]:
    """Report and workspace, read back from their addresses by the library."""
    wr, ws = load_library()
    return wr.Report.from_url(views.report), ws.Workspace.from_url(views.workspace)


def of_kind(blocks: list[Any], kind: str) -> list[Any]:
    return [block for block in blocks if type(block).__name__ == kind]


def nodes(server: StandIn, kind: str) -> list[dict[str, Any]]:
    """Every object in the spec of the only view of a kind."""
    (view,) = [view for view in server.views.values() if view.type == kind]
    found: list[dict[str, Any]] = []
    json.loads(view.spec, object_hook=lambda node: found.append(node) or node)
    return found


def axes(plot: Any) -> dict[str, bool]:
    """Each axis, and whether it is logarithmic."""
    return {column.metric.name: column.log for column in plot.columns}


def test_one_sweep_as_its_report_is_read_back(online: StandIn, save: Save) -> None:
    entry = shipped("resnet")
    report, workspace = loaded(save(entry))
    assert (report.entity, report.project) == ("tester", "fersweep")
    assert report.title == f"resnet18 sweep resnet ({entry.id})"
    grid, matrix = of_kind(report.blocks, "PanelGrid")
    parallel, by_accuracy, by_gap, scatter, gap, accuracy, loss, comparer = grid.panels
    assert list(axes(parallel))[-2:] == RESULTS
    assert [name for name, log in axes(parallel).items() if log] == ["lr", "weight_decay"]
    assert {"augment.shift", "augment.mixup", "stem", "width", "batch_size"} < set(axes(parallel))
    assert not {"model", "data", "epochs", "optimizer"} & set(axes(parallel)), "constants are no axes"
    assert [by_accuracy.with_respect_to, by_gap.with_respect_to] == [scatter.x.name, scatter.y.name] == RESULTS
    drawn = [[metric.name for metric in plot.y] for plot in (accuracy, loss, gap)]
    assert drawn == [["val_acc", "train_acc"], ["val_loss", "train_loss"], ["train_val_gap"]]
    assert {plot.x.name for plot in (accuracy, loss, gap)} == {"epoch"}
    assert type(comparer).__name__ == "RunComparer"
    assert matrix.panels[0].query["summaryTable"] == {"tableKey": "confusion_matrix_table"}
    said = repr(report.blocks)
    assert "one standard error" in said and f"fersweep best tester/fersweep/{entry.id}" in said
    assert f"fersweep create sweep-{entry.id}.yaml --search wandb" in said
    accessors = [node["accessor"] for node in nodes(online, "runs") if "accessor" in node]
    assert {"config:augment.value.shift", "config:lr.value"} <= set(accessors)  # wandb's augment: {value: {shift: ...}}
    assert accessors[-2:] == [f"summary:{name}" for name in RESULTS]
    (runset,) = grid.runsets
    order = workspace.runset_settings.order[0]
    assert runset.filters == workspace.runset_settings.filters == f"Metric(\"Sweep\") == '{entry.id}'"
    assert (runset.order[0].name.name, runset.order[0].ascending) == ("best_val_acc", False)
    assert (order.item.name, order.ascending) == ("best_val_acc", False)
    panels = [panel for section in workspace.sections for panel in section.panels]
    assert {type(panel) for panel in panels} == {type(panel) for panel in [*grid.panels, *matrix.panels]}
    assert len(panels) == len(grid.panels) + 1 and axes(panels[0]) == axes(parallel)
    assert (workspace.auto_generate_panels, workspace.settings.x_axis) == (False, "epoch")


def test_the_file_in_the_report_makes_the_sweep_again(save: Save) -> None:
    entry = shipped("vit", "optuna", seed=3, max_gap=0.15, constants={"epochs": 2})
    report, _ = loaded(save(entry))
    page = entry.page().path.id
    command, *_ = of_kind(report.blocks, "CodeBlock")
    assert f"fersweep create sweep-{page}.yaml --search optuna --max-gap 0.15 --seed 3\n" in command.code
    (heading,) = of_kind(report.blocks, "H3")
    Path("again.yaml").write_text(heading.collapsed_blocks[0].code)
    assert create(Path("again.yaml"), search="optuna").file == entry.file


def test_several_sweeps_stand_side_by_side(save: Save, said: list[str]) -> None:
    entries = [shipped(), shipped("resnet"), shipped("vit", "optuna")]
    views = save(*entries)
    report, workspace = loaded(views)
    assert report.title == "3 sweeps side by side: simple_cnn, resnet18, vit"
    side, *single, matrix = grids = of_kind(report.blocks, "PanelGrid")
    ids = [shown.id for shown in views.sweeps]
    names = [f"simple_cnn ({ids[0]})", f"resnet18: resnet ({ids[1]})", f"vit ({ids[2]})"]
    assert [runset.name for runset in side.runsets] == [runset.name for runset in matrix.runsets] == names
    assert [grid.runsets[0].name for grid in single] == names
    assert [panel.metrics[0].name for panel in side.panels[:2]] == RESULTS
    grouped = [panel for panel in side.panels if getattr(panel, "groupby", None)]
    assert [panel.groupby.name for panel in grouped] == ["model"] * 5, "two bar charts, three line plots"
    shared = axes(side.panels[-1])
    assert next(iter(shared)) == "model" and list(shared)[-2:] == RESULTS
    assert shared["lr"] and not shared["dropout"]
    assert not {"stem", "hidden", "depth"} & set(shared), "what only some of them search"
    assert workspace.runset_settings.filters == f'Metric("Sweep") in {ids!r}'
    assert [note for note in said if "no run of sweep" in note and note.endswith(f"fersweep agent {entries[2].id}")]
    for layouts in ([panel.layout for panel in grid.panels] for grid in grids):
        cells = [(x, y) for at in layouts for x in range(at.x, at.x + at.w) for y in range(at.y, at.y + at.h)]
        assert len(cells) == len(set(cells)), "no panel lies on another"
        assert {x for x, _ in cells} == set(range(24)), "the full width is used"


def test_sweeps_of_one_architecture_in_several_projects(save: Save, said: list[str]) -> None:
    here, there = shipped(), shipped(entity="lab", project="other")
    report, workspace = loaded(save(here, there))
    side, *_ = of_kind(report.blocks, "PanelGrid")
    assert [(runset.entity, runset.project) for runset in side.runsets] == [("tester", "fersweep"), ("lab", "other")]
    assert here.id in workspace.runset_settings.filters and there.id not in workspace.runset_settings.filters
    assert any("one project" in note for note in said)
    assert [bar.groupby for bar in of_kind(side.panels, "BarPlot")] == ["Sweep", "Sweep"]
    assert "model" not in axes(of_kind(side.panels, "ParallelCoordinatesPlot")[0])


def test_the_winners_confusion_matrix(online: StandIn, save: Save, complete: Complete, said: list[str]) -> None:
    entry = made(Path(), [complete(train_val_gap=gap) for gap in (0.2, 0.01)])
    save(entry)
    assert said == [f"note: no run of sweep {entry.id} is on the server yet; next: fersweep sync {entry.id}"]
    upload(entry, say=lambda line: None)
    views = save(entry)
    (shown,) = views.sweeps
    assert (shown.runs, shown.winner) == (2, f"{entry.id}-1")
    blocks = loaded(views)[0].blocks
    said_first = json.dumps([str(item) for item in of_kind(blocks, "UnorderedList")[0].items])
    assert f"Winner: simple_cnn, trial 1 of sweep {entry.id}" in said_first and "Verdict: balanced" in said_first
    assert [h.text for h in of_kind(blocks, "H2")][:4] == ["Winner", "Caveats", "Further seeds", "Test split"]
    matrix = of_kind(blocks, "PanelGrid")[-1]
    assert matrix.runsets[0].filters == f"Metric(\"Sweep\") == '{shown.id}' and Metric(\"ID\") == '{shown.winner}'"
    run = online.runs[f"{entry.id}-1"]
    assert run.sweep_id == shown.id
    assert {matrix.panels[0].query["summaryTable"]["tableKey"], *RESULTS} <= set(run.summary)
    assert "shift" in run.config["augment"], "nested, as the axes address it"


def test_saving_again_brings_the_same_two_up_to_date(online: StandIn, save: Save) -> None:
    one, other = shipped(), shipped("resnet")
    first = save(one)
    report, workspace = loaded(first)
    report.title, report.blocks, workspace.sections = "changed by hand", [], []
    report.save()
    workspace.save()
    again = save(one)
    assert (again.report, again.workspace) == (first.report, first.workspace)
    assert len(online.views) == 2
    assert all(node["width"] == "fluid" for node in nodes(online, "runs") if "blocks" in node)
    report, workspace = loaded(again)
    assert report.title.startswith("simple_cnn sweep")
    assert len(report.blocks) > 5 and len(workspace.sections) == 6
    both, new = save(one, other), save(one, new=True)
    assert len({views.report for views in (first, both, new)}) == 3
    assert save(other, one).report.rpartition("--")[2] == both.report.rpartition("--")[2], "whatever their order"
    assert save(one).report == new.report, "the latest is the one that is kept up to date"
    online.views.clear()
    assert save(one).report not in (first.report, new.report)
    assert sorted(view.type for view in online.views.values()) == ["project-view", "runs"]


@pytest.mark.parametrize(
    ("name", "title", "workspace_name"),
    [
        ("a](http://evil.example) <script>b</script>", "a](http://evil.example) <script>b", "a](http://evil.example) "),
        ("one\n# \r\n\x1b[31mtwo\u202e\x00 $$\\x{y}$$ **b**", "one # [31mtwo $$\\x{y}$$ **b**", "one # [31mtwo"),
        ("faces 😀🧑‍🚀 a+b=c ~^ ../d?e#f%2f--Vmlldzox", "faces 😀🧑 🚀 a+b=c ~^ ../d?e#f%2f--V", "faces a b c ../d?e"),
        ("x" * 300, "x" * 80, "x" * 80),
    ],
)
def test_names_are_only_text(name: str, title: str, workspace_name: str, online: StandIn, save: Save) -> None:
    views = save(made(Path(), [], name=name, description=name))
    report, workspace = loaded(views)
    assert title in report.title and len(report.title) <= 128
    assert workspace_name in workspace.name and len(workspace.name) <= 128
    found = nodes(online, "runs")
    markup = {"markdown-block", "latex", "image", "html", "video", "gallery"}
    assert not markup & {node.get("type") for node in found}
    links = [node["url"] for node in found if "url" in node]
    assert links and all(link.startswith(f"{online.url}/tester/") for link in links)
    assert views.report.isascii() and views.report.count("/") == 6 and "?" not in views.report
    shown = [node["text"] for node in found if node.get("text") and "\n" not in node["text"]]
    assert all(text.isprintable() for text in [report.title, workspace.name, *shown])
    panels = json.dumps([node["config"] for node in found if "viewType" in node])
    assert "evil" not in panels and "script" not in panels


def test_what_is_missing_or_refused_is_named(online: StandIn, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = shipped()
    (sweep_folder(entry.id) / "views.json").write_text('{"views": [{"sweeps": 1}]}')  # spoilt, and no obstacle
    with monkeypatch.context() as patch, pytest.raises(InputError) as missing:
        patch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
        save(entry)
    assert missing.value.hint == "pip install 'fersweep[views]'"
    online.faults.error("upsertView", f"no room for {online.api_key}")
    with pytest.raises(ServerError, match="refused the report") as caught:
        save(entry)
    assert online.api_key not in str(caught.value)
    assert not online.views
    online.faults.error("UpsertView2", "permission denied")
    with pytest.raises(LoginError, match="workspace"):
        save(entry)
    save(entry)
    assert sorted(view.type for view in online.views.values()) == ["project-view", "runs"], "no report twice"
    online.delete_sweep(entry.id)
    with pytest.raises(InputError, match=entry.id):
        save(entry)
