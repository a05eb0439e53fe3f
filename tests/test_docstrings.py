"""The examples in the package's docstrings give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import fer_sweep

ROOT = Path(fer_sweep.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if ">>>" in path.read_text()
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_give_what_they_say(name: str) -> None:
    failed, run = doctest.testmod(importlib.import_module(name))
    assert run > 0
    assert failed == 0
