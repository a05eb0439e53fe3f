"""The manifests for Kubernetes: valid to its own schemas, and their pods run here as processes in their own folders."""

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.drawn_faces import pack
from tests.support.processes import COMMAND, SWEEP, fersweep, until
from tests.support.standin.server import StandIn

AGENTS = Path(__file__).resolve().parents[2] / "agents"
README = (AGENTS / "README.md").read_text()
SHARED, WORK = "/fersweep", "/work"


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((AGENTS / name).read_text()))


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kubernetes-data.yaml"])
@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_the_manifests_hold_to_the_schemas_of_kubernetes(name: str, version: str) -> None:
    for document in manifests(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_manifests_fit_each_other_and_what_the_guide_says() -> None:
    (job,), (claim, data) = manifests("kubernetes.yaml"), manifests("kubernetes-data.yaml")
    for pod in (job["spec"]["template"], data):
        claimed = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"][-1:]]
        assert claimed == [claim["metadata"]["name"]]
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        assert {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]} == volumes
    (container,) = job["spec"]["template"]["spec"]["containers"]
    key = next(one for one in container["env"] if one["name"] == "WANDB_API_KEY")["valueFrom"]["secretKeyRef"]
    assert f"kubectl create secret generic {key['name']} --from-literal={key['key']}=" in README
    assert f"job-name={job['metadata']['name']}" in README
    assert f"kubectl exec {data['metadata']['name']} --" in README
    (rule, _) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]


class Pod:
    """A container of a manifest as a process: its command, its environment, its mounted folders as some of here."""

    def __init__(self, container: dict[str, Any], folders: dict[str, Path], secrets: dict[str, str]) -> None:
        self._container = container
        self._folders = folders
        kept = {"PATH", "PYTHONPATH", "WANDB_BASE_URL", "LANG"}  # the last as the manifest's commented line
        self.environment = {name: value for name, value in os.environ.items() if name in kept}
        for one in container["env"]:
            value = one.get("value") or secrets[one["valueFrom"]["secretKeyRef"]["key"]]
            self.environment[one["name"]] = self.here(value)
        for folder in folders.values():
            folder.mkdir(exist_ok=True)

    def here(self, text: str) -> str:
        for path, folder in self._folders.items():
            text = re.sub(rf"^{path}(?=/|$)", str(folder), text)
        return text

    def start(self, words: list[str]) -> "subprocess.Popen[str]":
        assert words[0] == "fersweep"
        return subprocess.Popen(
            [*COMMAND, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            cwd=self.here(self._container["workingDir"]),
        )


@pytest.mark.usefixtures("one_core")
def test_a_drained_pods_trial_is_gone_on_with_by_the_one_in_its_place(
    online: StandIn, tmp_path: Path, tiny_cache: Path
) -> None:
    shared = tmp_path / "volume"
    _, data = manifests("kubernetes-data.yaml")
    loader = Pod(data["spec"]["containers"][0], {SHARED: shared}, {})
    pack(tiny_cache.parent / "faces", shared / "archive.zip")
    (prepare,) = re.findall(r"^kubectl exec fersweep-data -- (.*)$", README, flags=re.MULTILINE)
    with loader.start(shlex.split(prepare)) as preparing:
        assert preparing.wait(timeout=120) == 0, preparing.stdout and preparing.stdout.read()

    Path("sweep.yaml").write_text(
        SWEEP.replace("EPOCHS", "150").replace("value: tiny", "value: fer2013").replace("run_cap: 1", "run_cap: 2")
    )
    created = json.loads(fersweep("create", "sweep.yaml", "--json").stdout)
    (sweep,) = online.sweeps.values()
    path = f"{sweep.entity}/{sweep.project}/{sweep.id}"
    assert created["sweep"] == sweep.id

    (job,) = manifests("kubernetes.yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    words = [*" ".join(container["command"]).replace("ENTITY/PROJECT/ID", path).split(), "--gpus", "none"]
    secrets = {"api-key": online.api_key}
    first = Pod(container, {SHARED: shared, WORK: tmp_path / "pod-1"}, secrets)
    with first.start(words) as drained:
        until(lambda: any(shared.glob(f"checkpoints/{sweep.id}/*/last.ckpt")))
        drained.send_signal(signal.SIGTERM)
        assert drained.wait(timeout=job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]) == 130
    (trial,) = sweep.run_ids
    assert online.runs[trial].state == "preempted"
    before = history(tmp_path / "pod-1", sweep.id, trial)
    assert 0 < len(before) < 150

    second = Pod(container, {SHARED: shared, WORK: tmp_path / "pod-2"}, secrets)
    with second.start(words) as following:
        said = following.communicate(timeout=300)[0]
    assert following.returncode == 0, said
    assert sweep.state == "FINISHED"
    assert [run.state for run in online.runs.values()] == ["finished"] * 2
    assert [[row["epoch"] for row in run.history if "val_acc" in row] for run in online.runs.values()] == [
        list(range(1, 151))
    ] * 2
    after = history(tmp_path / "pod-2", sweep.id, trial)
    assert after[: len(before)] == before, "gone on with, and not trained again: what a clock has measured is the same"
    assert len(after) == 150
    assert (tmp_path / "pod-2" / ".fersweep" / "sweeps" / sweep.id / "trials" / trial / "best.safetensors").is_file()
    assert not list(shared.glob("checkpoints/*"))


def history(pod: Path, sweep: str, trial: str) -> list[dict[str, Any]]:
    text = (pod / ".fersweep" / "sweeps" / sweep / "trials" / trial / "history.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_sweep_that_is_not_there_ends_with_the_code_that_fails_the_job(online: StandIn, tmp_path: Path) -> None:
    (job,) = manifests("kubernetes.yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    pod = Pod(container, {SHARED: tmp_path / "volume", WORK: tmp_path / "pod"}, {"api-key": online.api_key})
    with pod.start(container["command"]) as agent:  # as it stands in the file
        said = agent.communicate(timeout=120)[0]
    assert agent.returncode == 2, said
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]


def test_a_manifest_given_as_a_pool_is_told_from_one(tiny_data: str) -> None:
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    fersweep("create", "sweep.yaml")
    done = fersweep("agent", "--pool", str(AGENTS / "kubernetes.yaml"))
    assert done.returncode == 2
    assert "kubectl apply -f" in done.stderr
