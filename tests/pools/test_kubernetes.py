"""The manifests for Kubernetes: valid to its schemas, and right about each other, the guide and the agent."""

import os
import re
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
from tests.support.pool_stage import REPOSITORY, make
from tests.support.processes import COMMAND, until
from tests.support.standin.server import StandIn

GUIDE = (REPOSITORY / "agents" / "README.md").read_text().split("## Kubernetes")[1]


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((REPOSITORY / "agents" / name).read_text()))


(JOB,), (CLAIM, DATA) = manifests("kubernetes.yaml"), manifests("kubernetes-data.yaml")
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_manifests_are_valid_to_the_schemas_of_kubernetes(version: str) -> None:
    for document in (JOB, CLAIM, DATA):
        kubernetes_validate.validate(document, version, strict=True)


def test_manifests_fit_each_other_and_the_guide() -> None:
    for pod in (POD, DATA["spec"]):
        assert pod["volumes"][-1]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        assert environment["FERSWEEP_CACHE"] == f"{mounts['shared']}/cache"
    key = next(one for one in CONTAINER["env"] if one["name"] == "WANDB_API_KEY")["valueFrom"]["secretKeyRef"]
    assert f"kubectl create secret generic {key['name']} --from-literal={key['key']}=" in GUIDE
    assert f"job-name={JOB['metadata']['name']}" in GUIDE
    assert f"kubectl exec {DATA['metadata']['name']} --" in GUIDE
    rule = JOB["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert (rule["containerName"], rule["values"]) == (CONTAINER["name"], [InputError.exit_code])
    _, name, *words = CONTAINER["command"]
    with get_command(app).commands[name].make_context(name, words) as context:  # type: ignore[attr-defined]
        assert context.params["sweep"] == "ENTITY/PROJECT/ID"


@pytest.mark.stock
@pytest.mark.usefixtures("one_core", "tiny_data")
def test_trial_of_a_drained_pod_is_resumed_by_the_pod_in_its_place(
    online: StandIn, tmp_path: Path, tiny_cache: Path
) -> None:
    """The container's command runs as a process, with folders of this host in place of its mounts."""
    shared = tmp_path / "volume"
    shutil.copytree(tiny_cache, shared / "cache")
    make(epochs=150)
    (sweep,) = online.sweeps.values()
    words = [word.replace("ENTITY/PROJECT/ID", f"{sweep.entity}/{sweep.project}/{sweep.id}")
             for word in CONTAINER["command"][1:]]  # fmt: skip

    def start(pod: Path) -> "subprocess.Popen[bytes]":
        pod.mkdir()
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "WANDB_BASE_URL")}
        for one in CONTAINER["env"]:
            inside = re.sub("^/work", str(pod), one.get("value", online.api_key))
            environment[one["name"]] = re.sub("^/fersweep", str(shared), inside)
        return subprocess.Popen([*COMMAND, *words, "--gpus", "none"], env=environment, cwd=pod)

    def history(pod: Path) -> list[str]:
        (file,) = pod.glob(".fersweep/sweeps/*/trials/*/history.jsonl")
        return file.read_text().splitlines()

    drained = start(tmp_path / "pod-1")
    until(lambda: any(shared.glob(f"checkpoints/{sweep.id}/*/last.ckpt")))
    drained.send_signal(signal.SIGTERM)
    assert drained.wait(timeout=POD["terminationGracePeriodSeconds"]) == 130
    (run,) = online.runs.values()
    assert run.state == "preempted"
    before = history(tmp_path / "pod-1")
    assert 0 < len(before) < 150

    assert start(tmp_path / "pod-2").wait(timeout=300) == 0
    assert (sweep.state, run.state) == ("FINISHED", "finished")
    assert [row["epoch"] for row in run.history if "val_acc" in row] == list(range(1, 151))
    assert history(tmp_path / "pod-2")[: len(before)] == before, "measured times and all: not trained again"
    assert not list(shared.glob("checkpoints/*"))
