"""Every reader accepts or refuses its seeds and damaged copies of them, in bounded memory."""

from collections.abc import Iterator

import pytest

from fer_sweep.data.memory import bounded_memory
from tests.fuzz.readers import READERS, accepts, forget


@pytest.fixture(scope="module", autouse=True)
def _tidy(one_thread: None) -> Iterator[None]:
    yield
    forget()


@pytest.mark.parametrize("name", READERS)
def test_seeds_and_damaged_seeds_are_accepted_or_refused(name: str) -> None:
    reader = READERS[name]
    with bounded_memory(1 << 30):
        seeds = reader.seeds()
        accepted = [accepts(reader, seed) for seed in seeds]
        assert any(accepted)
        for seed in seeds[:4]:
            for part in range(6):
                place = len(seed) * part // 6
                accepts(reader, seed[:place])
                accepts(reader, seed[:place] + bytes([seed[place] ^ 0x55]) + seed[place + 1 :])
