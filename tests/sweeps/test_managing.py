"""All sweeps at a glance, and what deleting one leaves: nothing, unless an agent works on it."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep import owners
from fer_sweep.errors import InputError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.store.trials import Lease, Ledger
from fer_sweep.sweeps import known
from fer_sweep.sweeps.choosing import with_further_seeds
from fer_sweep.sweeps.managing import Overview, delete, host_of_trial, live_agents, overviews, with_confirmations
from fer_sweep.sweeps.served import NOT_FOUND
from fer_sweep.wandb_client.transport import ServerBusy
from tests.search.conftest import take
from tests.support.records import candidate, make_result
from tests.support.searches import database_at, sweep_ids

COMPLETE = TrialOutcome(TrialState.COMPLETE, make_result(best_val_acc=0.625))
DEAD, ELSEWHERE = f"{owners.on_this_host()}999999999:1", "node7/0123456789ab:1:1"


def shown(one: Overview) -> tuple[object, ...]:
    return (one.id, one.state, one.agents, one.ended, one.planned, one.best_val_acc)


def test_sweeps_are_listed_newest_first_with_live_agents_and_an_unreadable_one_last(named):
    first, second = named("first", "aaaa1111"), named("second", "bbbb2222")
    (named("bad", "cccc3333").folder / "sweep.json").write_text("{")
    with closing(first.search()) as search:
        search.finish(take(search).trial_id, COMPLETE)
        take(search)
        newest, oldest, bad = overviews()
        assert shown(newest) == (second.id, "running", 0, 0, 2, None)
        assert shown(oldest) == (first.id, "running", 1, 1, 2, 0.625)
        assert (
            oldest.data == ("synthetic",) and (bad.id, bad.entry) == ("cccc3333", None) and "cannot read" in bad.error
        )
    assert not live_agents(first)  # released
    assert [one.id for one in delete(with_confirmations([first.entry]))] == [first.id]  # whatever another one is like


def test_agents_that_are_dead_or_silent_are_not_counted(named):
    sweep = named("first", "aaaa1111")
    with closing(sweep.search()) as search:
        numbers = [int(take(search).trial_id) for _ in range(2)]
    now = sweep.database.clock()
    with sweep.database.transaction(write=True) as connection:
        ledger = Ledger(connection, sweep.id)
        ledger.hand_over(numbers[0], Lease(DEAD, "cpu0", 2, now + 60))
        ledger.hand_over(numbers[1], Lease(ELSEWHERE, "cpu0", 2, now - 1))
    (sweep.folder / "agents").mkdir()
    for name, owner in (("dead", DEAD), ("elsewhere", ELSEWHERE)):
        (sweep.folder / "agents" / f"{name}.json").write_text(json.dumps({"owner": owner}))
    assert not live_agents(sweep)
    assert (host_of_trial(sweep, "0"), host_of_trial(sweep, "1")) == (None, "node7")


def test_a_sweep_on_a_server_that_does_not_answer_shows_what_is_known_here(named, scripted_wandb, monkeypatch):
    sweep, other = named("served", "unused"), named("served too", "unused")
    with closing(sweep.search()) as search:
        search.finish(take(search).trial_id, COMPLETE)
    assert [shown(one)[1:4] for one in overviews()] == [("running", 0, 0), ("running", 0, 1)]
    asked = []

    def unreachable(*given, **options):
        asked.append(given)
        raise ServerBusy("no answer")

    with monkeypatch.context() as patch:
        patch.setattr("fer_sweep.wandb_client.client.WandbServer.sweep", unreachable)
        assert [shown(one)[:4] for one in overviews()] == [(other.id, None, 0, 0), (sweep.id, None, 0, 1)]
    assert len(asked) == 1
    scripted_wandb.server.delete_sweep(other.id)
    assert [one.state for one in overviews()] == [NOT_FOUND, "running"]
    (deleted,) = delete([sweep.entry])
    assert deleted.page == sweep.entry.url and [entry.id for entry in known()] == [other.id]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_deleting_leaves_nothing_of_a_sweep_and_its_confirmation_and_all_of_others(
    named, request, engine, tmp_path, monkeypatch
):
    monkeypatch.setenv("FERSWEEP_CHECKPOINTS", str(tmp_path / "scratch"))
    storage = request.getfixturevalue("postgres") if engine == "postgres" else None
    sweep, other = named("first", "aaaa1111", storage=storage), named("other", "bbbb2222", storage=storage)
    for each in (sweep, other):
        with closing(each.search()) as search:
            search.report(take(search).trial_id, 1, {"val_acc": 0.5})
    with with_further_seeds(sweep, candidate("0", 0.5, sweep=sweep.id), 2) as confirmation:
        ids = [sweep.id, confirmation.id]
    checkpoint = tmp_path / "scratch" / sweep.id / "0" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(bytes(1000))

    done = list(delete(with_confirmations([sweep.entry])))
    assert [one.id for one in done] == ids and done[0].bytes > 1000
    assert not sweep.folder.exists() and not checkpoint.parent.parent.exists()
    assert [entry.id for entry in known()] == sweep_ids(other.entry.database) == [other.id]
    with database_at(other.entry.database).transaction(write=False) as connection:
        for table in ("fersweep_trials", "fersweep_reports"):
            assert [row["sweep_id"] for row in connection.rows(f"SELECT sweep_id FROM {table}")] == [other.id]
    assert len(other.reports("0")) == 1


def test_a_sweep_that_an_agent_trains_is_not_deleted_nor_are_those_named_with_it(named):
    idle, busy = named("idle", "aaaa1111"), named("busy", "bbbb2222")
    with closing(busy.search()) as search:
        take(search)
        with pytest.raises(InputError, match=r"bbbb2222 cannot be deleted: 1 agent on .* works on it") as refusal:
            list(delete([idle.entry, busy.entry]))
        assert "fersweep cancel bbbb2222" in refusal.value.hint
    assert len(known()) == 2
    assert len(list(delete([idle.entry, busy.entry]))) == 2 and not known()


def test_a_deletion_that_failed_half_way_can_be_repeated(named, monkeypatch):
    sweep = named("first", "aaaa1111")
    (sweep.folder / "trials").mkdir()

    def full(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch, pytest.raises(Exception, match=r"cannot delete .*: Permission denied"):
        patch.setattr("fer_sweep.sweeps.managing.shutil.rmtree", full)
        list(delete([sweep.entry]))
    assert len(list(delete(known()))) == 1 and not sweep.folder.exists()
