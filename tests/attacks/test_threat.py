"""eps is an exact number in pixel units, or it is refused."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks import Threat, parse_eps
from attacks.threat import format_eps


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", Fraction(8, 255)), ("0.15", Fraction(3, 20)), (" 2/255 ", Fraction(2, 255)), ("0", Fraction(0))],
)
def test_eps_is_read_exactly(text: str, value: Fraction) -> None:
    assert parse_eps(text) == value


@pytest.mark.parametrize("text", ["", "eight", "8/0", "8/255/2", "nan", "inf", "-1/255", "1e400"])
def test_what_is_not_a_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="eps"):
        parse_eps(text)


def test_eight_meant_as_eight_255ths_is_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match=r"did you mean 8/255\?"):
        Threat(Fraction(8))


def test_an_l2_budget_may_exceed_the_pixel_range() -> None:
    assert Threat(Fraction(3), norm="l2").eps == 3


def test_a_wider_box_admits_a_larger_linf_budget() -> None:
    assert Threat(Fraction(8), low=0, high=255).eps == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": Fraction(-1)}, "negative"),
        ({"eps": Fraction(0), "norm": "l1"}, "unknown norm"),
        ({"eps": Fraction(0), "low": 1.0, "high": 1.0}, "empty"),
    ],
)
def test_impossible_threats_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Threat(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (Fraction(0), "0"),
        (Fraction(1, 5), "0.2"),
        (Fraction(3, 20), "0.15"),
        (Fraction(8, 255), "8/255"),
        (Fraction(12, 255), "12/255"),
        (Fraction(1, 7), "1/7"),
    ],
)
def test_eps_is_written_as_people_write_it(eps: Fraction, text: str) -> None:
    assert format_eps(eps) == text


@given(st.one_of(st.fractions(0, 1), st.floats(0, 1).map(Fraction), st.floats(0, 1).map(lambda v: Fraction(repr(v)))))
def test_what_is_written_reads_back_exactly(eps: Fraction) -> None:
    assert parse_eps(format_eps(eps)) == eps
