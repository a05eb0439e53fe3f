"""The examples in the package's docstrings give what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import fer_sweep

ROOT = Path(fer_sweep.__file__).parents[1]


@pytest.mark.parametrize("path", [p for p in sorted(ROOT.glob("fer_sweep/**/*.py")) if ">>>" in p.read_text()], ids=str)
def test_examples_give_what_they_say(path: Path) -> None:
    failed, run = doctest.testmod(import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)))
    assert run > 0
    assert failed == 0
