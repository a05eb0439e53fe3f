"""Seeds are read, or refused with words; so is everything that fuzzing has found."""

from collections.abc import Iterator

import pytest

from fer_sweep.data.memory import bounded_memory
from tests.fuzz.readers import READERS, forget, never_surprised, past_findings


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> Iterator[None]:
    yield
    forget()


@pytest.mark.parametrize("name", READERS)
def test_every_seed_is_read_or_refused_and_some_are_read(name: str) -> None:
    reader = READERS[name]
    taken = [never_surprised(reader, seed) for seed in reader.seeds()]
    assert any(taken)


@pytest.mark.parametrize("name", READERS)
def test_every_cut_and_flipped_seed_is_read_or_refused(name: str) -> None:
    reader = READERS[name]
    for seed in reader.seeds()[:6]:
        for part in range(8):
            place = len(seed) * part // 8
            never_surprised(reader, seed[:place])
            if seed:
                never_surprised(reader, seed[:place] + bytes([seed[place] ^ 0x55]) + seed[place + 1 :])


@pytest.mark.parametrize(("name", "content"), list(past_findings()))
def test_what_fuzzing_found_is_refused_within_bounds(name: str, content: bytes) -> None:
    with bounded_memory(512 << 20):
        assert not never_surprised(READERS[name], content)
