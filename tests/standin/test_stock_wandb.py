"""Every stock W&B tool works against the stand-in server, unmodified: given WANDB_BASE_URL and WANDB_API_KEY only."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.standin.server import StandIn
from tests.support.standin.stock import Stock

RANDOM = {"method": "random", "metric": {"name": "loss"}, "parameters": {"lr": {"min": 0.0, "max": 1.0}}}
PRELUDE = """
import json
import pathlib
import sys
import wandb

def lean():  # made anew each time: wandb.init writes its own arguments into the settings it is given
    sweep = sys.argv[1] if len(sys.argv) > 1 else None
    quiet = dict(console="off", silent=True, x_save_requirements=False, x_disable_stats=True, disable_git=True)
    return wandb.Settings(sweep_id=sweep, **quiet)
"""


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def stock(server: StandIn, tmp_path: Path) -> Iterator[Stock]:
    with Stock(server, tmp_path) as stock:
        yield stock


# runs


def test_a_run_online_with_all_that_it_carries(server: StandIn, stock: Stock) -> None:
    stock.python(
        """
import wandb
run = wandb.init(project="faces", group="g", job_type="j", name="n", notes="o", tags=["t"], config={"a": {"b": 1}})
for epoch in range(3):
    run.log({"loss": 1 / (epoch + 1), "acc": float("nan")})
run.summary["best"] = 7
run.alert("title", "text")
run.finish(exit_code=3)
"""
    )
    (run,) = server.runs.values()
    assert (run.entity, run.project, run.state, run.exit_code) == ("tester", "faces", "failed", 3)
    assert (run.group, run.job_type, run.display_name, run.notes, run.tags) == ("g", "j", "n", "o", ["t"])
    assert run.config == {"a": {"b": 1}}
    assert [row["loss"] for row in run.history] == [1, 1 / 2, 1 / 3]
    assert run.summary["best"] == 7
    assert run.alerts == [{"title": "title", "text": "text", "severity": "INFO"}]
    assert {"config.yaml", "wandb-metadata.json", "wandb-summary.json", "requirements.txt"} <= set(run.files)
    assert "Heartbeat" not in server.operations()


def test_several_runs_at_once_and_one_resumed(server: StandIn, stock: Stock) -> None:
    sweep = server.create_sweep(RANDOM)
    output = stock.python(
        PRELUDE
        + """
runs = [wandb.init(project="faces", id=f"r{i}", reinit="create_new", settings=lean()) for i in range(3)]
for epoch in range(2):
    for run in runs:
        run.log({"loss": epoch})
for run in runs:
    run.finish()
for mode in ("allow", None):
    run = wandb.init(project="faces", id="r0" if mode else "r1", resume=mode, settings=lean())
    print("STEP", run.starting_step, run.resumed)
    run.log({"loss": 9})
    run.finish()
""",
        sweep.id,
    )
    assert output.count("STEP 2 True") == output.count("STEP 0 False") == 1
    assert sweep.run_ids == ["r0", "r1", "r2"]
    assert [row["_step"] for row in server.runs["r0"].history] == [0, 1, 2]
    assert [row["loss"] for row in server.runs["r1"].history] == [9]
    assert {run.state for run in server.runs.values()} == {"finished"}


def test_an_offline_run_is_synced_into_its_sweep(server: StandIn, stock: Stock) -> None:
    sweep = server.create_sweep(RANDOM)
    stock.python(
        PRELUDE
        + """
with wandb.init(
    project="faces", id="off1", mode="offline", group="g", tags=["t"], config={"lr": 1}, settings=lean()
) as run:
    for epoch in range(3):
        run.log({"loss": epoch})
""",
        sweep.id,
    )
    assert server.requests == []
    folders = [str(path) for path in (stock.folder / "wandb").glob("offline-run-*")]
    stock.wandb("sync", *folders)
    run = server.runs["off1"]
    assert (run.state, run.sweep_id, run.group, run.tags, run.config) == ("finished", sweep.id, "g", ["t"], {"lr": 1})
    assert [row["loss"] for row in run.history] == [0, 1, 2]
    assert sweep.run_ids == ["off1"]


def test_a_foreign_entity_and_a_wrong_key_are_refused(server: StandIn, stock: Stock) -> None:
    code = (
        PRELUDE
        + """
try:
    wandb.init(project="faces", entity="stranger", settings=lean())
except wandb.errors.Error as error:
    print("REFUSED", error)
"""
    )
    assert "permission denied" in stock.python(code)
    assert "REFUSED" in stock.python(code, WANDB_API_KEY="local-" + "0" * 40)
    assert server.runs == {}


def test_artifacts_tables_and_plots(server: StandIn, stock: Stock) -> None:
    stock.write("weights.txt", "hello")
    output = stock.python(
        PRELUDE
        + """
run = wandb.init(project="faces", id="r1", settings=lean())
for note in ("first", "second", "second"):
    artifact = wandb.Artifact("model", "weights", metadata={"note": note})
    with artifact.new_file("note.txt") as file:
        file.write(note)
    artifact.add_file("weights.txt")
    run.log_artifact(artifact, aliases=["best"]).wait()
    print("VERSION", artifact.version)
run.log({"table": wandb.Table(columns=["a"], data=[[1]])})
run.log({"matrix": wandb.plot.confusion_matrix(y_true=[0, 1], preds=[0, 1], class_names=["x", "y"])})
run.log({"line": wandb.plot.line(wandb.Table(columns=["x", "y"], data=[[1, 2]]), "x", "y")})
print("FOLDER", pathlib.Path(run.use_artifact("model:v0").download("got"), "weights.txt").read_text())
run.finish()
api = wandb.Api()
print("BEST", api.artifact("tester/faces/model:best").version, api.artifact("tester/faces/model:v0").metadata)
print("ALL", [artifact.name for artifact in api.artifacts("weights", "tester/faces/model")])
logged = api.run("tester/faces/r1").logged_artifacts()
print("LOGGED", len(logged), api.artifact("tester/faces/model:v1").logged_by().id)
"""
    )
    assert [line for line in output.splitlines() if line.startswith("VERSION")] == ["VERSION v0", *["VERSION v1"] * 2]
    assert "FOLDER hello" in output
    assert "BEST v1 {'note': 'first'}" in output
    assert "ALL ['model:v1', 'model:v0']" in output
    assert "LOGGED 5 r1" in output
    models = [artifact for artifact in server.runs["r1"].artifacts if artifact.name == "model"]
    assert [sorted(artifact.aliases) for artifact in models] == [[], ["best", "latest"]]
    assert models[0].files["note.txt"] == b"first"
    assert server.runs["r1"].used_artifacts == [models[0]]
    assert {"table", "matrix_table", "line_table"} <= {key for row in server.runs["r1"].history for key in row}


# sweeps


def test_a_sweep_is_paused_resumed_stopped_and_cancelled(server: StandIn, stock: Stock) -> None:
    first, second = server.create_sweep(RANDOM), server.create_sweep(RANDOM)
    for flag, state in (("--pause", "PAUSED"), ("--resume", "RUNNING"), ("--stop", "FINISHED")):
        stock.wandb("sweep", flag, f"tester/faces/{first.id}")
        assert first.state == state
    stock.wandb("sweep", "--cancel", f"tester/faces/{second.id}")
    assert second.state == "CANCELED"


# reading back


def test_the_public_api(server: StandIn, stock: Stock) -> None:
    sweep = server.create_sweep(RANDOM)
    output = stock.python(
        PRELUDE
        + """
for i in range(3):
    with wandb.init(project="faces", id=f"r{i}", config={"lr": i}, tags=[f"t{i}"], settings=lean()) as run:
        for epoch in range(5):
            run.log({"loss": (i - 1) ** 2 + 1 / (epoch + 1)})
        run.log({"other": 1})
api = wandb.Api()
run = api.run("tester/faces/r1")
run.config["added"] = True
run.summary["added"] = 5
run.update()
sweep = api.sweep("tester/faces/" + sys.argv[1])
wanted = {"config.lr": {"$gte": 1}, "tags": {"$in": ["t1", "t2"]}}
chosen = api.runs("tester/faces", filters=wanted, order="-summary_metrics.loss")
api.run("tester/faces/r2").stop()
api.run("tester/faces/r0").delete()
print("ANSWER", json.dumps({
    "viewer": [api.default_entity, api.viewer.username],
    "projects": [project.name for project in api.projects()],
    "runs": [[run.id, run.state, run.config["lr"], run.summary["other"]] for run in api.runs("tester/faces")],
    "chosen": [run.id for run in chosen],
    "updated": [api.run("tester/faces/r1").config, api.run("tester/faces/r1").summary["added"]],
    "history": [row["loss"] for row in run.history(keys=["loss"], pandas=False)],
    "all": len(run.history(pandas=False)),
    "scanned": [row["_step"] for row in run.scan_history(page_size=2)],
    "scanned_keys": [sorted(row) for row in run.scan_history(keys=["other"])],
    "sweep": [sweep.state, sweep.config["method"], sorted(run.id for run in sweep.runs), sweep.best_run().id],
    "sweeps": [sweep.id for sweep in api.project("faces").sweeps()],
    "file": run.file("wandb-summary.json").download(root="got", replace=True).read()[:1],
}))
""",
        sweep.id,
    )
    (line,) = [line for line in output.splitlines() if line.startswith("ANSWER")]
    answer = json.loads(line.removeprefix("ANSWER "))
    assert answer == {
        "viewer": ["tester", "tester"],
        "projects": ["faces"],
        "runs": [["r1", "finished", 1, 1], ["r2", "finished", 2, 1]],
        "chosen": ["r2", "r1"],
        "updated": [{"lr": 1, "added": True}, 5],
        "history": [1 / (epoch + 1) for epoch in range(5)],
        "all": 6,
        "scanned": [0, 1, 2, 3, 4, 5],
        "scanned_keys": [["_step", "other"]],
        "sweep": ["RUNNING", "random", ["r1", "r2"], "r1"],
        "sweeps": [sweep.id],
        "file": "{",
    }
    assert server.runs["r2"].stopped


def test_reports_and_workspaces(server: StandIn, stock: Stock) -> None:
    pytest.importorskip("wandb_workspaces")
    sweep = server.create_sweep(RANDOM)
    output = stock.python(
        """
import sys
import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
panels = [
    wr.ParallelCoordinatesPlot(columns=[wr.ParallelCoordinatesPlotColumn(metric="c::lr")]),
    wr.ParameterImportancePlot(with_respect_to="val_acc"),
    wr.LinePlot(x="Step", y=["val_acc"]),
    wr.RunComparer(),
]
runset = wr.Runset(entity="tester", project="faces", filters=f"Metric('Sweep') = '{sys.argv[1]}'")
blocks = [wr.H1("Hi"), wr.PanelGrid(runsets=[runset], panels=panels)]
report = wr.Report(project="faces", title="A sweep", description="d", blocks=blocks)
report.save()
loaded = wr.Report.from_url(report.url)
grid = next(block for block in loaded.blocks if isinstance(block, wr.PanelGrid))
names = [type(panel).__name__ for panel in grid.panels]
print("REPORT", loaded.title, loaded.description, names, grid.runsets[0].filters)
loaded.title = "Another name"
loaded.save()
listed = [report.display_name for report in wandb.Api().reports("tester/faces")]
print("RENAMED", wr.Report.from_url(report.url).title, listed)
sections = [ws.Section(name="S", panels=panels[2:3])]
workspace = ws.Workspace(name="W", entity="tester", project="faces", sections=sections)
workspace.save()
loaded = ws.Workspace.from_url(workspace.url)
print("WORKSPACE", loaded.name, loaded.sections[0].panels[0].y[0].name)
""",
        sweep.id,
    )
    names = ["ParallelCoordinatesPlot", "ParameterImportancePlot", "LinePlot", "RunComparer"]
    assert f"REPORT A sweep d {names}" in output
    assert sweep.id in next(line for line in output.splitlines() if line.startswith("REPORT"))
    assert "RENAMED Another name ['Another name']" in output
    assert "WORKSPACE W val_acc" in output
    assert sorted(view.type for view in server.views.values()) == ["project-view", "runs"]
