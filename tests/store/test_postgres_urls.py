"""URLs of PostgreSQL storages are read as they were meant or refused, and their secrets are written nowhere."""

import re
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fer_sweep.errors import InputError
from fer_sweep.store.database import check_storage
from tests.support.processes import imported_by

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'fersweep[postgres]'")

PLACE = "postgresql+psycopg://"


def test_url_is_stored_without_its_secrets():
    for url, shown in {
        "me:se?c#ret&=@host/db?sslmode=require": "me@host/db?sslmode=require",
        "/db?host=/run/postgresql&user=me&password=secret": "/db?host=/run/postgresql&user=me",
        "me@[::1]:5432,other:5433/db?sslpassword=secret": "me@[::1]:5432,other:5433/db",
        "me@%2Frun%2Fpg/db?service=lab": "me@%2Frun%2Fpg/db?service=lab",
        "": "",
    }.items():
        assert check_storage(PLACE + url) == PLACE + shown


@pytest.mark.parametrize(
    "url",
    [
        *("me:sec@ret@host/db", "me:sec/ret@host/db", "me:secret/x@host", "me:secret@host/db/secret"),
        *("me:secret@host/db?secret", "me:secret@host/db?secret=secret", "me:secret@host:port/db"),
        *("me:secret@host/d%zzb", "me:secret@host/d%00b", "me:secret%00@host/db", "me:secret\0@host/db"),
    ],
)
def test_url_that_libpq_would_misread_is_refused_without_showing_it(url):
    with pytest.raises(InputError, match="cannot be read") as caught:
        check_storage(PLACE + url)
    assert "PGPASSWORD" in caught.value.hint
    assert not re.search("sec|ret@", str(caught.value) + caught.value.hint.replace("PGPASSWORD", ""))


@hypothesis_settings(derandomize=True, deadline=None, max_examples=60)
@given(password=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_no_password_is_stored(password):
    url = PLACE + "me:{}@host/db?application_name=x"
    assert check_storage(url.format(quote(password, safe=""))) == PLACE + "me@host/db?application_name=x"
    marked = f"~{password}~"  # so that it cannot also stand elsewhere
    try:
        shown = check_storage(url.format(marked))
        assert check_storage(shown) == shown
    except InputError as error:
        shown = f"{error} {error.hint}"
    assert marked not in shown


def test_without_psycopg_a_url_is_refused_with_a_hint_and_sqlite_needs_none(monkeypatch):
    assert "psycopg" not in imported_by("-c", "import fer_sweep.store.sweeps")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match="psycopg is not installed") as caught:
        check_storage(f"{PLACE}me:secret@host/db")
    assert caught.value.hint == "pip install 'fersweep[postgres]'"
    assert "secret" not in str(caught.value)
    assert check_storage("sqlite:////sweeps.db") == "sqlite:////sweeps.db"
