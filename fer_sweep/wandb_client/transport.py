"""HTTP and GraphQL to a W&B server, and its errors as ours."""

import os
import re
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from fer_sweep.errors import InputError, LoginError, ServerBusy, ServerError, printable
from fer_sweep.wandb_client.account import Account

_TIMEOUT = httpx.Timeout(20.0, connect=10.0)
"""Seconds; a bayes proposal takes a server a second or more."""
TRIES = 4
"""Attempts of an operation that a user waits for, while the server is busy."""
_LONGEST_WAIT_S = 10.0


class NotFound(InputError):
    """The server has no such entity, project or sweep, or this key may not see it."""


class Transport:
    """A connection to the server of an account; thread-safe."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._client = httpx.Client(
            auth=("api", account.api_key),
            timeout=_TIMEOUT,
            headers={"User-Agent": "fersweep", **account.headers},
            proxy=account.proxy,
            verify=_certificates(account),
        )
        self.close = self._client.close

    def ask(
        self, query: str, variables: Mapping[str, Any], *, tries: int = TRIES, repeatable: bool = True
    ) -> dict[str, Any]:
        """Run a named GraphQL operation; gives its data.

        While the server is busy it is retried with exponential backoff; one that is not ``repeatable`` (idempotent)
        only if it surely was not done.

        Raises:
            LoginError: The key is wrong, or may not do this.
            InputError: The server refuses the operation; ``NotFound`` if something does not exist.
            ServerBusy: No answer in so many attempts.
            ServerError: The answer is not that of a W&B server.
        """
        operation = query.split(maxsplit=2)[1].partition("(")[0]
        for attempt in range(1, tries + 1):
            try:
                answer = self.post("/graphql", {"query": query, "variables": dict(variables)}, operation)
                break
            except ServerBusy as error:
                if not repeatable and error.may_be_done:
                    hint = f"{operation} may have been done all the same: check before you repeat it"
                    raise ServerBusy(str(error), hint=hint) from error
                if attempt == tries:
                    raise
                time.sleep(min(_LONGEST_WAIT_S, error.retry_after_s or 0.5 * 2**attempt))
        if text := _message(answer):
            raise _refusal(text, operation)
        data = answer.get("data")
        if not isinstance(data, dict):
            raise ServerError(f"W&B's answer to {operation} has no data", hint=self._is_it_wandb())
        return data

    def post(self, address: str, body: Mapping[str, Any], operation: str) -> dict[str, Any]:
        """Send JSON to an address below the server's, once; gives the JSON that comes back. Raises as ``ask`` does."""
        server = self.account.shown
        try:
            response = self._client.post(self.account.server + address, json=body)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InputError(f"{server} is not the address of a server: {error}", hint="set WANDB_BASE_URL") from error
        except httpx.RequestError as error:
            raise ServerBusy(
                f"no answer from the W&B server {server}: {type(error).__name__}: {error}",
                hint="check the network and WANDB_BASE_URL. Without a server: the search optuna",
                may_be_done=not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout),
            ) from error
        status = response.status_code
        with_status = f"the W&B server {server} answered {operation} with status {status}"
        if status == 401:
            raise self.wrong_key()
        if status == 429 or status >= 500:
            after = response.headers.get("Retry-After", "")
            raise ServerBusy(
                with_status,
                hint="it is overloaded or down; try again later",
                retry_after_s=float(after) if re.fullmatch(r"\d+(\.\d+)?", after) else None,  # it may be a date
                may_be_done=status not in (429, 503),
            )
        try:
            found = response.json()
        except (ValueError, RecursionError):
            found = None
        answer = found if isinstance(found, dict) else {}
        text = _message(answer)
        if status == 403:
            raise _refusal(text or "permission denied", operation, is_denied=True)
        if status == 404:
            what = text or f"{operation}: not found"
            raise NotFound(f"the W&B server {server} says: {what}", hint=self._is_it_wandb())
        if status >= 300 and not text:
            raise ServerError(with_status, hint=self._is_it_wandb())
        if status < 300 and not answer and operation != "file_stream":
            raise ServerError(f"the answer of {server} to {operation} is not JSON", hint=self._is_it_wandb())
        return answer

    def wrong_key(self) -> LoginError:
        """The error for an API key that the server does not accept."""
        hint = "log in again: `wandb login --relogin`, or set both WANDB_API_KEY and WANDB_BASE_URL"
        return LoginError(f"the W&B server {self.account.shown} does not know this API key", hint=hint)

    def _is_it_wandb(self) -> str:
        return f"check WANDB_BASE_URL: is {self.account.shown} a W&B server?"


def _refusal(text: str, operation: str, *, is_denied: bool = False) -> InputError:
    lower = text.lower()
    words = ("permission", "denied", "forbidden", "unauthorized", "not authorized")
    if is_denied or any(word in lower for word in words):
        hint = "this API key lacks the permission: name another entity, or ask its owner for access"
        return LoginError(f"W&B: {text}", hint=hint)
    if any(words in lower for words in ("not found", "does not exist", "could not find")):
        return NotFound(f"W&B: {text}", hint="check entity and project: WANDB_ENTITY, WANDB_PROJECT or the options")
    hint = "correct what it names, or ask the server's administrator"
    return InputError(f"W&B refuses {operation}: {text}", hint=hint)


def _message(answer: Mapping[str, Any]) -> str:
    """The errors that an answer names; empty if there are none."""
    errors = answer.get("errors")
    listed = errors if isinstance(errors, list) else [errors] if errors else []
    named = [error.get("message", error) if isinstance(error, dict) else error for error in listed]
    return printable("; ".join(map(str, named)))


def _certificates(account: Account) -> ssl.SSLContext | bool:
    if not account.verify:
        return False
    # The variable of requests, and so of older wandb; httpx itself reads SSL_CERT_FILE and SSL_CERT_DIR.
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    return ssl.create_default_context(cafile=bundle) if bundle and Path(bundle).is_file() else True
