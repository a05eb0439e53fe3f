"""Which account is in use and whether runs go online: what stock wandb leaves behind is what counts."""

import os
import subprocess
from pathlib import Path

import pytest

from fer_sweep.errors import InputError, LoginError
from fer_sweep.files import home
from fer_sweep.wandb_client.account import account, has_login, place, tracking_mode
from fer_sweep.wandb_client.package import _give_folders
from tests.support.standin.stock import BIN

NETRC = "machine wandb.example.org\n  login user\n  password " + "0" * 40 + "\n"


@pytest.fixture
def nobody(online, monkeypatch):
    """A server, and a user who has neither logged in nor set a variable."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name)
    return online


@pytest.fixture
def user(nobody, monkeypatch):
    """A server, and a user with a key."""
    monkeypatch.setenv("WANDB_API_KEY", nobody.api_key)
    return nobody


def write_settings(**settings: str) -> None:
    Path("wandb").mkdir(exist_ok=True)
    lines = [f"{name} = {value}\n" for name, value in settings.items()]
    Path("wandb/settings").write_text("[default]\n" + "".join(lines))


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({"MODE": "offline"}, "offline"),
        ({"MODE": "disabled", "API_KEY": "k"}, "disabled"),
        ({"MODE": "dryrun"}, "offline"),
        ({"MODE": "online"}, "online"),
        ({"API_KEY": "local-" + "0" * 40}, "online"),
        ({"BASE_URL": "https://wandb.example.org"}, "online"),  # which netrc knows
        ({}, "offline"),
    ],
)
def test_wandbs_own_switches_decide_where_runs_go(nobody, monkeypatch, environment, mode):
    Path("netrc").write_text(NETRC)
    Path("netrc").chmod(0o600)
    for name, value in environment.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert tracking_mode() == mode


@pytest.mark.stock
def test_what_wandb_login_offline_and_online_write_is_obeyed(nobody):
    def stock(*words: str) -> tuple[str, bool]:
        subprocess.run([BIN / "wandb", *words], capture_output=True, check=True)
        return tracking_mode(), has_login()

    assert (tracking_mode(), has_login()) == ("offline", False)
    assert stock("login", "--host", nobody.url, nobody.api_key) == ("online", True)
    assert (account().server, account().api_key) == (nobody.url, nobody.api_key)
    assert stock("offline") == ("offline", True)
    assert stock("online") == ("online", True)


def test_settings_files_decide_where_runs_go_and_name_entity_and_project_as_variables_do(user, monkeypatch):
    for mode in ("offline", "disabled"):
        write_settings(mode=mode)
        assert tracking_mode() == mode, "in spite of the login"
    write_settings(entity="lab", project="faces", base_url=f"{user.url}/")
    found = account()
    assert (found.server, *place(None, None)) == (user.url, "lab", "faces")
    assert user.api_key not in repr(found)
    monkeypatch.setenv("WANDB_PROJECT", "other")
    monkeypatch.setenv("WANDB_ENTITY", "me")
    assert place("file's", "file's") == ("me", "other")


@pytest.mark.parametrize("wrong", ["WANDB_MODE=onlin", "WANDB_BASE_URL=nonsense"])
def test_invalid_switches_are_refused(user, monkeypatch, wrong):
    name, value = wrong.split("=")
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=name) as raised:
        tracking_mode()
        account()
    assert raised.value.hint and user.api_key not in str(raised.value)


@pytest.mark.parametrize("server", ["https://api.wandb.ai", "https://wandb.example.org"])
def test_the_address_of_pages_is_known_and_no_message_shows_a_password(user, monkeypatch, server):
    monkeypatch.setenv("WANDB_BASE_URL", server)
    app = account().app
    assert "api." not in app
    assert app == server or server == "https://api.wandb.ai", "only wandb's own server has its pages elsewhere"
    monkeypatch.setenv("WANDB_BASE_URL", server.replace("://", "://user:secret@"))
    assert account().shown == server
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(LoginError) as raised:
        account()
    assert "secret" not in str(raised.value)


def test_a_user_without_a_home_or_with_another_users_has_no_account_and_wandb_gets_folders(monkeypatch, tmp_path):
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "NETRC", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)

    def nowhere(path: Path) -> Path:
        if path.parts[0] == "~":
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", nowhere)
    assert tracking_mode() == "offline" and not has_login()
    _give_folders()
    own = str(home() / "wandb")
    assert {os.environ[name] for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "XDG_DATA_HOME")} == {own}


def test_a_settings_file_that_may_not_be_looked_at_is_none(monkeypatch):
    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(Path, "is_file", forbidden)
    assert tracking_mode() == "offline"
