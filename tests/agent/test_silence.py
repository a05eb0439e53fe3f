"""How long a trial may make no step before it counts as hung."""

from fer_sweep.agent.silence import LIMIT_S, START_LIMIT_S, TIMES_THE_LONGEST, Silence


def test_the_limit_grows_with_the_longest_silence_that_ended() -> None:
    silence = Silence()
    assert silence.limit(has_begun=True) == LIMIT_S
    assert silence.limit(has_begun=False) == START_LIMIT_S
    silence.learn(1.0)
    assert silence.limit(has_begun=True) == LIMIT_S
    silence.learn(90.0)
    silence.learn(2.0)
    assert silence.limit(has_begun=True) == 90.0 * TIMES_THE_LONGEST


def test_a_given_limit_is_the_limit() -> None:
    silence = Silence(20.0)
    silence.learn(90.0)
    assert silence.limit(has_begun=True) == silence.limit(has_begun=False) == 20.0
