"""Sweeps on a W&B server: created from a file, opened by address, or created as the page of an embedded sweep."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import filelock

from fer_sweep.config.sweep_file import SweepFile, parse_sweep
from fer_sweep.errors import InputError, cannot_write, printable
from fer_sweep.files import read_json, sweep_folder, write_atomically
from fer_sweep.records import SweepState
from fer_sweep.wandb_client.account import Account, account, place
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import SweepPath
from fer_sweep.wandb_client.transport import NotFound

_COMMAND = ("${env}", "fersweep", "train", "${args}")
"""The command of a stock agent for a sweep file without one; it needs ``program`` too, but not the file it names."""

_OWN_HOSTS = frozenset({"api.wandb.ai", "wandb.ai", "www.wandb.ai", "forge.coreweave.com", "api.forge.coreweave.com"})


@dataclass(frozen=True)
class Made:
    """A sweep on a server, the address of its page, and the server's warnings about its file."""

    path: SweepPath
    url: str
    warnings: Sequence[str]


def connect() -> WandbServer:
    """The server of the account in use; raises ``LoginError`` if there is no API key."""
    return WandbServer(account())


def make(server: WandbServer, sweep: SweepFile, *, entity: str | None = None, project: str | None = None) -> Made:
    """Create a sweep; entity and project come from options, environment, file, settings, or the key's default.

    Raises:
        LoginError: The key is wrong, or lacks access to that entity.
        InputError: The server refuses the file, the entity or the project.
    """
    usual_entity, usual_project = place(sweep.entity, sweep.project)
    path, warnings = server.create_sweep(
        _as_stock_sends(sweep.to_plain()),
        entity=entity or usual_entity or server.default_entity(),
        project=project or usual_project,
    )
    return _made(server, path, warnings)


def adopt(server: WandbServer, text: str) -> tuple[Made, SweepFile]:
    """A sweep that is on the server already, by path, id or address, with its sweep file.

    Raises:
        InputError: The text is not a sweep, or the server does not have it.
        SweepFileError: Its sweep file is invalid.
    """
    _check_host(server.account, text)
    usual_entity, usual_project = place(None, None)
    entity, project, sweep_id = parse_path(text, entity=usual_entity, project=usual_project)
    found = server.sweep(SweepPath(entity or server.default_entity(), project or usual_project, sweep_id))
    path = found.path
    content = {key: value for key, value in found.config.items() if value is not None}
    sweep = parse_sweep(content, source=f"sweep {path}")
    return _made(server, path), sweep


def stand_in_for(server: WandbServer, sweep_id: str, sweep: SweepFile, *, is_open: bool) -> Made:
    """The page of an embedded sweep: a sweep on the server that its runs belong to, created on first use.

    If several agents call this at once, one creates it. It proposes nothing: its controller is declared local. The page
    of an open sweep that shows it as finished is reopened: the sweep has been given more trials since. Raises as
    ``make`` does, and ``StorageError`` if the sweep's folder cannot be written.
    """
    folder = sweep_folder(sweep_id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".wandb.lock").acquire()
    except OSError as error:
        raise cannot_write(folder, error) from error
    with lock:  # released at the end
        if known := known_page(sweep_id, server.account.server):
            try:
                if server.sweep(known).state is SweepState.FINISHED and is_open:
                    server.set_state(known, SweepState.RUNNING)
                return _made(server, known)
            except NotFound:
                pass  # deleted on its page
        if sweep.method != "custom":
            sweep = parse_sweep({**sweep.to_plain(), "controller": {"type": "local"}})
        made = make(server, sweep)
        content = {"server": server.account.server, "path": str(made.path), "url": made.url}
        write_atomically(folder / "wandb.json", json.dumps(content, indent=2) + "\n")
        return made


def known_page(sweep_id: str, server: str) -> SweepPath | None:
    """The path of an embedded sweep's page, if it has one on this server."""
    try:
        content = read_json(sweep_folder(sweep_id) / "wandb.json")
        path = SweepPath.read(str(content["path"]))
    except (OSError, ValueError, KeyError):
        return None
    return path if server == content.get("server") else None


def _made(server: WandbServer, path: SweepPath, warnings: Sequence[str] = ()) -> Made:
    return Made(path, f"{server.account.app}/{path.entity}/{path.project}/sweeps/{path.id}", warnings)


def check_searchable(sweep: SweepFile) -> None:
    """Raise ``InputError`` if a server cannot propose runs for a sweep file."""
    if sweep.method == "custom":
        hint = "use the search optuna; its runs can be tracked online all the same"
        raise InputError("a W&B server proposes nothing for method custom", hint=hint)


def parse_path(text: str, *, entity: str | None, project: str | None) -> tuple[str | None, str | None, str]:
    """Entity, project and id of a sweep from ENTITY/PROJECT/ID, PROJECT/ID, ID or the address of its page.

    >>> parse_path("https://wandb.ai/lab/faces/sweeps/x1y2z3a4", entity=None, project=None)
    ('lab', 'faces', 'x1y2z3a4')
    >>> parse_path("https://wandb.example.org/w/lab/my%20faces/sweeps/x1y2z3a4/overview", entity=None, project=None)
    ('lab', 'my faces', 'x1y2z3a4')
    >>> parse_path("faces/x1y2z3a4", entity="me", project=None)
    ('me', 'faces', 'x1y2z3a4')

    Raises:
        InputError: The text is not one of these.
    """
    parts = text.split("/")
    if "://" in text:
        page = re.search(r"/([^/]+)/([^/]+)/sweeps/([^/]+)", urlsplit(text).path)  # after a server's path prefix
        parts = [unquote(part) for part in page.groups()] if page else []
    if not 1 <= len(parts) <= 3 or not all(parts):
        hint = "give ENTITY/PROJECT/ID, an id, or the address of a sweep's page"
        raise InputError(f"{text!r} is not a sweep", hint=hint)
    given = [None] * (3 - len(parts)) + list(parts)
    return given[0] or entity, given[1] or project, parts[-1]


def _check_host(who: Account, text: str) -> None:
    if "://" not in text:
        return
    host = urlsplit(text).hostname
    ours = {urlsplit(who.server).hostname, urlsplit(who.app).hostname}
    # W&B's own server has several host names.
    if ours & _OWN_HOSTS:
        ours |= _OWN_HOSTS
    if host not in ours:
        hint = "set WANDB_BASE_URL and WANDB_API_KEY for that server"
        raise InputError(f"{printable(text)} is not on the server in use, {who.shown}", hint=hint)


def _as_stock_sends(plain: dict[str, Any]) -> dict[str, Any]:
    """A sweep file as the stock client sends it: with the agents' command and the distribution of each range."""
    sent = dict(plain)
    if "program" not in plain:
        sent = {"program": "fersweep", "command": list(_COMMAND), **plain}
    if parameters := plain.get("parameters"):
        sent["parameters"] = {name: _with_distribution(given) for name, given in parameters.items()}
    return sent


def _with_distribution(given: dict[str, Any]) -> dict[str, Any]:
    if "parameters" in given:
        return {**given, "parameters": {n: _with_distribution(p) for n, p in given["parameters"].items()}}
    if "distribution" in given or not {"min", "max"} <= given.keys():
        return given
    whole = isinstance(given["min"], int) and isinstance(given["max"], int)
    return {"distribution": "int_uniform" if whole else "uniform", **given}
