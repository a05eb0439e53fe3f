"""Which account is in use and whether runs go online: held against what wandb itself makes of the same settings."""

from pathlib import Path

import pytest

from fer_sweep.account import tracking_mode


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
