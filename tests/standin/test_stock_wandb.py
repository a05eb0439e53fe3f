"""Every stock W&B tool works against the stand-in server, unmodified: given WANDB_BASE_URL and WANDB_API_KEY only."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin.server import StandIn
from tests.standin.stock import Stock

RANDOM = {"method": "random", "metric": {"name": "loss"}, "parameters": {"lr": {"min": 0.0, "max": 1.0}}}
LEAN = 'wandb.Settings(console="off", silent=True, x_save_requirements=False, x_disable_stats=True, disable_git=True)'


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
    assert run.alerts == [{"title": "title", "text": "text", "severity": None}]
    assert {"config.yaml", "wandb-metadata.json", "wandb-summary.json", "requirements.txt"} <= set(run.files)
    assert "Heartbeat" not in server.operations()


def test_several_runs_at_once_and_one_resumed(server: StandIn, stock: Stock) -> None:
    sweep = server.create_sweep(RANDOM)
    output = stock.python(
        f"""
import sys
import wandb
runs = [
    wandb.init(project="faces", id=f"r{{i}}", reinit="create_new", settings={LEAN.replace(")", ", sweep_id=sys.argv[1])")})
    for i in range(3)
]
for epoch in range(2):
    for run in runs:
        run.log({{"loss": epoch}})
for run in runs:
    run.finish()
for mode in ("allow", None):
    run = wandb.init(project="faces", id="r0" if mode else "r1", resume=mode, config={{"more": 1}}, settings={LEAN})
    print("STEP", run.step, run.resumed)
    run.log({{"loss": 9}})
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
        f"""
import sys
import wandb
settings = {LEAN.replace(")", ", sweep_id=sys.argv[1])")}
with wandb.init(project="faces", id="off1", mode="offline", group="g", tags=["t"], config={{"lr": 1}}, settings=settings) as run:
    for epoch in range(3):
        run.log({{"loss": epoch}})
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
    code = f"""
import wandb
try:
    wandb.init(project="faces", entity="stranger", settings={LEAN})
except wandb.errors.Error as error:
    print("REFUSED", error)
"""
    assert "permission denied" in stock.python(code)
    assert "REFUSED" in stock.python(code, WANDB_API_KEY="local-" + "0" * 40)
    assert server.runs == {}


def test_artifacts_tables_and_plots(server: StandIn, stock: Stock) -> None:
    stock.write("weights.txt", "hello")
    output = stock.python(
        f"""
import pathlib
import wandb
run = wandb.init(project="faces", id="r1", settings={LEAN})
for note in ("first", "second", "second"):
    artifact = wandb.Artifact("model", "weights", metadata={{"note": note}})
    with artifact.new_file("note.txt") as file:
        file.write(note)
    artifact.add_file("weights.txt")
    run.log_artifact(artifact, aliases=["best"]).wait()
    print("VERSION", artifact.version)
run.log({{"table": wandb.Table(columns=["a"], data=[[1]])}})
run.log({{"matrix": wandb.plot.confusion_matrix(y_true=[0, 1], preds=[0, 1], class_names=["x", "y"])}})
run.log({{"line": wandb.plot.line(wandb.Table(columns=["x", "y"], data=[[1, 2]]), "x", "y")}})
print("FOLDER", pathlib.Path(run.use_artifact("model:v0").download("got"), "weights.txt").read_text())
run.finish()
api = wandb.Api()
print("BEST", api.artifact("tester/faces/model:best").version, api.artifact("tester/faces/model:v0").metadata)
print("ALL", [artifact.name for artifact in api.artifacts("weights", "tester/faces/model")])
print("LOGGED", len(api.run("tester/faces/r1").logged_artifacts()), api.artifact("tester/faces/model:v1").logged_by().id)
"""
    )
    assert [line for line in output.splitlines() if line.startswith("VERSION")] == ["VERSION v0", *["VERSION v1"] * 2]
    assert "FOLDER hello" in output
    assert "BEST v1 {'note': 'first'}" in output
    assert "ALL ['model:v1', 'model:v0']" in output
    assert "LOGGED 5 r1" in output
    models = [artifact for artifact in server.runs["r1"].artifacts if artifact.name == "model"]
    assert [artifact.aliases for artifact in models] == [[], ["best", "latest"]]
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


# the agents poll every five seconds and mostly wait: they run side by side, against one server

TRAIN = """
import wandb
run = wandb.init()
for epoch in range(3):
    run.log({"loss": run.config["lr"] / (epoch + 1)})
run.finish()
"""
FUNCTION = """
import sys
import wandb

def train():
    with wandb.init() as run:
        run.log({"loss": run.config.lr})

wandb.agent(sys.argv[1], function=train, count=2, project="faces")
"""
ENDLESS = """
import signal
import threading
import wandb
run = wandb.init()
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
run.log({"loss": 1})
asked.wait(60)
run.finish(exit_code=1)
"""
PREEMPTED = """
import sys
import wandb
run = wandb.init(resume="allow")
run.log({"loss": run.step})
if not run.resumed:
    run.mark_preempting()
    sys.exit(143)
"""
STOPPED = """
import time
import wandb
run = wandb.init(project="faces", id="stopped", settings=wandb.Settings(x_file_stream_transmit_interval=0.5))
for epoch in range(600):
    run.log({"loss": epoch})
    time.sleep(0.1)
"""
SWEEP = """
program: train.py
project: faces
method: grid
metric: {name: loss, goal: minimize}
parameters:
  lr: {values: [0.1, 0.2]}
  optimizer: {parameters: {name: {value: adam}}}
"""


class Agents:
    """What the stock agents did, each on a sweep of its own."""

    def __init__(self, server: StandIn, stock: Stock) -> None:
        for name, code in (("train", TRAIN), ("function", FUNCTION), ("endless", ENDLESS), ("preempted", PREEMPTED)):
            stock.write(f"{name}.py", code)
        stock.write("sweep.yaml", SWEEP)
        self.server = server
        self.created = stock.wandb("sweep", "sweep.yaml")
        (self.grid,) = server.sweeps.values()
        self.random = server.create_sweep(RANDOM)
        self.endless = server.create_sweep({**RANDOM, "program": "endless.py"})
        once = {"lr": {"values": [0.1]}}
        self.preempted = server.create_sweep({"method": "grid", "program": "preempted.py", "parameters": once})
        command = [sys.executable, "-m", "wandb", "agent"]
        processes = [
            stock.start(*command, f"tester/faces/{sweep.id}") for sweep in (self.grid, self.endless, self.preempted)
        ]
        processes.append(stock.start(sys.executable, "function.py", self.random.id))
        alone = stock.start(sys.executable, str(stock.write("stopped.py", STOPPED)))
        server.wait_for(lambda s: "stopped" in s.runs and bool(s.runs["stopped"].history))
        server.stop_run("stopped")
        server.wait_for(lambda s: any(run.history for run in s.store.sweep_runs(self.endless)) or self.ended(processes))
        server.set_sweep_state(self.endless.id, "CANCELED")
        self.outputs = [stock.output(process) for process in [*processes, alone]]
        self.codes = [process.returncode for process in [*processes, alone]]

    @staticmethod
    def ended(processes: list) -> bool:  # type: ignore[type-arg]
        return any(process.poll() is not None for process in processes)


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    with StandIn() as server, Stock(server, tmp_path_factory.mktemp("agents")) as stock:
        yield Agents(server, stock)


def test_wandb_sweep_and_wandb_agent_work_off_a_grid(agents: Agents) -> None:
    assert agents.grid.id in agents.created
    assert agents.codes[0] == 0, agents.outputs[0]
    runs = list(agents.server.store.sweep_runs(agents.grid))
    assert [run.config for run in runs] == [{"lr": lr, "optimizer": {"name": "adam"}} for lr in (0.1, 0.2)]
    assert [(run.state, len(run.history)) for run in runs] == [("finished", 3)] * 2
    assert agents.grid.state == "FINISHED"


def test_wandb_agent_with_a_function(agents: Agents) -> None:
    assert agents.codes[3] == 0, agents.outputs[3]
    runs = list(agents.server.store.sweep_runs(agents.random))
    assert [run.state for run in runs[:2]] == ["finished"] * 2
    assert all(run.history[0]["loss"] == run.config["lr"] for run in runs[:2])


def test_cancelling_ends_the_agent_and_its_run(agents: Agents) -> None:
    assert agents.codes[1] == 0, agents.outputs[1]
    (run,) = agents.server.store.sweep_runs(agents.endless)
    assert (run.state, run.stopped) == ("failed", True)
    types = [command["type"] for command in agents.endless.agents[0].commands]
    assert (types[0], types[-1]) == ("run", "exit")


def test_a_preempted_run_is_given_out_again(agents: Agents) -> None:
    assert agents.codes[2] == 0, agents.outputs[2]
    (run,) = agents.server.store.sweep_runs(agents.preempted)
    assert [command["type"] for command in agents.preempted.agents[0].commands] == ["run", "resume", "exit"]
    assert (run.state, [row["loss"] for row in run.history]) == ("finished", [0, 1])


def test_the_stop_button_interrupts_a_run_without_an_agent(agents: Agents) -> None:
    run = agents.server.runs["stopped"]
    assert agents.codes[4] != 0, agents.outputs[4]
    assert (run.state, run.exit_code) == ("failed", 255)


# reading back


def test_the_public_api(server: StandIn, stock: Stock) -> None:
    sweep = server.create_sweep(RANDOM)
    output = stock.python(
        f"""
import json
import sys
import wandb
for i in range(3):
    settings = {LEAN.replace(")", ", sweep_id=sys.argv[1])")}
    with wandb.init(project="faces", id=f"r{{i}}", config={{"lr": i}}, tags=[f"t{{i}}"], settings=settings) as run:
        for epoch in range(5):
            run.log({{"loss": (i - 1) ** 2 + 1 / (epoch + 1)}})
        run.log({{"other": 1}})
api = wandb.Api()
run = api.run("tester/faces/r1")
run.config["added"] = True
run.summary["added"] = 5
run.update()
sweep = api.sweep("tester/faces/" + sys.argv[1])
chosen = api.runs("tester/faces", filters={{"config.lr": {{"$gte": 1}}, "tags": {{"$in": ["t1", "t2"]}}}}, order="-summary_metrics.loss")
api.run("tester/faces/r2").stop()
api.run("tester/faces/r0").delete()
print("ANSWER", json.dumps({{
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
}}))
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
report = wr.Report(project="faces", title="A sweep", description="d", blocks=[wr.H1("Hi"), wr.PanelGrid(runsets=[runset], panels=panels)])
report.save()
loaded = wr.Report.from_url(report.url)
grid = next(block for block in loaded.blocks if isinstance(block, wr.PanelGrid))
print("REPORT", loaded.title, loaded.description, [type(panel).__name__ for panel in grid.panels], grid.runsets[0].filters)
loaded.title = "Another name"
loaded.save()
print("RENAMED", wr.Report.from_url(report.url).title, [report.display_name for report in wandb.Api().reports("tester/faces")])
workspace = ws.Workspace(name="W", entity="tester", project="faces", sections=[ws.Section(name="S", panels=panels[2:3])])
workspace.save()
print("WORKSPACE", ws.Workspace.from_url(workspace.url).name, ws.Workspace.from_url(workspace.url).sections[0].panels[0].y)
""",
        sweep.id,
    )
    names = ["ParallelCoordinatesPlot", "ParameterImportancePlot", "LinePlot", "RunComparer"]
    assert f"REPORT A sweep d {names}" in output
    assert sweep.id in next(line for line in output.splitlines() if line.startswith("REPORT"))
    assert "RENAMED Another name ['Another name']" in output
    assert "WORKSPACE W ['val_acc']" in output
    assert sorted(view.type for view in server.views.values()) == ["project-view", "runs"]
