"""Who holds the database when it is locked for too long."""

import signal
import subprocess
import sys

import pytest

from fer_sweep.errors import StorageError
from fer_sweep.search.database import Database, default_storage
from tests.support.processes import until

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell")
def test_the_error_names_the_process_that_holds_the_database_and_says_whether_it_is_paused() -> None:
    database = Database(default_storage(), create=True, lock_timeout_s=0.1)
    words = [sys.executable, "-c", HOLD, default_storage().removeprefix("sqlite:///")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdin is not None

        def hint() -> str:
            with pytest.raises(StorageError, match="locked") as caught, database.transaction(write=True):
                pass
            return caught.value.hint or ""

        holder.stdout.readline()
        assert f"process {holder.pid} holds the database: end it" in hint()
        holder.send_signal(signal.SIGSTOP)
        until(lambda: f"kill -CONT {holder.pid}" in hint())
        holder.send_signal(signal.SIGCONT)
        holder.stdin.write("\n")
        holder.stdin.flush()
    with database.transaction(write=True):
        pass
    database.close()
