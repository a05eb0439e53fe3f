"""Commands in the test's own process, as the console script runs them."""

import json
import sys
from typing import Any

import pytest

from fer_sweep.cli import main


class Shell:
    """Runs a command; gives its exit code, stdout and stderr."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", ["fersweep", *words])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self._capture.readouterr()
        return code, out, err

    def json(self, *words: str) -> Any:
        """The document of a ``--json`` command that succeeds."""
        code, out, err = self(*words, "--json")
        assert code == 0, err
        return json.loads(out)
