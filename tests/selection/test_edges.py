"""A value at the end of its range is told from one inside, on the range's own scale."""

from typing import Any

import pytest

from fer_sweep.config.parameters import (
    Categorical,
    Distribution,
    IntUniform,
    LogUniform,
    Normal,
    QLogUniform,
    QUniform,
    Uniform,
)
from fer_sweep.selection.caveats import ends_reached, side_of


@pytest.mark.parametrize(
    ("distribution", "value", "side"),
    [
        (Uniform(min=0.0, max=1.0), 0.04, "lower"),
        (Uniform(min=0.0, max=1.0), 0.06, None),
        (LogUniform(min=1e-4, max=1e-2), 1.2e-4, "lower"),  # 4 % of the way by logarithms
        (LogUniform(min=1e-4, max=1e-2), 6e-4, None),  # 5 % of the way by values, 39 % by logarithms
        (IntUniform(min=3, max=5), 5, "upper"),
        (QUniform(min=0.0, max=0.5, q=0.1), 0.5, "upper"),
        (QLogUniform(min=16, max=512, q=16), 16, "lower"),
        (Categorical(values=[64, 128, 256]), 64, "lower"),
        (Categorical(values=[256, 64, 128]), 256, "upper"),  # in whatever order they are listed
        (Categorical(values=[64, 128, 256]), 128, None),
        (Categorical(values=[64]), 64, None),
        (Categorical(values=[False, True]), True, None),
        (Normal(mu=0.0, sigma=1.0), 9.0, None),
        (Uniform(min=0.0, max=1.0), None, None),
    ],
)
def test_sides(distribution: Distribution, value: Any, side: str | None) -> None:
    assert side_of(distribution, value) == side


@pytest.mark.parametrize(
    ("name", "distribution", "value", "wider"),
    [
        ("lr", LogUniform(min=3e-4, max=1e-2), 1e-2, True),
        ("dropout", Uniform(min=0.0, max=0.5), 0.0, False),  # there is no dropout below
        ("dropout", Uniform(min=0.0, max=0.5), 0.5, True),
        ("augment.shift", Uniform(min=0.0, max=0.1), 0.0, False),
        ("kernel_size", Categorical(values=[3, 5]), 3, False),  # training takes 3, 5 and 7
        ("kernel_size", Categorical(values=[3, 5]), 5, True),
        ("batch_size", Categorical(values=[64, 128, 256]), 256, True),
        ("batch_size", Categorical(values=[64, 128, 256]), 64, True),
        ("seed", Categorical(values=[0, 1, 2]), 2, False),  # has no order
        ("channels", IntUniform(min=1, max=64), 1, False),
        ("channels", IntUniform(min=16, max=64), 64, True),
        ("patch_size", Categorical(values=[4, 6, 8]), 8, True),  # of a ViT, where it divides the image
    ],
)
def test_ends_that_training_could_go_beyond(name: str, distribution: Distribution, value: Any, wider: bool) -> None:
    config = {"model": "vit" if name == "patch_size" else "simple_cnn", "data": "fer2013"}
    assert list(ends_reached({name: distribution}, {name: value}, config)) == [name] * wider
