"""Pool files: what is accepted, what is refused and how, and the shipped ones."""

import re
from pathlib import Path

import pytest

from fer_sweep.config.pool_file import KINDS, load_pool_file, parse_pool
from fer_sweep.errors import PoolFileError
from tests.config.conftest import problems_behind_lines


def refusal_of(kind, **values):
    with pytest.raises(PoolFileError) as refused:
        parse_pool({"kind": kind, **values})
    (problem,) = refused.value.problems
    return str(problem)


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_file_loads_as_it_is_and_with_every_line_that_is_off_switched_on(kind, tmp_path):
    shipped, switched = Path(__file__).resolve().parents[2] / "agents" / f"{kind}.yaml", tmp_path / "all.yaml"
    assert isinstance(load_pool_file(shipped), KINDS[kind])
    fields = "|".join(KINDS[kind].model_fields)
    switched.write_text(re.sub(rf"^# (?=({fields}):)", "", shipped.read_text(), flags=re.MULTILINE))
    assert load_pool_file(switched).model_fields_set == set(KINDS[kind].model_fields)


SLURM = """\
kind: slurm
partitoin: gpu  # partitoin: no such key (did you mean partition?)
time: 12:00:00  # time: 43200 is a number in YAML (in quotes:
agents: 0  # agents: 0 is not from 1 to 1000
account:  # account: is empty
"""
RAY = """\
kind: ray
adress: auto  # adress: no such key (did you mean address?)
gpus: 1.5  # gpus: 1.5 is not a number of GPUs (a whole number up to 64, or a share such as 0.5)
resources:  # resources: GPU has its own key (write gpus)
  GPU: 1
cpus: 0  # cpus: 0 is not from 1 to 1024
"""


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (SLURM, problems_behind_lines(SLURM)),
        (RAY, problems_behind_lines(RAY)),
        ("kind: slrum\n", ["line 1: kind: unknown kind 'slrum' (did you mean slurm?)"]),
        ("agents: 2\n", ["kind: missing (one of local, slurm, ray)"]),
        ("kind: local\ngres: gpu:1\n", ["line 2: gres: no such key"]),
        ("", ["is empty (a pool file needs kind"]),
        ("- kind\n", ["is not a dictionary"]),
        ("apiVersion: v1\n", ["is a manifest of Kubernetes, not a pool file", "kubectl apply -f pool.yaml"]),
    ],
)
def test_problems_name_their_lines_and_what_was_meant(text, problems):
    Path("pool.yaml").write_text(text)
    with pytest.raises(PoolFileError) as refused:
        load_pool_file(Path("pool.yaml"))
    for problem in problems:
        assert problem in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("kind", "key", "values"),
    [
        ("slurm", "partition", ["gpu\n#SBATCH --uid=0", "gpu --uid=0", "-gpu"]),
        ("slurm", "account", ["a b", "$(id)"]),
        ("slurm", "qos", [3]),
        ("slurm", "gres", ["gpu:1;id", "gpu:1\n"]),
        ("slurm", "memory", ["lots", 16]),
        ("slurm", "time", ["12:00:00\nid", "soon"]),
        ("slurm", "modules", [["cuda; id"], ["-h"], "cuda"]),
        ("slurm", "container", ["x.sif\nid", "x.sif; id", "apptainer exec $(id)", "apptainer 'exec"]),
        ("slurm", "command", [""]),
        ("slurm", "sbatch", [["-p gpu"], ["--comment=a\nb"], ["job.sh"]]),
        ("ray", "address", ["ray://head:10001", "head", "head:0", "head:6379; id", "local", 6379]),
        ("ray", "gpus", ["one", True, -1, 0.001, 2.5, 65]),
        ("ray", "cpus", [0.5]),
        ("ray", "memory", ["lots"]),
        ("ray", "resources", [{}, ["fast"], {"fast": 0}, {"fast": "1"}, {"memory": 1}, {3: 1}]),
        ("ray", "command", ["fersweep; id"]),
    ],
)
def test_nothing_can_become_another_line_option_or_command_or_ask_for_what_there_cannot_be(kind, key, values):
    for value in values:
        assert refusal_of(kind, **{key: value}).startswith(key)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sbatch": ["--part=x"]}, "write partition"),  # sbatch takes any beginning that is unique
        ({"sbatch": ["--array=1-3"]}, "write agents and at_once"),
        ({"sbatch": ["--exp=NONE"]}, "set by fersweep"),
        ({"sbatch": ["--no-requeue"]}, "set by fersweep"),
        ({"time": "5", "notice_s": 300}, "notice_s: 300 s leave no time to train (less than time, which is 300 s)"),
        ({"time": "0:30"}, "time: '0:30' is less than a minute"),
    ],
)
def test_settings_that_contradict_each_other_or_fersweep_are_refused(values, says):
    assert says in refusal_of("slurm", **values)


def test_words_of_a_container_and_whole_gpus_and_shares_of_one_are_accepted():
    slurm = parse_pool({"kind": "slurm", "partition": "gpu,long", "container": "apptainer exec '/my images/a.sif'"})
    assert slurm.container == ("apptainer", "exec", "/my images/a.sif")
    for gpus in (0, 0.01, 0.5, 1, 64):
        assert parse_pool({"kind": "ray", "gpus": gpus}).gpus == gpus
