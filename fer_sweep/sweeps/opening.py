"""Opening a sweep by what people call it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches

from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.errors import InputError, NothingToDo, SweepFileError
from fer_sweep.files import home
from fer_sweep.sweeps.adding import add_served, new_storage, open_entry
from fer_sweep.sweeps.entries import known
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.wandb_client.account import has_login, tracking_mode


def open_sweep(sweep_id: str | None = None, *, note: Callable[[str], None] = lambda text: None) -> Sweep:
    """Open the sweep of this id, or the one created last; one of a W&B server that is not in this home is added to it.

    Args:
        sweep_id: An id, ENTITY/PROJECT/ID, or the address of a sweep's page; None for the last one.
        note: Gets what is valid but probably not meant, about a sweep that is added.

    Raises:
        NothingToDo: No sweep has been created here yet.
        InputError: No sweep has this id.
        LoginError: It is on a server that this key has no access to.
    """
    entries = known()
    if sweep_id is None:
        if not entries:
            raise _no_sweep()
        return open_entry(entries[-1])
    for entry in entries:
        if sweep_id in (entry.id, entry.path, entry.url):
            return open_entry(entry)
    elsewhere = ""
    if "/" in sweep_id or (has_login() and tracking_mode() == "online"):
        try:
            return _adopt(sweep_id, note)
        except InputError as error:
            if "/" in sweep_id or isinstance(error, SweepFileError):
                raise
            elsewhere = f"; on W&B: {error}"
    if not entries:
        raise InputError(f"no sweep {sweep_id!r} in {home()}{elsewhere}", hint="one on W&B is ENTITY/PROJECT/ID")
    near = get_close_matches(sweep_id, [entry.id for entry in entries], n=1)
    known_ids = ", ".join(entry.id for entry in entries[-5:])
    raise InputError(
        f"no sweep {sweep_id!r} in {home()}{elsewhere}",
        hint=f"did you mean {near[0]}?" if near else f"the latest here: {known_ids}; on W&B: ENTITY/PROJECT/ID",
    )


@contextlib.contextmanager
def open_sweeps(sweep_ids: Sequence[str] | None) -> Iterator[list[Sweep]]:
    """Open several sweeps, each once, or the one searched last; closed at the end of the block.

    Raises:
        NothingToDo: No sweep has been created here yet.
        InputError: No sweep has one of these ids.
    """
    with contextlib.ExitStack() as stack:
        found: dict[str, Sweep] = {}
        for name in dict.fromkeys(sweep_ids or ()):
            sweep = stack.enter_context(open_sweep(name))
            found.setdefault(sweep.id, sweep)
        yield list(found.values()) or [stack.enter_context(last_searched())]


def last_searched() -> Sweep:
    """Open the sweep created last, those that ``fersweep confirm`` made left out.

    Raises:
        NothingToDo: There is none yet.
    """
    searched = [entry for entry in known() if entry.confirms is None]
    if not searched:
        raise _no_sweep()
    return open_entry(searched[-1])


def _no_sweep() -> NothingToDo:
    return NothingToDo(f"no sweep in {home()} yet", hint="make one: fersweep create sweeps/simple_cnn.yaml")


def _adopt(text: str, note: Callable[[str], None]) -> Sweep:
    """Record and open a sweep of the W&B server in use."""
    from fer_sweep.wandb_client import sweeps as wandb_sweeps  # only here: httpx and wandb take half a second to import

    with contextlib.closing(wandb_sweeps.connect()) as server:
        made, sweep = wandb_sweeps.take_up(server, text)
    wandb_sweeps.check_searchable(sweep)
    source = f"sweep {made.path}"
    for problem in bind(sweep, Space.from_sweep(sweep, source=source), source=source, lines={}):
        note(f"{source}, {problem}")
    for entry in known():
        if entry.path == str(made.path):
            return open_entry(entry)
        if entry.id == made.path.id:
            raise InputError(
                f"{home()} holds another sweep called {entry.id}: {entry.path or 'an embedded one'}",
                hint="set FERSWEEP_HOME to another folder for this one",
            )
    return add_served(made, sweep, new_storage(None, note), note)
