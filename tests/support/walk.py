"""Follow the commands that messages name: each must work, and none may lead back to where it came from."""

import re
import shlex
from pathlib import Path

from fer_sweep.sweeps import known
from tests.support.searches import find
from tests.support.shell import Shell

HERE = ("--gpus", "none", "--slots", "1")
AGENTS = {"agent": (*HERE, "--count", "2"), "confirm": HERE}
NAMED = re.compile(r"fersweep (?P<words>[a-z]+(?: [^\s`;,()]+)*)")
NEEDS_WEIGHTS = ("test", "predict", "export")
"""Not followed where trials are played, which write none."""


class Walk:
    """Follows the commands that messages name."""

    def __init__(self, shell: Shell, *, weights: bool = False) -> None:
        self._shell = shell
        self._weights = weights
        self.steps: list[str] = []

    def from_(self, command: str) -> None:
        """Run a command and those that it and its successors name, until one names none."""
        seen: dict[str, object] = {}
        while command:
            state = self._state()
            assert seen.get(command) != state, f"a circle: {' -> '.join(self.steps)}"
            seen[command] = state
            code, named = self.run(command)
            assert code == 0 or (code == 3 and named), f"{self.steps[-1]} is a dead end"
            command = next((word for word in named if self._weights or not word.startswith(NEEDS_WEIGHTS)), "")

    def run(self, command: str) -> tuple[int, list[str]]:
        """Run a command; gives its exit code and the commands that its hints name."""
        words = shlex.split(command)
        code, _, err = self._shell(words[0], *AGENTS.get(words[0], ()), *words[1:])
        self.steps.append(f"{command} ({code})")
        lines = [line for line in err.splitlines() if line.startswith(("next: ", "hint: "))]
        return code, [self._command(found["words"]) for line in lines for found in NAMED.finditer(line)]

    def _state(self) -> object:
        """What a command may change."""
        seen = [(entry.id, *find(entry.id).glance()) for entry in known()]
        return [(sweep, state, [record.state for record in records]) for sweep, state, records in seen]

    def _command(self, text: str) -> str:
        """The command at the beginning of a sentence."""
        names = {name for entry in known() for name in (entry.id, entry.path)}
        words = [word.rstrip(".:") for word in text.split()]
        taken = words[:1]
        for word in words[1:]:
            is_value = taken[-1] in ("--trial", "--seeds", "--data", "--set")
            if not (is_value or word in names or word.startswith("-") or Path(word).exists() or word == "simple_cnn"):
                break
            taken.append(word)
        return shlex.join(taken)
