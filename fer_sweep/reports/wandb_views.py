"""``fersweep report --wandb``: a report and a workspace on the W&B server in use, created or updated.

``wandb_layout`` defines what they show. Their addresses are kept in the sweep's folder, so that saving again updates
the same two. The library is optional (``fersweep[views]``) and uses wandb's own login and server.
"""

import contextlib
import json
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from fer_sweep.errors import FersweepError, InputError, LoginError, ServerError, printable
from fer_sweep.files import read_object, sweep_folder, write_atomically
from fer_sweep.reports.sources import ShownSweep, gather, reported
from fer_sweep.selection import select
from fer_sweep.sweeps import Sweep
from fer_sweep.sweeps.choosing import as_candidates
from fer_sweep.wandb_client.account import Account, account
from fer_sweep.wandb_client.package import quiet_wandb

_REFUSALS = ("permission", "denied", "forbidden", "unauthorized", "403", "not logged in")
"""Words of an error message that say that the API key lacks a permission."""


@dataclass(frozen=True)
class Views:
    """Saved views."""

    report: str
    """Its address."""
    workspace: str
    """Likewise."""
    sweeps: tuple[ShownSweep, ...]


@dataclass(frozen=True)
class _Known:
    """Views that were saved before: one record of views.json."""

    server: str
    project: str
    """ENTITY/PROJECT that they are in."""
    sweeps: tuple[str, ...]
    """Ids on the server, sorted."""
    report: str | None = None
    workspace: str | None = None

    @property
    def key(self) -> tuple[str, str, tuple[str, ...]]:
        return self.server, self.project, self.sweeps


_VIEWS = TypeAdapter(list[_Known])


def save_views(opened: Sequence[Sweep], *, new: bool = False, say: Callable[[str], None]) -> Views:
    """Create a report and a workspace of sweeps, or update those that were saved before.

    Args:
        opened: At least one sweep; both views are in the project of the first.
        new: Create new ones even if some were saved before.
        say: Gets notes for the user.

    Raises:
        InputError: ``wandb-workspaces`` is not installed, or a sweep was deleted on the server.
        LoginError: There is no key, or it lacks a permission.
        ServerError: The server does not answer, or refuses the report.
    """
    load_library()
    from fer_sweep.reports import wandb_layout  # only here: an optional dependency

    quiet_wandb()
    who = account()
    sweeps = tuple(_shown(sweep, say) for sweep in opened)
    gathered = gather(opened)
    place = f"{sweeps[0].entity}/{sweeps[0].project}"
    if any(f"{sweep.entity}/{sweep.project}" != place for sweep in sweeps):
        say(f"note: a workspace shows one project, this one {place}; the report has every sweep")
    folder = sweep_folder(min(sweep.id for sweep in opened))
    views = _Known(who.server, place, tuple(sorted(sweep.id for sweep in sweeps)))
    if not new:
        views = next((known for known in _remembered(folder) if known.key == views.key), views)
    with _library_errors("report", who):
        parts = ("title", "description", "blocks", "width")
        fresh = wandb_layout.report(sweeps, gathered)
        report = _saved(fresh, views.report, parts, say)
        # The library does not escape the title in the address, so a slash or a question mark breaks it.
        words = "".join(c if c.isascii() and c.isalnum() else " " for c in report.title).split()
        report_url = f"{who.app}/{report.entity}/{report.project}/reports/{'-'.join(words)}--{report.id.rstrip('=')}"
    views = replace(views, report=report_url)
    _remember(folder, views)  # now, lest an error below loses the report's address
    with _library_errors("workspace", who):
        parts = ("name", "sections", "settings", "runset_settings")
        workspace = _saved(wandb_layout.workspace(sweeps), views.workspace, parts, say)
        address = urlsplit(workspace.url)
        workspace_url = f"{who.app}{address.path}?{address.query}"
    _remember(folder, replace(views, workspace=workspace_url))
    return Views(report_url, workspace_url, sweeps)


def load_library() -> tuple[Any, Any]:
    """The modules for reports and workspaces.

    Raises:
        InputError: They are not installed.
    """
    try:
        with warnings.catch_warnings():
            # wandb-workspaces 0.4 is written with pydantic's version 1 validators, which pydantic deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            import wandb_workspaces.reports.v2 as wr  # only here: an optional dependency
            import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise InputError(
            f"wandb-workspaces cannot be imported: {error}", hint="pip install 'fersweep[views]'"
        ) from error
    return wr, ws


def _shown(sweep: Sweep, say: Callable[[str], None]) -> ShownSweep:
    page = sweep.page()
    sweep.server.sweep(page.path)  # raises if it was deleted or the key is wrong
    runs = {run.id for run in sweep.server.runs(page.path)}
    found = reported(sweep)
    if not runs:
        command = "sync" if found.records and not sweep.searched_by_server else "agent"
        say(f"note: no run of sweep {sweep.id} is on the server yet; next: fersweep {command} {sweep.argument}")
    there = [record for record in found.records if sweep.run_id(record.trial_id) in runs]
    winner = select(as_candidates(sweep.id, there), max_gap=sweep.entry.max_gap).winner
    return ShownSweep(
        **vars(found) | {"id": page.path.id},
        entity=page.path.entity,
        project=page.path.project,
        url=page.url,
        runs=len(runs),
        winner=sweep.run_id(winner.record.trial_id) if winner else None,
        argument=shlex.quote(sweep.argument),
    )


def _saved(fresh: Any, url: str | None, parts: Sequence[str], say: Callable[[str], None]) -> Any:
    """Save a view; one that was saved at an address keeps its id and comments, and its parts are replaced."""
    from wandb_workspaces.workspaces.errors import SpecVersionError, UnsupportedViewError

    view = fresh
    try:
        view = type(fresh).from_url(url) if url else fresh
    except Exception as error:  # the loaders raise errors of wandb, its service and pydantic too
        was_deleted = isinstance(error, TypeError) or "not found" in str(error).lower()
        if not was_deleted and not isinstance(error, ValueError | SpecVersionError | UnsupportedViewError):
            raise
        if not was_deleted:
            say(f"note: {url} is not updated: this wandb-workspaces cannot read it: {printable(str(error))}")
    for part in parts:
        setattr(view, part, getattr(fresh, part))
    view.save()
    return view


@contextlib.contextmanager
def _library_errors(what: str, who: Account) -> Iterator[None]:
    """Redirect what the library prints to stderr, and convert its errors to ours."""
    from wandb.errors import AuthenticationError

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except FersweepError:
        raise
    except AuthenticationError as error:
        raise LoginError(
            f"the W&B server {who.shown} does not accept this API key for a {what}",
            hint="log in again: `wandb login --relogin`, or set both WANDB_API_KEY and WANDB_BASE_URL",
        ) from error
    except Exception as error:  # the library raises errors of wandb, its service and pydantic too
        said = printable(str(error).strip().replace(who.api_key, "[API key]")) or type(error).__name__
        if any(word in said.lower() for word in _REFUSALS):
            raise LoginError(
                f"W&B refuses a {what} from this API key: {said}",
                hint="ask the project's owner for write access, or log in as another user",
            ) from error
        raise ServerError(
            f"the W&B server {who.shown} refused the {what}: {said}",
            hint="try again later; what was saved already is updated then",
        ) from error


def _remembered(folder: Path) -> list[_Known]:
    try:
        return _VIEWS.validate_python(read_object(folder / "views.json").get("views"))
    except ValidationError:
        return []


def _remember(folder: Path, views: _Known) -> None:
    others = [other for other in _remembered(folder) if other.key != views.key]
    document = {"views": [asdict(record) for record in (*others, views)]}
    write_atomically(folder / "views.json", json.dumps(document, indent=2) + "\n")
