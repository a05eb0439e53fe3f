"""Every reader accepts or refuses its seeds and damaged copies of them."""

import random

import pytest

from tests.fuzz.readers import READERS, accepts


@pytest.mark.parametrize("name", READERS)
def test_seeds_and_damaged_seeds_are_accepted_or_refused(name: str) -> None:
    generator = random.Random(name)
    seeds = READERS[name][1]()
    assert sum(accepts(name, seed) for seed in seeds) > 0
    for _ in range(40):
        damaged = bytearray(generator.choice(seeds))
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(len(damaged))
            damaged[place : place + generator.randint(0, 8)] = generator.randbytes(generator.randint(0, 8))
        accepts(name, bytes(damaged))
        accepts(name, bytes(damaged[: generator.randrange(len(damaged))]))
