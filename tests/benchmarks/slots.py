"""The throughput of one device over slots, as ``--slots auto`` and ``--per-gpu auto`` measure it."""

from collections.abc import Mapping, Sequence

from fer_sweep.agent.gpus import discover
from fer_sweep.agent.probe import measure
from fer_sweep.agent.processes import TrialStarter
from fer_sweep.agent.slots import Slot, make_slots, usable_cores
from fer_sweep.config.trial import parse_trial
from tests.benchmarks.rows import Row
from tests.benchmarks.throughput import DATA, folders

MODELS = ("simple_cnn", "deeper_cnn")


def images_per_second(model: str, slots: int) -> float:
    """Of so many slots together, each training the default sizes of a model."""
    folders()
    gpus = discover()[:1]
    config = parse_trial({"model": model, "data": DATA})
    starter = TrialStarter()
    starter.warm_up()

    def divide(_: int) -> Sequence[Slot]:
        return make_slots(gpus, per_gpu=slots) if gpus else make_slots((), cpu_slots=slots)

    try:
        return measure(config, divide, 1, starter)[0].images_per_second
    finally:
        starter.close()


def _row(model: str, slots: int) -> Row:
    return Row(
        f"{model}, {slots} slots on one device together, training images/s",
        {"fersweep": lambda _: images_per_second(model, slots), "one slot": lambda _: images_per_second(model, 1)},
        better="more",
    )


MOST = 8 if discover() else min(8, usable_cores())
ROWS: Mapping[str, Row] = {
    f"slots-{model}-{2**power}": _row(model, 2**power) for model in MODELS for power in range(1, MOST.bit_length())
}
"""2, 4 and 8 slots as far as there are cores, or on a GPU."""
