"""Which account is in use and whether runs go online: what stock wandb leaves behind is what counts."""

import subprocess
import sys
from pathlib import Path

import pytest

from fer_sweep.errors import InputError
from fer_sweep.wandb_client.account import account, has_login, tracking_mode
from tests.support.standin.server import StandIn


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({"WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "k"}, "disabled"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "online"}, "online"),
        ({"WANDB_API_KEY": "local-" + "0" * 40}, "online"),
        ({}, "offline"),
    ],
)
def test_wandbs_own_switches_decide_where_runs_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], mode: str
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracking_mode() == mode


def test_a_login_in_netrc_counts_for_its_server_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine wandb.example.org\n  login user\n  password " + "0" * 40 + "\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("WANDB_MODE")
    assert tracking_mode() == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert tracking_mode() == "online"


@pytest.fixture
def nobody(online: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A server, and a user who has neither logged in nor set a variable."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name)
    return online


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_settings_file_decides_where_runs_go_in_spite_of_a_login(
    nobody: StandIn, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", nobody.api_key)
    Path("wandb").mkdir()
    Path("wandb/settings").write_text(f"[default]\nmode = {mode}\n")
    assert tracking_mode() == mode


def stock(*words: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.stock
def test_what_wandb_login_offline_and_online_write_is_obeyed(nobody: StandIn) -> None:
    assert (tracking_mode(), has_login()) == ("offline", False)
    stock("login", "--host", nobody.url, nobody.api_key)
    assert (tracking_mode(), has_login()) == ("online", True)
    found = account()
    assert (found.server, found.api_key) == (nobody.url, nobody.api_key)
    assert nobody.api_key not in repr(found)
    stock("offline")
    assert tracking_mode() == "offline"
    stock("online")
    assert tracking_mode() == "online"


def test_settings_files_and_variables_name_entity_and_project(nobody: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", nobody.api_key)
    Path("wandb").mkdir()
    Path("wandb/settings").write_text(f"[default]\nentity = lab\nproject = faces\nbase_url = {nobody.url}/\n")
    found = account()
    assert (found.server, found.entity, found.project) == (nobody.url, "lab", "faces")
    assert nobody.api_key not in repr(found)
    monkeypatch.setenv("WANDB_PROJECT", "other")
    monkeypatch.setenv("WANDB_ENTITY", "me")
    found = account()
    assert (found.entity, found.project) == ("me", "other")


@pytest.mark.parametrize(
    ("name", "value", "needle"), [("MODE", "onlin", "WANDB_MODE=onlin"), ("BASE_URL", "nonsense", "WANDB_BASE_URL")]
)
def test_invalid_switches_are_refused(
    nobody: StandIn, monkeypatch: pytest.MonkeyPatch, name: str, value: str, needle: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", nobody.api_key)
    monkeypatch.setenv(f"WANDB_{name}", value)
    with pytest.raises(InputError, match=needle) as raised:
        tracking_mode()
        account()
    assert raised.value.hint
    assert nobody.api_key not in str(raised.value)


def test_a_password_in_the_address_is_not_shown(nobody: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", nobody.api_key)
    monkeypatch.setenv("WANDB_BASE_URL", nobody.url.replace("://", "://user:secret@"))
    assert account().shown == nobody.url


def test_a_binary_netrc_is_no_login(nobody: StandIn, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_bytes(b"machine \xff\xfe login x password y")
    assert not has_login()


@pytest.mark.parametrize(
    ("server", "page"),
    [
        ("https://api.wandb.ai", "/me/p/sweeps/s"),
        ("https://wandb.example.org", "https://wandb.example.org/me/p/sweeps/s"),
    ],
)
def test_the_page_of_a_sweep(nobody: StandIn, monkeypatch: pytest.MonkeyPatch, server: str, page: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", nobody.api_key)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    found = account().sweep_page("me", "p", "s")
    assert found.endswith(page)
    assert "api." not in found
