"""Agents behind PgBouncer, which gives each transaction another one of few connections to the server."""

import os
import shutil
import subprocess
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from tests.benchmarks.scale.measure import Setting, measure
from tests.support.processes import until

pytestmark = pytest.mark.cluster
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CONNECTIONS = 4
SETTINGS = """\
[databases]
pooled = host={server} dbname=pooled
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = {connections}
logfile = {folder}/log
pidfile = {folder}/pid
"""


class Pool:
    """A database of a server by way of PgBouncer; everything else is asked of the server itself."""

    def __init__(self, server, folder):
        self.folder = folder
        self.run, self.processor_s = server.run, server.processor_s

    @contextmanager
    def empty(self):
        yield f"postgresql+psycopg://postgres@/pooled?host={quote(str(self.folder), safe='')}&port=6432"


@pytest.fixture
def pool(postgres_server):
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    folder = postgres_server.folder / "pool"  # a short path, as sockets need it
    folder.mkdir()
    (folder / "users.txt").write_text('"postgres" ""\n')
    settings = folder / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(server=postgres_server.socket_folder, folder=folder, connections=CONNECTIONS))
    user = postgres_server.folder.owner()
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, user)
    words = [PGBOUNCER, *(["--user", user] if os.geteuid() == 0 else []), str(settings)]  # it refuses to run as root
    postgres_server.run("CREATE DATABASE pooled")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: (folder / ".s.PGSQL.6432").exists())
            yield Pool(postgres_server, folder)
        finally:
            process.terminate()
    postgres_server.run("DROP DATABASE pooled")
    shutil.rmtree(folder)


@pytest.mark.parametrize("setting", [Setting(16, 48), Setting(6, 24, "bayes", hyperband=True)], ids=["random", "bayes"])
def test_agents_share_few_connections_and_lose_and_double_nothing(pool, setting):
    point = measure(pool, setting)  # which checks that the sweep is whole
    assert point.connections <= CONNECTIONS
