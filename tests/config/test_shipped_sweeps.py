"""Every shipped sweep file passes W&B's validator and ours, can be trained whole, and means the same to plain YAML."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from fer_sweep.config.arguments import parse_arguments
from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import load_sweep_file, load_with_lines, with_constants, with_run_cap
from fer_sweep.config.trial import nest, parse_trial

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sweeps 0.3 uses a name that pydantic has renamed
    from sweeps.config import SweepConfig, schema_violations_from_proposed_config

    import sweeps

FOLDER = Path(__file__).resolve().parent.parent.parent / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_the_four_architectures_and_an_example_are_there() -> None:
    assert [path.stem for path in FILES] == ["deeper_cnn", "multi_objective", "resnet", "simple_cnn", "vit"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_passes_w_and_bs_validator_as_stock_wandb_reads_it(path: Path) -> None:
    read = yaml.safe_load(path.read_text())
    assert schema_violations_from_proposed_config(read) == []
    SweepConfig(read)
    assert load_sweep_file(path).to_plain() == read


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_can_be_trained_whole_with_nothing_to_remark(path: Path) -> None:
    sweep, lines = load_with_lines(path)
    space = Space.from_sweep(sweep)
    assert bind(sweep, space, source=str(path), lines=lines) == ()
    rng = np.random.default_rng(0)
    for _ in range(300):
        parse_trial(space.sample(rng))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_has_a_goal_a_cap_and_a_command_for_the_stock_agent(path: Path) -> None:
    sweep = load_sweep_file(path)
    assert (sweep.objectives[0].name, sweep.objectives[0].goal) == ("best_val_acc", "maximize")
    assert sweep.run_cap
    assert sweep.program == "fersweep"
    assert sweep.command == ("${env}", "fersweep", "train", "${args}")
    space = Space.from_sweep(sweep)
    assert space.parameters["data"].quantile(0.5) == "fer2013"
    if sweep.scheduler is None:
        assert sweep.method == "bayes"
        assert sweep.early_terminate
        assert sum(band < space.parameters["epochs"].quantile(0.5) for band in sweep.early_terminate.bands) >= 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_the_stock_agent_passes_is_what_was_drawn(path: Path) -> None:
    values = Space.from_sweep(load_sweep_file(path)).sample(np.random.default_rng(5))
    nested = "augment" in (load_sweep_file(path).parameters or {})
    stock = create_sweep_command_args(
        {"args": {k: {"value": v} for k, v in (nest(values) if nested else values).items()}}
    )
    assert parse_trial(parse_arguments(stock["args"])) == parse_trial(values)
    assert parse_trial(parse_arguments(stock["args_no_equals"])) == parse_trial(values)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_w_and_bs_own_sampler_draws_from_it_what_we_could(path: Path) -> None:
    read = yaml.safe_load(path.read_text())
    space = Space.from_sweep(load_sweep_file(path))
    for run in sweeps.next_runs({**read, "method": "random"}, [], n=20):
        values = {name: entry["value"] for name, entry in run.config.items()}
        flat = {name: value for name, value in values.items() if not isinstance(value, dict)}
        flat |= {
            f"{name}.{key}": item
            for name, value in values.items()
            if isinstance(value, dict)
            for key, item in value.items()
        }
        assert space.contains(flat)
        parse_trial(flat)


def test_the_quick_tour_prunes_too() -> None:
    tour = with_run_cap(with_constants(load_sweep_file(FOLDER / "simple_cnn.yaml"), {"epochs": 4}), 6)
    space = Space.from_sweep(tour)
    assert bind(tour, space) == ()
    assert space.parameters["epochs"].quantile(0.5) == 4
    assert tour.run_cap == 6
