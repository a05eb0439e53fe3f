"""Two trials side by side: what differs, and whether it is beyond noise."""

from pathlib import Path

import pytest

from fer_sweep.reports.comparing import Pair
from fer_sweep.selection import Confirmed
from tests.reports.test_sources import Complete, made
from tests.support.records import candidate, make_result
from tests.support.shell import Shell

NAMES = ("one", "other")


def test_the_configuration_that_differs() -> None:
    first = candidate("0", 0.6, config={"model": "simple_cnn", "lr": 0.1, "augment": {"shift": 0.1}, "channels": 8})
    second = candidate("1", 0.6, config={"model": "simple_cnn", "lr": 0.1, "augment": {"shift": 0.2}})
    pair = Pair(first, second)
    assert pair.configuration == {"augment.shift": (0.1, 0.2), "channels": (8, None)}
    assert pair.configuration_rows() == [("augment.shift", "0.1", "0.2"), ("channels", "8", "-")]
    assert ("best_val_acc", "60.00 %", "60.00 %") in pair.result_rows()


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        (0.62, "other is 2.00 points more accurate, not beyond noise: chance explains up to 2.26"),
        (0.55, "one is 5.00 points more accurate, beyond noise: chance explains up to 2.28"),
        (0.60, "Their accuracies are equal"),
    ],
)
def test_words_say_whether_a_difference_is_beyond_noise(accuracy: float, words: str) -> None:
    pair = Pair(candidate("0", 0.6), candidate("1", accuracy))
    assert pair.words(NAMES)[0] == words
    assert pair.differences[0].is_beyond_noise == (accuracy == 0.55)


def test_other_data_cannot_be_compared_and_further_seeds_decide() -> None:
    first, second = candidate("0", 0.6, fingerprint="a" * 64), candidate("1", 0.6, fingerprint="b" * 64)
    pair = Pair(first, second)
    assert pair.differences == () and "different data" in pair.words(NAMES)[0]
    seeds = [
        Confirmed(c.name, c.model, "d", first.result, {n: make_result(best_val_acc=a + n / 1e4) for n in range(3)})
        for c, a in ((first, 0.6), (candidate("1", 0.5), 0.5))
    ]
    words = Pair(first, candidate("1", 0.5), tuple(seeds)).words(NAMES)
    assert words[-1] == "confirmed: over seeds, simple_cnn s/0 is better than simple_cnn s/1 on these images"


def test_the_command_writes_to_the_terminal_as_json_and_as_a_page(
    shell: Shell, tmp_path: Path, complete: Complete
) -> None:
    here = made(tmp_path, [complete(best_val_acc=0.5), complete(best_val_acc=0.9)]).id
    there = made(tmp_path, [complete(best_val_acc=0.7)]).id
    code, out, err = shell("compare", f"{here}/1", "0", "-o", "two.html")
    assert code == 0 and out.index("configuration") < out.index("best_val_acc") < out.index("more accurate")
    assert f"{here}/1" in out and "report: two.html" in out and f"next: fersweep confirm {here} --trial 1" in err
    page = Path("two.html").read_text()
    assert "curves-best-accuracy" in page and 'id="comparison"' in page and "The winner of the two" in page
    document = shell.json("compare", f"{here}/0", f"{here}/1")
    assert list(document["configuration"]) == ["lr"]
    assert document["differences"]["best_val_acc"]["value"] == pytest.approx(-0.4)
    for words, message in (
        (("0", f"{there}/0"), "are the same trial"),
        (("0", f"{here}/7"), "has no trial 7 with a result"),
        (("0", f"{here}/"), "names no trial"),
        (("0", f"{here}/1", "-o", "two.pdf"), "not an HTML file"),
    ):
        code, out, err = shell("compare", *words)
        assert (code, out) == (2, "") and message in err and "hint: " in err
