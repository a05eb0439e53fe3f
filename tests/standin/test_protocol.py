"""The scheduler of the stand-in server, asked over the wire as an agent asks it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from tests.support.standin.client import CREATE_SWEEP, HEARTBEAT, STOPPED, UPSERT_RUN, Client
from tests.support.standin.server import StandIn

GRID = {"method": "grid", "program": "train.py", "parameters": {"lr": {"values": [0.1, 0.2]}}}
RANDOM = {"method": "random", "parameters": {"lr": {"min": 0.0, "max": 1.0}}}
HYPERBAND = {
    **RANDOM,
    "metric": {"name": "loss", "goal": "minimize"},
    "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3, "strict": True},
}


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def client(server: StandIn) -> Iterator[Client]:
    with Client(server) as client:
        yield client


def run_command(commands: list[dict[str, Any]], kind: str = "run") -> dict[str, Any]:
    assert [command["type"] for command in commands] == [kind]
    return commands[0]


# sweeps


def test_a_grid_is_proposed_in_order_then_finished(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(GRID)
    agent = client.agent(sweep.id)
    for lr in (0.1, 0.2):
        command = run_command(client.beat(agent))
        assert command["args"] == {"lr": {"value": lr}}
        assert command["program"] == "train.py"
        run = server.runs[command["run_id"]]
        assert (run.state, run.sweep_id, run.agent_id, run.config) == ("pending", sweep.id, agent, {"lr": lr})
        client.begin(run.id, sweep.id, lr=lr)
        assert client.beat(agent, run.id) == []
        client.end(run.id)
        assert run.state == "finished"
    assert client.beat(agent) == [{"type": "exit"}]
    assert sweep.state == "FINISHED"


def test_an_idle_agent_waits_for_the_last_live_run_of_a_used_up_grid(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep({**GRID, "parameters": {"lr": {"values": [0.1]}}})
    busy, idle = client.agent(sweep.id), client.agent(sweep.id)
    run_id = run_command(client.beat(busy))["run_id"]
    client.begin(run_id, sweep.id, lr=0.1)
    assert client.beat(idle) == []
    client.end(run_id)
    assert client.beat(idle) == [{"type": "exit"}]


def test_a_run_that_never_starts_does_not_hold_the_sweep(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep({**GRID, "parameters": {"lr": {"values": [0.1]}}})
    agent = client.agent(sweep.id)
    run_id = run_command(client.beat(agent))["run_id"]
    assert client.beat(agent, run_id) == []
    assert client.beat(agent) == [{"type": "exit"}]
    assert server.runs[run_id].state == "pending"


def test_the_cap_counts_every_run(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep({**RANDOM, "run_cap": 2})
    agent = client.agent(sweep.id)
    for _ in range(2):
        run_id = run_command(client.beat(agent))["run_id"]
        client.begin(run_id, sweep.id)
        client.end(run_id, 1)
        assert server.runs[run_id].state == "failed"
    assert client.beat(agent) == [{"type": "exit"}]
    assert len(sweep.run_ids) == 2


def test_nested_parameters_travel_as_one_dictionary(server: StandIn, client: Client) -> None:
    parameters = {
        "optimizer": {"parameters": {"name": {"value": "adam"}, "lr": {"values": [1, 2]}}},
        "deep": {"parameters": {"er": {"parameters": {"q": {"value": 0}}}}},
    }
    sweep = server.create_sweep({"method": "grid", "parameters": parameters})
    agent = client.agent(sweep.id)
    seen = []
    for _ in range(2):
        args = run_command(client.beat(agent))["args"]
        assert args["deep"] == {"value": {"er": {"q": 0}}}
        seen.append(args["optimizer"]["value"])
    assert seen == [{"name": "adam", "lr": 1}, {"name": "adam", "lr": 2}]


def test_bayes_proposes_from_what_was_measured(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep({**RANDOM, "method": "bayes", "metric": {"name": "loss"}})
    agent = client.agent(sweep.id)
    for _ in range(3):
        command = run_command(client.beat(agent))
        lr = command["args"]["lr"]["value"]
        assert 0 <= lr <= 1
        client.begin(command["run_id"], sweep.id, lr=lr)
        client.log(command["run_id"], {"loss": lr})
        client.end(command["run_id"])


def test_pause_resume_and_stop(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(RANDOM)
    busy, idle = client.agent(sweep.id), client.agent(sweep.id)
    run_id = run_command(client.beat(busy))["run_id"]
    server.set_sweep_state(sweep.id, "PAUSED")
    assert (client.beat(busy, run_id), client.beat(idle)) == ([], [])
    server.set_sweep_state(sweep.id, "RUNNING")
    run_command(client.beat(idle))
    server.set_sweep_state(sweep.id, "FINISHED")
    assert (client.beat(busy, run_id), client.beat(busy)) == ([], [{"type": "exit"}])


def test_cancel_stops_what_runs(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    run_id = run_command(client.beat(agent))["run_id"]
    client.begin(run_id, sweep.id)
    server.set_sweep_state(sweep.id, "CANCELED")
    for _ in range(2):
        assert client.beat(agent, run_id) == [{"type": "stop", "run_id": run_id}]
    server.store.exit_with_cancel = True
    assert client.beat(agent, run_id) == [{"type": "stop", "run_id": run_id}, {"type": "exit"}]
    assert client.log(run_id, {"loss": 1})["stopped"] is True
    assert client.beat(agent) == [{"type": "exit"}]


def test_the_stop_button_of_one_run(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    run_id = run_command(client.beat(agent))["run_id"]
    client.begin(run_id, sweep.id)
    assert client.log(run_id, {"loss": 1})["stopped"] is False
    server.stop_run(run_id)
    assert client.beat(agent, run_id) == client.beat(agent, run_id) == [{"type": "stop", "run_id": run_id}]
    status = client.graphql(STOPPED, project="faces", run=run_id)
    assert status == {"model": {"bucket": {"stopped": True}}}
    client.end(run_id, 1)
    run_command(client.beat(agent))


def test_hyperband_stops_the_worse_run(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(HYPERBAND)
    good, bad = client.agent(sweep.id), client.agent(sweep.id)
    run_ids = [run_command(client.beat(agent))["run_id"] for agent in (good, bad)]
    for run_id, loss in zip(run_ids, (0.1, 0.9), strict=True):
        client.begin(run_id, sweep.id)
        client.log(run_id, {"loss": loss}, {"loss": loss})
    client.log(run_ids[0], {"loss": 0.05}, offset=2)
    assert client.beat(good, run_ids[0]) == []
    assert client.beat(bad, run_ids[1]) == [{"type": "stop", "run_id": run_ids[1]}]


def test_a_reached_target_finishes_the_sweep(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep({**RANDOM, "metric": {"name": "acc", "goal": "maximize", "target": 0.9}})
    agent = client.agent(sweep.id)
    run_id = run_command(client.beat(agent))["run_id"]
    client.begin(run_id, sweep.id)
    client.log(run_id, {"acc": 0.8})
    assert sweep.state == "RUNNING"
    client.log(run_id, {"acc": 0.95}, offset=1)
    assert sweep.state == "FINISHED"
    assert client.beat(agent, run_id) == []
    assert client.beat(agent) == [{"type": "exit"}]


@pytest.mark.parametrize("how", ["exit", "silence"])
def test_a_preempted_run_comes_back_with_its_history(server: StandIn, client: Client, how: str) -> None:
    sweep = server.create_sweep({**GRID, "parameters": {"lr": {"values": [0.1]}}})
    first, second = client.agent(sweep.id), client.agent(sweep.id)
    command = run_command(client.beat(first))
    run = server.runs[command["run_id"]]
    begun = client.begin(run.id, sweep.id, lr=0.1)
    client.log(run.id, {"loss": 1.0})
    client.stream(run.id, preempting=True)
    assert run.state == "preempting"
    if how == "exit":
        client.end(run.id, 143)
    else:
        server.crash_silent_runs(run.id)
    assert (run.state, sweep.requeued) == ("preempted", [run.id])
    again = run_command(client.beat(second), "resume")
    assert {**again, "type": "run"} == command
    assert run.agent_id == second
    client.graphql(UPSERT_RUN, id=begun["bucket"]["id"], name=run.id, host="box", sweep=sweep.id)
    assert (run.state, run.exit_code) == ("running", None)
    client.log(run.id, {"loss": 0.5}, offset=1)
    client.end(run.id)
    assert [row["loss"] for row in run.history] == [1.0, 0.5]
    assert client.beat(second) == [{"type": "exit"}]


def test_a_run_preempted_in_a_paused_sweep_waits_for_it(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    run_id = run_command(client.beat(agent))["run_id"]
    client.begin(run_id, sweep.id)
    server.set_sweep_state(sweep.id, "PAUSED")
    client.stream(run_id, preempting=True, complete=True, exitcode=143)
    assert (server.runs[run_id].state, client.beat(agent)) == ("preempted", [])
    server.set_sweep_state(sweep.id, "RUNNING")
    assert run_command(client.beat(agent), "resume")["run_id"] == run_id


def test_many_agents_at_once_get_each_point_once(server: StandIn) -> None:
    sweep = server.create_sweep({"method": "grid", "parameters": {"x": {"values": list(range(24))}}})

    def work(number: int) -> None:
        with Client(server) as client:
            agent = client.agent(sweep.id)
            while (commands := client.beat(agent)) != [{"type": "exit"}]:
                for command in commands:
                    client.begin(command["run_id"], sweep.id, x=command["args"]["x"]["value"])
                    client.end(command["run_id"])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert sorted(run.config["x"] for run in server.runs.values()) == list(range(24))
    assert {run.state for run in server.runs.values()} == {"finished"}


def test_a_preempted_run_that_exits_well_is_done(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(RANDOM)
    run_id = run_command(client.beat(client.agent(sweep.id)))["run_id"]
    client.begin(run_id, sweep.id)
    client.stream(run_id, preempting=True)
    client.end(run_id, 0)
    assert (server.runs[run_id].state, sweep.requeued) == ("finished", [])


def test_a_silent_run_stays_running_until_the_server_gives_it_up(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep({**GRID, "parameters": {"lr": {"values": [0.1]}}})
    agent = client.agent(sweep.id)
    run_id = run_command(client.beat(agent))["run_id"]
    client.begin(run_id, sweep.id, lr=0.1)
    assert client.beat(agent) == []
    assert server.runs[run_id].state == "running"
    server.crash_silent_runs()
    assert server.runs[run_id].state == "crashed"
    assert client.beat(agent) == [{"type": "exit"}]
    client.log(run_id, {"loss": 1})
    assert server.runs[run_id].state == "running"


@pytest.mark.parametrize("config", [{**GRID, "controller": {"type": "local"}}, {**GRID, "method": "custom"}])
def test_the_server_proposes_nothing_for_a_controller_elsewhere(
    server: StandIn, client: Client, config: dict[str, Any]
) -> None:
    sweep = server.create_sweep(config)
    assert client.beat(client.agent(sweep.id)) == []
    assert (sweep.state, sweep.run_ids) == ("RUNNING", [])


def test_a_deleted_sweep_is_not_found(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    server.delete_sweep(sweep.id)
    status, answer, _ = client.post("/graphql", {"query": HEARTBEAT, "variables": {"id": agent, "runState": "{}"}})
    assert status == 404
    assert "not found" in answer["errors"][0]["message"]


def test_a_sweep_is_made_changed_and_refused(server: StandIn, client: Client) -> None:
    made = client.graphql(CREATE_SWEEP, config=yaml.safe_dump({**GRID, "surprise": 1}), projectName="faces")[
        "upsertSweep"
    ]
    assert "surprise" in made["configValidationWarnings"][0]
    sweep = server.sweeps[made["sweep"]["name"]]
    assert (sweep.entity, sweep.project, sweep.state) == ("tester", "faces", "RUNNING")
    client.graphql(CREATE_SWEEP, id=made["sweep"]["id"], state="PAUSED")
    assert (sweep.state, sweep.config["method"]) == ("PAUSED", "grid")
    for useless in ("", "method: magic", "method: grid", "method: grid\nparameters: {a: {min: 0.0, max: 1.0}}"):
        _, answer, _ = client.post("/graphql", {"query": CREATE_SWEEP, "variables": {"config": useless}})
        assert "invalid sweep config" in answer["errors"][0]["message"]
