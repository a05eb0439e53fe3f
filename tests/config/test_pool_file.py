"""Pool files: what is accepted, what is refused and how, and the shipped ones."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_sweep.config.pool_file import KINDS, LocalPool, RayPool, SlurmPool, load_pool_file, parse_pool
from fer_sweep.errors import PoolFileError

PORTS = st.integers(1, 65_535)
FIELDS = sorted({name for model in KINDS.values() for name in model.model_fields} - {"kind"})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(SCALARS, SCALARS, max_size=3)
FOLDER = Path(__file__).resolve().parent.parent.parent / "agents"


def refusal_of(kind: str = "slurm", **values: Any) -> str:
    with pytest.raises(PoolFileError) as refused:
        parse_pool({"kind": kind, **values})
    (problem,) = refused.value.problems
    return str(problem)


def test_every_shipped_file_loads() -> None:
    loaded = {path.stem: load_pool_file(path) for path in FOLDER.glob("*.yaml") if "kubernetes" not in path.stem}
    assert isinstance(loaded["local"], LocalPool)
    assert isinstance(loaded["slurm"], SlurmPool)
    assert isinstance(loaded["ray"], RayPool)


@pytest.mark.parametrize("kind", ["slurm", "ray"])
def test_every_line_of_a_file_that_is_off_may_be_switched_on(kind: str, tmp_path: Path) -> None:
    fields = KINDS[kind].model_fields
    lines = (FOLDER / f"{kind}.yaml").read_text().splitlines()
    switched = [line.removeprefix("# ") if line.startswith("# ") and _name(line) in fields else line for line in lines]
    file = tmp_path / "all.yaml"
    file.write_text("\n".join(switched))
    pool = load_pool_file(file)
    assert pool.model_fields_set == set(fields)


def _name(line: str) -> str:
    return line.removeprefix("# ").partition(":")[0]


def test_problems_stand_at_their_lines_with_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "slurm.yaml"
    file.write_text("kind: slurm\npartitoin: gpu\ntime: 12:00:00\nagents: 0\naccount:\n")
    with pytest.raises(PoolFileError) as refused:
        load_pool_file(file)
    text = str(refused.value)
    assert f"{file}, line 2: partitoin: no such key (did you mean partition?)" in text
    assert f"{file}, line 3: time: 43200 is a number to YAML (in quotes:" in text
    assert f"{file}, line 4: agents: 0 is not from 1 to 1000" in text
    assert f"{file}, line 5: account: is empty" in text
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: slrum\n", "line 1: kind: no such kind: 'slrum' (did you mean slurm?)"),
        ("agents: 2\n", "kind: missing (one of local, slurm, ray)"),
        ("kind: rey\n", "line 1: kind: no such kind: 'rey' (did you mean ray?)"),
        ("kind: local\ngres: gpu:1\n", "line 2: gres: no such key"),
        ("", "is empty (a pool file needs kind"),
        ("- kind\n", "is not a dictionary"),
    ],
)
def test_a_file_of_no_known_kind_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "pool.yaml").write_text(text)
    with pytest.raises(PoolFileError) as refused:
        load_pool_file(tmp_path / "pool.yaml")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partition", "gpu\n#SBATCH --uid=0"),
        ("partition", "gpu --uid=0"),
        ("partition", "-gpu"),
        ("account", "a b"),
        ("account", "$(id)"),
        ("qos", 3),
        ("gres", "gpu:1;id"),
        ("gres", "gpu:1\n"),
        ("memory", "lots"),
        ("memory", 16),
        ("time", "12:00:00\nid"),
        ("time", "soon"),
        ("modules", ["cuda; id"]),
        ("modules", ["-h"]),
        ("modules", "cuda"),
        ("container", "apptainer exec x.sif\nid"),
        ("container", "apptainer exec x.sif; id"),
        ("container", "apptainer exec $(id)"),
        ("container", "apptainer 'exec"),
        ("command", ""),
        ("sbatch", ["-p gpu"]),
        ("sbatch", ["--comment=a\nb"]),
        ("sbatch", ["job.sh"]),
    ],
)
def test_nothing_in_it_can_become_another_line_option_or_command(key: str, value: Any) -> None:
    assert refusal_of(**{key: value}).startswith(key)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--partition=x", "write partition"),
        ("--part=x", "write partition"),  # sbatch takes any beginning that is unique
        ("--array=1-3", "write agents and at_once"),
        ("--wrap=id", "set by fersweep"),
        ("--exp=NONE", "set by fersweep"),
        ("--no-requeue", "set by fersweep"),
    ],
)
def test_what_fersweep_sets_itself_is_not_set_twice(option: str, says: str) -> None:
    assert says in refusal_of(sbatch=[option])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"time": "5", "notice_s": 300}, "notice_s: 300 s leave no time to train (less than time, which is 300 s)"),
        ({"time": "0:30"}, "time: 0:30 is under a minute"),
    ],
)
def test_the_notice_leaves_time_to_train(values: dict[str, Any], says: str) -> None:
    assert refusal_of(**values).startswith(says)


def test_what_a_student_writes_is_taken() -> None:
    pool = parse_pool(
        {
            "kind": "slurm",
            "partition": "gpu,gpu-long",
            "gres": "gpu:a100:2",
            "time": "1-12:00:00",
            "container": "apptainer exec --nv '/shared/my images/fersweep.sif'",
            "sbatch": ["--constraint=a100|h100", "--exclusive", "--mem-per-cpu=4G"],
        }
    )
    assert isinstance(pool, SlurmPool)
    assert pool.container == ("apptainer", "exec", "--nv", "/shared/my images/fersweep.sif")


def test_problems_of_a_ray_file_stand_at_their_lines_with_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "ray.yaml"
    file.write_text("kind: ray\nadress: auto\ngpus: 1.5\nresources:\n  GPU: 1\ncpus: 0\n")
    with pytest.raises(PoolFileError) as refused:
        load_pool_file(file)
    text = str(refused.value)
    assert f"{file}, line 2: adress: no such key (did you mean address?)" in text
    assert f"{file}, line 3: gpus: 1.5 GPUs cannot be had (a whole number up to 64, or a share such as 0.5)" in text
    assert f"{file}, line 4: resources: GPU has a key of its own here (write gpus)" in text
    assert f"{file}, line 6: cpus: 0 is not from 1 to 1024" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("address", "ray://head:10001"),
        ("address", "head"),
        ("address", "head:0"),
        ("address", "head:65536"),
        ("address", "head:6379; id"),
        ("address", "local"),
        ("address", 6379),
        ("gpus", "one"),
        ("gpus", True),
        ("gpus", -1),
        ("gpus", 0.001),
        ("gpus", 65),
        ("cpus", 0.5),
        ("memory", "lots"),
        ("resources", {}),
        ("resources", ["fast"]),
        ("resources", {"fast": 0}),
        ("resources", {"fast": "1"}),
        ("resources", {"memory": 1}),
        ("resources", {"object_store_memory": 1}),
        ("resources", {3: 1}),
        ("command", "fersweep; id"),
    ],
)
def test_what_ray_could_not_place_is_refused(key: str, value: Any) -> None:
    assert refusal_of("ray", **{key: value}).startswith(key)


@given(
    gpus=st.integers(0, 64) | st.floats(0.01, 1.0),
    address=st.none()
    | st.just("auto")
    | st.builds("{}:{}".format, st.from_regex(r"[a-z][a-z0-9.-]*", fullmatch=True), PORTS),
)
def test_whole_gpus_and_shares_of_one_on_any_cluster_are_taken(gpus: float, address: str | None) -> None:
    values = {"gpus": gpus} | ({"address": address} if address else {})
    pool = parse_pool({"kind": "ray", **values})
    assert isinstance(pool, RayPool)
    assert (pool.gpus, pool.address) == (gpus, address)


@given(gpus=st.floats(0, 64).filter(lambda value: value > 1 and value != int(value)))
def test_a_gpu_and_a_part_of_another_cannot_be_had(gpus: float) -> None:
    assert refusal_of("ray", gpus=gpus).startswith("gpus")


@given(kind=st.sampled_from(sorted(KINDS)), values=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4))
def test_whatever_a_file_holds_there_is_a_pool_or_a_problem_with_its_key(kind: str, values: dict[str, Any]) -> None:
    try:
        parse_pool({"kind": kind, **values})
    except PoolFileError as error:
        assert all(problem.key.partition(".")[0] in values for problem in error.problems)
