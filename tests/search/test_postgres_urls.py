"""URLs of PostgreSQL storages are read as they were meant or refused, and their secrets are written nowhere."""

import contextlib
import re
import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fer_sweep.errors import InputError
from fer_sweep.store.database import recorded

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'fersweep[postgres]'")

PLACE = "postgresql+psycopg://"
QUICK = hypothesis_settings(derandomize=True, deadline=None, max_examples=60)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("me:secret@host/db", "me@host/db"),
        ("me:sec%40ret%2F@host:5433/db", "me@host:5433/db"),
        ("me:se?c#ret&=@host/db?sslmode=require", "me@host/db?sslmode=require"),
        ("me@host/db", "me@host/db"),
        ("host", "host"),
        ("", ""),
        ("/db?host=/run/postgresql&user=me&password=secret", "/db?host=/run/postgresql&user=me"),
        ("me@[::1]:5432,other:5433/db?sslpassword=secret", "me@[::1]:5432,other:5433/db"),
        ("?service=lab", "?service=lab"),
        ("me@%2Frun%2Fpg/db", "me@%2Frun%2Fpg/db"),
    ],
)
def test_url_is_recorded_without_its_secrets(url, shown):
    assert recorded(PLACE + url) == PLACE + shown
    assert recorded(recorded(PLACE + url)) == PLACE + shown


@pytest.mark.parametrize(
    "url",
    [
        "me:sec@ret@host/db",
        "me:sec/ret@host/db",
        "me:secret/x@host",
        "me:secret@host/db/secret",
        "me:secret@host/db?secret",
        "me:secret@host/db?secret=secret",
        "me:secret@host:port/db",
        "me:secret@host/d%zzb",
        "me:secret@host/d%00b",
        "me:secret%00@host/db",
        "me:secret\0@host/db",
    ],
)
def test_url_that_libpq_would_misread_is_refused_without_showing_it(url):
    with pytest.raises(InputError, match="cannot be read") as caught:
        recorded(PLACE + url)
    assert "PGPASSWORD" in caught.value.hint
    assert not re.search("sec|ret@", str(caught.value) + caught.value.hint.replace("PGPASSWORD", ""))


@QUICK
@given(password=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_no_password_is_recorded(password):
    url = PLACE + "me:{}@host/db?application_name=x"
    assert recorded(url.format(quote(password, safe=""))) == PLACE + "me@host/db?application_name=x"
    marked = f"~{password}~"  # so that it cannot also stand elsewhere
    try:
        shown = recorded(url.format(marked))
    except InputError as error:
        shown = f"{error} {error.hint}"
    assert marked not in shown


@QUICK
@given(url=st.text() | st.text(alphabet="me:@/?&=%0,[]#host"))
def test_any_text_is_either_a_url_or_refused(url):
    with contextlib.suppress(InputError):
        shown = recorded(PLACE + url)
        assert recorded(shown) == shown


def test_without_psycopg_a_url_is_refused_with_a_hint(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "fer_sweep.store.postgres_urls", raising=False)
    monkeypatch.delattr("fer_sweep.store.postgres_urls", raising=False)
    with pytest.raises(InputError, match="psycopg is not installed") as caught:
        recorded(f"{PLACE}me:secret@host/db")
    assert caught.value.hint == "pip install 'fersweep[postgres]'"
    assert "secret" not in str(caught.value)


def test_without_psycopg_a_sweep_in_sqlite_is_created():
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from fer_sweep.config.sweep_file import parse_sweep\n"
        "from fer_sweep.store.sweeps import create_sweep, default_storage, list_sweeps\n"
        "sweep = parse_sweep({'method': 'random', 'parameters': {'lr': {'min': 0.1, 'max': 1.0}}})\n"
        "create_sweep(sweep, sweep_id='a', storage=default_storage())\n"
        "assert [found.id for found in list_sweeps(default_storage())] == ['a']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
