"""A small sweep, and the agents that work on it."""

import json
import re
import shlex
from pathlib import Path

from fer_sweep.pools import AgentCommand
from tests.processes import QUICK, SWEEP, fersweep

README = Path(__file__).resolve().parents[2] / "README.md"


def make(epochs: int, trials: int = 1) -> str:
    text = SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {trials}")
    Path("sweep.yaml").write_text(text)
    made = fersweep("create", "sweep.yaml")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def command(sweep: str) -> AgentCommand:
    return AgentCommand(sweep, ("agent", sweep, "--gpus=none", "--slots=1"), Path("logs").absolute())


def trials_of(sweep: str) -> list[str]:
    return [trial["state"] for trial in json.loads(fersweep("status", sweep, "--json").stdout)["trials"]]


def follow_readme(title: str, postgres: str, data: str) -> str:
    """Run the four commands of a section on a cluster, with a smaller sweep; gives what the agents' one said."""
    section = README.read_text().split(title)[1].split("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
    smaller = [*(f"--set={key}={value}" for key, value in QUICK.items()), "--data", data]
    said = []
    for line in block.splitlines():
        text = line.replace("postgresql+psycopg://USER@HOST/DATABASE", shlex.quote(postgres))
        text = text.replace("--count 12", "--count 2").replace("--agents 4", "--agents 2")
        program, *words = shlex.split(text)
        done = fersweep(*words, *(smaller if words[0] == "create" else []))
        assert (program, done.returncode) == ("fersweep", 0), f"{line}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout + done.stderr)
    _, followed, status, best = said
    assert status.count("complete") == 2 and "finished" in status
    assert "winner" in best
    return followed
