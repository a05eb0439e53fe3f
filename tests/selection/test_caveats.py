"""What is said about a choice: ends of ranges, chance, trials cut short."""

from collections.abc import Sequence

from fer_sweep.config.parameters import LogUniform
from fer_sweep.config.space import Space
from fer_sweep.records import TrialState
from fer_sweep.selection import Candidate, Caveat, Confirmed, caveats, select, select_each
from tests.support.records import candidate, make_result


def of(*candidates: Candidate, space: Space | None = None, confirmed: Sequence[Confirmed] = ()) -> list[Caveat]:
    spaces = {"s": space} if space else None
    return list(caveats(select(candidates), select_each(candidates), spaces, confirmed))


def test_nothing_is_said_where_there_is_nothing_to_say() -> None:
    assert of(candidate("a", 0.66), candidate("b", 0.50)) == []
    assert of() == []
    assert of(candidate("diverged", 0.0, best_epoch=0)) == []


def test_the_best_two_within_chance_are_said_to_be_with_what_would_tell_them_apart() -> None:
    (found,) = of(candidate("1", 0.5946), candidate("2", 0.589), candidate("3", 0.40))
    assert found.kind == "noise"
    for words in ("1 of the 2 other trials", "are 0.56 points apart", "59,000 images", "18 seeds"):
        assert words in found.message
    (equal,) = of(candidate("1", 0.6), candidate("2", 0.6))
    assert "are 0.00 points apart" in equal.message
    assert of(candidate("1", 0.60, n=100_000), candidate("2", 0.59, n=100_000)) == [], "more images tell them apart"


def other_model(name: str, accuracy: float, model: str = "resnet18") -> Candidate:
    return candidate(name, accuracy, size=2000, sweep="r", config={"model": model, "data": "fer2013"})


def test_architectures_that_may_be_equal_are_named_once() -> None:
    (found,) = of(candidate("1", 0.60), other_model("9", 0.605))
    assert found.message.startswith(
        "the architectures resnet18 and simple_cnn may be equally accurate: the winners s/1 (60.00 %) and r/9"
    )
    same, both = of(candidate("1", 0.60), candidate("2", 0.60), other_model("9", 0.605), other_model("8", 0.601, "vit"))
    assert "that of 3 of the 3 other trials" in same.message and "s/2" in same.message
    assert both.message.startswith("the architectures resnet18, vit and simple_cnn may be equally accurate: ")


def test_further_seeds_decide_in_the_place_of_chance() -> None:
    first, second = candidate("1", 0.60, size=1), candidate("2", 0.605, size=2)

    def seeds(of_first: float, of_second: float) -> list[Confirmed]:
        pairs = ((first, of_first), (second, of_second))
        results = [{n: make_result(best_val_acc=mean + n / 1e4) for n in range(3)} for _, mean in pairs]
        return [Confirmed(c.name, c.model, "d", c.result, r) for (c, _), r in zip(pairs, results, strict=True)]

    assert [caveat.kind for caveat in of(first, second)] == ["noise"], "s/1 wins: it has the fewest parameters"
    assert of(first, second, confirmed=seeds(0.60, 0.58)) == []
    (lost,) = of(first, second, confirmed=seeds(0.58, 0.60))
    assert lost.kind == "seeds" and "simple_cnn s/2 is better than simple_cnn s/1" in lost.message
    assert [caveat.kind for caveat in of(first, second, confirmed=seeds(0.60, 0.60))] == ["noise"]


def test_a_pruned_trial_that_leads_the_ranking_is_named() -> None:
    complete, pruned = candidate("1", 0.60), candidate("7", 0.70, state=TrialState.PRUNED)
    (found,), (alone,) = of(pruned, complete), of(pruned)
    assert found.kind == "pruned"
    assert "cannot win" in found.message and "fersweep confirm s --trial 7" in found.message
    assert "provisional" in alone.message
    assert of(candidate("7", 0.5, state=TrialState.PRUNED), complete) == []
    assert of(candidate("7", 0.70, state=TrialState.PRUNED, verdict="collapsed"), complete) == []


def test_a_best_value_at_the_end_of_its_range_is_named_with_its_company() -> None:
    space = Space({"lr": LogUniform(min=1e-4, max=1e-2)})
    at_the_end = candidate("1", 0.60, 0.0, parameters={"lr": 0.0099})
    inside = candidate("2", 0.597, 0.1, parameters={"lr": 0.001})
    (found,) = [c for c in of(at_the_end, inside, space=space) if c.kind == "edge"]
    assert "the winner, trial s/1, has lr 0.0099, at the upper end of its range (0.0001 to 0.01)" in found.message
    assert "unlike the other trial" in found.message and "widen" in found.message
    assert of(inside, space=space) == []
    vit = candidate("3", 0.5, parameters={"lr": 1e-4}, config={"model": "vit", "data": "fer2013"})
    both = [c.message for c in of(at_the_end, vit, space=space) if c.kind == "edge"]
    assert "the winner of simple_cnn, trial s/1, has" in both[0] and "of vit, trial s/3, has" in both[1], (
        "opposite ends"
    )


def test_warnings_come_gravest_first_and_never_contradict_the_reason() -> None:
    space = Space({"lr": LogUniform(min=1e-4, max=1e-2)})
    pruned = candidate("9", 0.70, state=TrialState.PRUNED)
    best = candidate("1", 0.60, parameters={"lr": 0.01}, fingerprint="a" * 64)
    other = candidate("2", 0.59, fingerprint="b" * 64, config={"model": "vit", "data": "fer2013"})
    trials = [pruned, best, other]
    chosen = select(trials, anyway=True)
    found = caveats(chosen, select_each(trials, anyway=True), {"s": space})
    assert [caveat.kind for caveat in found] == ["data", "pruned", "edge"], "on other data nothing is chance"
    assert "that can win" in chosen.reason, "a pruned trial has a better accuracy"
