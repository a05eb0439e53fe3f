"""The manifests for Kubernetes: valid to its schemas, and right about each other, the guide and the agent."""

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from fer_sweep.cli import app
from fer_sweep.cli.groups import Groups
from fer_sweep.errors import InputError
from tests.support.documentation import REPOSITORY, section

AGENTS = REPOSITORY / "agents"
GUIDE = section("Kubernetes")
(JOB,) = yaml.safe_load_all((AGENTS / "kubernetes.yaml").read_text())
CLAIM, DATA = yaml.safe_load_all((AGENTS / "kubernetes-data.yaml").read_text())
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
    # On the volume, so that the pod in a drained one's place resumes its trial.
    assert {"name": "FERSWEEP_CHECKPOINTS", "value": f"{mounts['shared']}/checkpoints"} in CONTAINER["env"]
    key = next(one for one in CONTAINER["env"] if one["name"] == "WANDB_API_KEY")["valueFrom"]["secretKeyRef"]
    assert f"kubectl create secret generic {key['name']} --from-literal={key['key']}=" in GUIDE
    assert f"job-name={JOB['metadata']['name']}" in GUIDE
    assert f"kubectl exec {DATA['metadata']['name']} --" in GUIDE
    rule = JOB["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert (rule["containerName"], rule["values"]) == (CONTAINER["name"], [InputError.exit_code])
    _, name, *words = CONTAINER["command"]
    group = get_command(app)
    assert isinstance(group, Groups)
    with group.commands[name].make_context(name, words) as context:
        assert context.params["sweep"] == "ENTITY/PROJECT/ID"
