"""The URL of a PostgreSQL storage: what of it may be shown, and what it says to libpq; needs psycopg."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from fer_sweep.errors import InputError

PREFIX = "postgresql+psycopg://"

_URL = re.compile(
    re.escape(PREFIX) + r"(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    r"(?P<place>[^@/?:,\[\]]*(?:\[[0-9a-fA-F:.]*\])?(?::\d*)?(?:,[^@/?:,\[\]]*(?:\[[0-9a-fA-F:.]*\])?(?::\d*)?)*"
    r"(?:/[^@/?]*)?)(?:\?(?P<query>.*))?"
)
"""What libpq reads as a URL, less what it would take for something else than was meant, such as a part of a password
for a port. HOST:PORT may come several times, with commas between."""
_SETTINGS = {option.keyword.decode(): option.dispchar for option in Conninfo.get_defaults()}
"""All that libpq knows, each with its mark."""
_SECRET = {name for name, mark in _SETTINGS.items() if mark == b"*"} | {"scram_client_key", "scram_server_key"}
"""Those that are written nowhere: marked as not to be shown, or as good as a password."""

_given: dict[str, Mapping[str, str]] = {}
"""Secrets that this process was given in a URL, by that URL without them: they go no further than its memory."""


def without_secrets(storage: str) -> str:
    """A storage URL that may be shown and written down; what it leaves out is kept in memory, for this process.

    >>> without_secrets("postgresql+psycopg://me:secret@host/db?sslmode=require&sslpassword=x")
    'postgresql+psycopg://me@host/db?sslmode=require'

    Raises:
        InputError: It is no URL of a PostgreSQL database.
    """
    unreadable = InputError(
        "--storage postgresql+psycopg:... cannot be read",  # no more of it: any part may be that of a password
        hint="give postgresql+psycopg://USER@HOST:PORT/DATABASE?SETTING=VALUE, with @ : / ? # % & in names as %40 %3A "
        "%2F %3F %23 %25 %26, and the password in PGPASSWORD or ~/.pgpass",
    )
    parts = _URL.fullmatch(storage)
    pairs = [pair.partition("=") for pair in (parts["query"] or "").split("&") if pair] if parts else []
    if parts is None or not all(separator and name in _SETTINGS for name, separator, _ in pairs):
        raise unreadable
    secrets = {name: unquote(value) for name, _, value in pairs if name in _SECRET}
    if parts["password"]:
        secrets["password"] = unquote(parts["password"])
    shown = "&".join(f"{name}={value}" for name, _, value in pairs if name not in _SECRET)
    user = f"{parts['user']}@" if parts["user"] else ""
    clean = f"{PREFIX}{user}{parts['place']}{'?' if shown else ''}{shown}"
    try:
        settings_of(clean)
    except (psycopg.Error, UnicodeDecodeError):  # such as of a %-code that stands for nothing
        raise unreadable from None
    if "\0" in "".join(secrets.values()):
        raise unreadable
    if secrets:
        _given[clean] = secrets
    return clean


def settings_of(clean: str) -> dict[str, Any]:
    """What libpq is to be told for a URL that ``without_secrets`` gave, with the secrets that it left out.

    Raises:
        psycopg.Error: libpq cannot read it.
    """
    return {**conninfo_to_dict(f"postgresql://{clean.removeprefix(PREFIX)}"), **_given.get(clean, {})}
