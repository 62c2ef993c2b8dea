"""What is written is what is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks.gradients import GRADIENTS, SpikeGradient, format_gradient, parse_gradient
from attacks.gradients.assg import _SHAPES, ASSG
from attacks.gradients.hart import HART
from attacks.gradients.rates import RGA
from models.surrogates import SURROGATES, ArcTan, Surrogate

POSITIVE = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
UNIT = st.floats(0, 1, exclude_min=True, exclude_max=True)
PARAMETERS: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "triangular": {"gamma": POSITIVE},
    "rectangular": {"gamma": POSITIVE},
    "arctan": {"alpha": POSITIVE},
    "sigmoid": {"alpha": POSITIVE},
    "gaussian": {"alpha": POSITIVE},
    "bptr": {},
    "rga": {"gamma": st.floats(0, 1, exclude_min=True)},
    "hart": {"gamma": POSITIVE},
    "assg": {"tolerance": UNIT, "beta": UNIT, "r": POSITIVE, "shape": st.sampled_from(list(_SHAPES))},
    "pdsg": {},
    "conversion": {},
    "noiseless": {},
}


@st.composite
def gradients(draw: st.DrawFn) -> Surrogate | SpikeGradient:
    name = draw(st.sampled_from(list(PARAMETERS)))
    return GRADIENTS[name](**{key: draw(values) for key, values in PARAMETERS[name].items()})


def test_every_gradient_is_tried() -> None:
    assert set(PARAMETERS) == set(GRADIENTS)
    assert set(SURROGATES) < set(GRADIENTS)


@given(gradients())
def test_the_written_form_is_read_back(gradient: Surrogate | SpikeGradient) -> None:
    assert parse_gradient(format_gradient(gradient)) == gradient


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_name_alone_is_the_gradient_with_its_defaults(name: str) -> None:
    assert parse_gradient(f" {name} ") == GRADIENTS[name]() == parse_gradient(f"{name}:")
    assert GRADIENTS[name]().name == name
    assert isinstance(GRADIENTS[name](), SpikeGradient) == (name not in SURROGATES)


def test_parameters_come_in_any_order_with_spaces() -> None:
    assert parse_gradient("assg: shape = sigmoid , tolerance=0.9") == ASSG(tolerance=0.9, shape="sigmoid")
    assert parse_gradient("arctan:alpha=4") == ArcTan(4)
    assert parse_gradient("hart:gamma=1e-1") == HART(0.1)
    assert format_gradient(RGA()) == "rga:gamma=0.2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"unknown gradient ''; choose from triangular, .*bptr, rga, hart, assg, pdsg, conversion, noiseless"),
        ("RGA", "unknown gradient 'RGA'; choose from"),
        ("rga:alpha=1", "'rga' has no parameter 'alpha'; it has gamma="),
        ("bptr:gamma=1", "'bptr' has no parameter 'gamma'; it has none"),
        ("assg:x=1", "it has tolerance=, shape=, beta=, r="),
        ("rga:gamma", "'rga' has no parameter 'gamma'"),
        ("rga:gamma=", "gamma= is not a number"),
        ("rga:gamma=big", "gamma=big is not a number"),
        ("rga:gamma=0", "'rga': gamma must lie in"),
        ("hart:gamma=-1", "gamma must be positive and finite, got -1"),
        ("hart:gamma=inf", "gamma must be positive and finite, got inf"),
        ("hart:gamma=nan", "gamma must be positive and finite, got nan"),
        ("rga:gamma=1.5", "'rga': gamma must lie in"),
        ("rga:gamma=0.1,gamma=0.2", "'rga': gamma is given twice"),
        ("assg:tolerance=1", "'assg': tolerance 1.0"),
        ("assg:beta=2", "'assg': .*beta 2.0 must lie in"),
        ("assg:shape=step", "'assg': unknown shape 'step'; choose from arctan, "),
    ],
)
def test_what_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_gradient(text)
