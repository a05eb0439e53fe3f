"""Agents as processes of this host: each has its own log and ends with the process that started it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_sweep.errors import cannot_write
from fer_sweep.host_processes import end_with_parent
from fer_sweep.pools import DONE_CODES, STOPPED_CODES, AgentCommand, AgentState, Phase, agent_environment

_INTERRUPTED = 130
_START = "from fer_sweep.pools.local import end_with; end_with({parent}); from {module} import main; main()"


class LocalAgents:
    """Agents as processes of this host."""

    outlives_us = False

    def __init__(self, module: str = "fer_sweep.cli") -> None:
        """Start no agent yet.

        Args:
            module: The module whose ``main`` an agent runs.
        """
        self._module = module
        self._agents: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """See ``Pool.start``.

        Raises:
            StorageError: The logs cannot be written.
        """
        return [self._start(command) for _ in range(agents)]

    def _start(self, command: AgentCommand) -> str:
        agent_id = str(len(self._agents))
        log = command.logs / f"local-{os.getpid()}-{agent_id}.log"
        words = [sys.executable, "-c", _START.format(parent=os.getpid(), module=self._module), *command.words]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=agent_environment(),
                    process_group=0,  # Ctrl-C in the terminal is for this process only
                )
        except OSError as error:
            raise cannot_write(log, error) from error
        self._agents[agent_id] = (process, log)
        return agent_id

    def states(self) -> Mapping[str, AgentState]:
        """See ``Pool.states``."""
        return {agent_id: _state(process, log) for agent_id, (process, log) in self._agents.items()}

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        """See ``Pool.stop``."""
        process, _ = self._agents[agent_id]
        if process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its trials too
            process.wait()


def _state(process: subprocess.Popen[bytes], log: Path) -> AgentState:
    code = process.poll()
    if code is None:
        return AgentState(Phase.RUNNING, f"process {process.pid}, log {log}")
    if code in DONE_CODES:
        return AgentState(Phase.DONE)
    if code in STOPPED_CODES:
        return AgentState(Phase.DONE, "stopped")
    return AgentState(Phase.FAILED, f"exit code {code}: see {log}")


def end_with(parent: int) -> None:
    """Have SIGTERM sent to this process when ``parent``, which started it, ends. On Linux only."""
    end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it has ended already
        sys.exit(_INTERRUPTED)
