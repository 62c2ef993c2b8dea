"""Encoding defenses: what they build, and the inputs that they refuse."""

from fractions import Fraction

import pytest

from attacks.threat import Box
from bench.errors import BenchError
from bench.resolve import build_model, parse_defense
from bench.spec import ModelSpec
from defenses import ConflictError, Defense, Setting
from defenses.at import at
from defenses.fe import fe
from defenses.poisson import poisson
from defenses.signed_rate import signed_rate
from defenses.sqe import sqe
from models.cnn import SpikingCNN
from models.encoders.frequency import FrequencyEncoder
from models.encoders.signed_rate import SignedRateEncoder
from models.neurons import NeuronSpec, is_stochastic

SETTING = Setting("cnn-small", Fraction(2, 255))
EVENTS = Setting("cnn-small", Fraction(2, 255), Box(0, 7, 2), 4, True)


def built(defense: Defense, mean: tuple[float, ...] = (0.3,), T: int = 4) -> SpikingCNN:
    encoder = defense.settled(Setting("cnn-small", Fraction(1, 10), T=T)).encoder
    model = build_model(ModelSpec("cnn-small", 10, (1, 8, 8), T, NeuronSpec(), mean, (0.4,), encoder=encoder))
    assert isinstance(model, SpikingCNN)
    return model


@pytest.mark.parametrize(("T", "widths"), [(4, [16, 14, 12, 10]), (8, [16, 14, 12, 10, 8, 6, 4, 2]), (16, None)])
def test_the_frequency_step_is_the_papers_and_reaches_any_number_of_steps(T: int, widths: list[int] | None) -> None:
    encoder = built(fe(), T=T).encoder
    assert isinstance(encoder, FrequencyEncoder)
    halves = [16 * (1 - encoder.step * t) for t in range(T)]
    assert halves == (widths or [16 - t for t in range(16)])
    assert built(fe(0.0625)).encoder.step == 0.0625  # type: ignore[union-attr]


def test_each_builds_its_encoder_with_the_networks_mean() -> None:
    signed = built(signed_rate(), (0.37,)).encoder
    assert isinstance(signed, SignedRateEncoder)
    assert float(signed.mean) == pytest.approx(0.37)
    assert built(sqe(3)).encoder.levels == 3  # type: ignore[union-attr]
    assert [is_stochastic(built(defense)) for defense in (fe(), poisson(), signed_rate(), sqe())] == [
        False,
        True,
        True,
        True,
    ]


def test_counts_are_no_probabilities() -> None:
    for defense in (poisson(), signed_rate()):
        with pytest.raises(ValueError, match=r"these inputs lie in \[0, 7\]; leave it out"):
            defense.settled(EVENTS)
        assert defense.settled(SETTING) == defense
    for defense in (fe(), sqe()):
        assert defense.settled(EVENTS).encoder == defense.settled(SETTING).encoder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fe:step=0", "step must be positive"),
        ("sqe:levels=0", "levels must be at least 1"),
        ("poisson+fe", "both decide the encoding"),
    ],
)
def test_impossible_settings_are_refused(text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        parse_defense(text)
    with pytest.raises(ValueError, match=r"step 0\.4 leaves no frequency for the last of 4 time steps"):
        fe(0.4).settled(SETTING)


def test_they_add_up_with_other_ideas_and_not_with_each_other() -> None:
    assert (fe() + at()).name == "fe+at"
    assert (poisson() + at()).settled(SETTING).encoder == "poisson"
    with pytest.raises(ConflictError, match="both decide the encoding"):
        sqe() + signed_rate()
