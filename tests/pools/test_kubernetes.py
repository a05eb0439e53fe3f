"""The manifests for Kubernetes: valid to its schemas, consistent, and right about what an agent does."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from fer_sweep.cli import app
from fer_sweep.errors import InputError
from tests.support.pool_stage import REPOSITORY
from tests.support.processes import COMMAND, SWEEP, fersweep, until
from tests.support.standin.server import StandIn

AGENTS = REPOSITORY / "agents"
README = (AGENTS / "README.md").read_text()
SHARED, WORK = "/fersweep", "/work"


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((AGENTS / name).read_text()))


(JOB,), (CLAIM, DATA) = manifests("kubernetes.yaml"), manifests("kubernetes-data.yaml")
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kubernetes-data.yaml"])
@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_manifests_are_valid_to_the_schemas_of_kubernetes(name: str, version: str) -> None:
    for document in manifests(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_manifests_fit_each_other_and_the_guide() -> None:
    for pod in (POD, DATA["spec"]):
        assert pod["volumes"][-1]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        assert mounts["shared"] == SHARED
        environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        assert environment["FERSWEEP_CACHE"] == f"{SHARED}/cache"
    key = next(one for one in CONTAINER["env"] if one["name"] == "WANDB_API_KEY")["valueFrom"]["secretKeyRef"]
    assert f"kubectl create secret generic {key['name']} --from-literal={key['key']}=" in README
    assert f"job-name={JOB['metadata']['name']}" in README
    rule = JOB["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert (rule["containerName"], rule["values"]) == (CONTAINER["name"], [InputError.exit_code])


def test_commands_of_the_manifests_and_the_guide_are_ones_that_fersweep_understands() -> None:
    text = README.split("## Kubernetes")[1]
    found = re.findall(rf"^(?:kubectl exec {DATA['metadata']['name']} -- )?(fersweep .*)$", text, flags=re.MULTILINE)
    assert len(found) == 3
    for line in [*found, shlex.join(CONTAINER["command"])]:
        command, words = get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        with command.make_context(line, words):
            pass


class Pod:
    """The agent's container as a process, with folders of this host in place of its mounts."""

    def __init__(self, sweep: str, api_key: str, folders: dict[str, Path]) -> None:
        self._folders = folders
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "WANDB_BASE_URL")}
        for one in CONTAINER["env"]:
            environment[one["name"]] = self.here(one.get("value") or api_key)
        words = " ".join(CONTAINER["command"][1:]).replace("ENTITY/PROJECT/ID", sweep).split()
        self.process = subprocess.Popen(
            [*COMMAND, *words, "--gpus", "none"], env=environment, cwd=self.here(CONTAINER["workingDir"])
        )

    def here(self, path: str) -> str:
        for mount, folder in self._folders.items():
            path = re.sub(rf"^{mount}(?=/|$)", str(folder), path)
        return path


def epochs(pod: Path) -> list[dict[str, Any]]:
    """The history of a pod's only trial."""
    (file,) = pod.glob(".fersweep/sweeps/*/trials/*/history.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.stock
@pytest.mark.usefixtures("one_core")
def test_trial_of_a_drained_pod_is_resumed_by_the_pod_in_its_place(
    online: StandIn, tmp_path: Path, tiny_cache: Path, tiny_data: str
) -> None:
    shared = tmp_path / "volume"
    shutil.copytree(tiny_cache, shared / "cache")
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", "150"))
    fersweep("create", "sweep.yaml")
    (sweep,) = online.sweeps.values()
    path = f"{sweep.entity}/{sweep.project}/{sweep.id}"

    first = Pod(path, online.api_key, {SHARED: shared, WORK: tmp_path / "pod-1"})
    until(lambda: any(shared.glob(f"checkpoints/{sweep.id}/*/last.ckpt")))
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(timeout=POD["terminationGracePeriodSeconds"]) == 130
    (run,) = online.runs.values()
    assert run.state == "preempted"
    before = epochs(tmp_path / "pod-1")
    assert 0 < len(before) < 150

    second = Pod(path, online.api_key, {SHARED: shared, WORK: tmp_path / "pod-2"})
    assert second.process.wait(timeout=300) == 0
    assert (sweep.state, run.state) == ("FINISHED", "finished")
    assert [row["epoch"] for row in run.history if "val_acc" in row] == list(range(1, 151))
    after = epochs(tmp_path / "pod-2")
    assert after[: len(before)] == before, "measured times and all: not trained again"
    assert not list(shared.glob("checkpoints/*"))
