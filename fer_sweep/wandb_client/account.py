"""The W&B account in use and whether runs are online, as wandb's own switches and files say.

Those are the ``WANDB_*`` environment variables, ``wandb login`` (netrc), ``wandb offline`` and ``wandb init`` (settings
files). wandb itself reads them, but takes half a second to import, so it is imported only where a settings file exists.

Source: https://docs.wandb.ai/guides/track/environment-variables
"""

import contextlib
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ValidationError

from fer_sweep.errors import InputError, LoginError
from fer_sweep.wandb_client.package import load_wandb

Mode = Literal["online", "offline", "disabled"]

DEFAULT_PROJECT = "fersweep"
"""The project if neither environment, sweep file nor settings name one."""

_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_DEFAULT_HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")
"""Hosts in netrc under which ``wandb login`` saves the key of W&B's own server, by wandb's version."""


@dataclass(frozen=True)
class Account:
    """An account on a W&B server."""

    server: str
    """Address of the API, without a trailing slash."""
    app: str
    """Address of the web pages, likewise."""
    api_key: str = field(repr=False)
    proxy: str | None = None
    """The proxy that wandb's settings name; the usual environment variables count as well."""
    verify: bool = True
    """Whether to verify the server's certificate."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The server's address for messages: without user name and password."""
        return _without_password(self.server)


def tracking_mode() -> Mode:
    """Whether runs are online: ``WANDB_MODE`` or ``wandb offline`` if set, else online with a login, else offline."""
    given = os.environ.get("WANDB_MODE", "")
    mode = _MODES.get(given.lower())
    if given and mode is None:
        raise InputError(f"WANDB_MODE={given}: unknown mode", hint="set it to online, offline or disabled")
    if mode is None and _has_settings_file():
        mode = _MODES[_settings().mode]
        if mode == "online":
            mode = None  # it is also the default
    return mode or ("online" if has_login() else "offline")


def has_login() -> bool:
    """Whether there is an API key, or a token file, for the server in use."""
    server = os.environ.get("WANDB_BASE_URL") or (str(_settings().base_url) if _has_settings_file() else None)
    return bool(os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or _key(server))


def account() -> Account:
    """The account in use; raises ``LoginError`` if there is no API key."""
    settings = _settings()
    key = _key(settings.base_url)
    if key is None:
        hint = "log in: `wandb login`, or set WANDB_API_KEY; without W&B: the search optuna and WANDB_MODE=offline"
        raise LoginError(f"no API key for the W&B server {_without_password(settings.base_url)}", hint=hint)
    return Account(
        server=settings.base_url.rstrip("/"),
        app=settings.app_url.rstrip("/"),
        api_key=key,
        proxy=settings.https_proxy if settings.base_url.startswith("https") else settings.http_proxy,
        verify=not settings.insecure_disable_ssl,
        headers=dict(settings.x_extra_http_headers or {}),
    )


def place(entity: str | None, project: str | None) -> tuple[str | None, str]:
    """Entity and project of a sweep's runs: from the environment, the sweep file, a settings file, or the default."""
    settings = _settings() if _has_settings_file() else None
    return (
        os.environ.get("WANDB_ENTITY") or entity or (settings.entity if settings else None),
        os.environ.get("WANDB_PROJECT") or project or (settings.project if settings else None) or DEFAULT_PROJECT,
    )


def _settings() -> Any:
    # wandb.setup() would give the same, but starts wandb's service and caches its first answer.
    wandb = load_wandb()
    try:
        settings = wandb.Settings(silent=True, settings_system=str(_system_folder() / "settings"))
        settings.update_from_system_settings()
        settings.update_from_env_vars(dict(os.environ))
    except ValidationError as error:
        wrong = "; ".join(f"WANDB_{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors())
        hint = "correct the environment variable, or the line in wandb's settings file"
        raise InputError(f"wandb's settings are invalid: {wrong}", hint=hint) from None
    except wandb.Error as error:
        raise InputError(f"wandb's settings are invalid: {error}", hint="correct the WANDB_ variable named") from None
    return settings


def _system_folder() -> Path:
    given = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb")
    try:
        return given.expanduser()
    except RuntimeError:  # this user has no home
        return given


def _has_settings_file() -> bool:
    workspace = Path(os.environ.get("WANDB_DIR") or ".")
    for folder in (workspace / "wandb", workspace / ".wandb", _system_folder()):
        with contextlib.suppress(OSError):  # a home of another user, who may not be looked at
            if (folder / "settings").is_file():
                return True
    return False


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _key(server: str | None) -> str | None:
    """The API key for a server; None for W&B's own server."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    parts = urlsplit(server or "")
    hosts = _DEFAULT_HOSTS if server is None or parts.hostname in _DEFAULT_HOSTS else (parts.netloc,)
    try:
        entries = netrc.netrc(os.environ.get("NETRC") or None)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None
    found = (entries.authenticators(host) for host in hosts)
    return next((entry[2] for entry in found if entry and entry[2]), None)
