"""What is searched of a defense, and what is drawn from it."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.registry import DEFENSES, Entry
from bench.resolve import parse_defense
from bench.spec import Recipe
from bench.tuning.result import Past
from bench.tuning.sampler import BATCH, STARTUP, batch_of, suggested
from bench.tuning.space import Space, space_for
from defenses.base import Defense, Setting
from defenses.search import Choice, Range, searched
from defenses.vanilla import vanilla

pytest.importorskip("optuna")

RECIPE = Recipe(epochs=1, batch_size=16)
DIGITS = Setting("cnn-small", Fraction(1, 10))


def space(defense: str, **fixed: float) -> Space:
    return space_for(defense, DIGITS, RECIPE, fixed)


def names(defense: str, **fixed: float) -> list[str]:
    return list(space(defense, **fixed).as_json())


def test_every_defense_gets_the_recipe_and_what_it_declares() -> None:
    assert names("vanilla") == ["lr", "weight_decay"]
    assert names("tgo+at") == ["tgo.lam_max", "tgo.delta", "tgo.noise_var", "at.eps", "lr", "weight_decay"]
    # Retraction decides the weight decay itself, so that searching it would spend trials on nothing.
    assert names("rat") == ["rat.beta", "rat.eps", "lr"]


def test_what_the_user_wrote_stays() -> None:
    assert names("mc:delta=0.5+nlif", lr=0.1) == ["mc.lam_max", "nlif.noise_var", "weight_decay"]
    with pytest.raises(BenchError, match="nothing is left to search of 'at:eps=1/10'"):
        space("at:eps=1/10", lr=0.1, weight_decay=0.0)


def test_a_default_outside_of_the_range_widens_it() -> None:
    (eps,) = (d for d in space("at").dimensions if d.name == "at.eps")
    assert isinstance(eps.range, Choice) and eps.range.values[-1] == eps.default == "1/10"
    settled = space_for("at", Setting("cnn-small", Fraction(2, 255)), RECIPE, {}).dimensions[0]
    assert isinstance(settled.range, Choice) and len(settled.range.values) == 4 and settled.default == "2/255"
    (decay,) = (d for d in space_for("vanilla", DIGITS, Recipe(1, 16, weight_decay=0.5), {}).dimensions[1:])
    assert isinstance(decay.range, Range) and decay.range.high == 0.5


@pytest.mark.parametrize("name", [n for n in DEFENSES.names() if DEFENSES.entry(n).builtin])
def test_what_is_declared_can_be_built_at_its_ends_and_its_default_is_known(name: str) -> None:
    found = space(name)
    for dimension in found.dimensions:
        assert dimension.default is not None, f"{dimension.name}: no part has a field of that name"
        ends = (
            dimension.range.values
            if isinstance(dimension.range, Choice)
            else (dimension.range.low, dimension.range.high)
        )
        for end in ends:
            values = {dimension.name: dimension.written(end)}
            parse_defense(found.defense_at(values)).settled(DIGITS)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["vanilla", "tgo+at", "rat", "mc:delta=0.5+nlif"]), st.integers(1, 30), st.data())
def test_what_is_drawn_lies_in_the_space_and_can_be_typed(defense: str, number: int, data: st.DataObject) -> None:
    found = space(defense)
    past: list[Past] = []
    for before in range(min(batch_of(number).start, 10)):
        value = data.draw(st.one_of(st.none(), st.floats(0, 1)))
        past.append(Past(suggested(found, "key", before, []), value))
    values = suggested(found, "key", number, past)
    assert values == suggested(found, "key", number, past)
    assert list(values) == list(found.as_json())
    assert values != suggested(found, "another key", number, past)
    for dimension in found.dimensions:
        text = values[dimension.name]
        if isinstance(dimension.range, Choice):
            assert text in dimension.range.values
        else:
            assert dimension.range.low * 0.999 <= float(text) <= dimension.range.high * 1.001
    typed = found.defense_at(values)
    parts = {name: value for part in parse_defense(typed).settled(DIGITS).identity() for name, value in part.items()}
    for dimension in found.dimensions:
        if dimension.term:
            assert Fraction(str(parts[dimension.parameter])) == Fraction(values[dimension.name])


def test_a_search_goes_where_it_was_good() -> None:
    """On a smooth objective what is drawn from forty trials is better than what is drawn at random."""
    found = space("vanilla")

    def objective(values: dict[str, str]) -> float:
        return -abs(float(values["lr"]) - 0.3) if values else -0.2

    past: list[Past] = []
    for start in range(40):
        if start == batch_of(start).start:
            known = list(past)
        past.append(Past(v := suggested(found, "key", start, known), 1 + objective(v)))
    late = sum(objective(dict(p.values)) for p in past[28:]) / 12
    early = sum(objective(dict(p.values)) for p in past[1:STARTUP]) / (STARTUP - 1)
    assert late > early + 0.05


def test_batches_divide_the_trials_whatever_the_budget() -> None:
    firsts = [batch_of(number).start for number in range(40)]
    assert all(number in batch_of(number) for number in range(40))
    assert sorted(set(firsts)) == [0, *range(STARTUP, 40, BATCH)]


def test_whole_numbers_stay_whole_and_a_default_that_nobody_knows_is_not_made_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @searched(steps=Range(1, 9), strength=Range(0, 1))
    def made(steps: int = 3, strength: float | None = None) -> Defense:
        assert 1 <= steps <= 9
        return Defense("made", vanilla().parts)

    monkeypatch.setitem(DEFENSES._entries, "made", Entry("made", made, False))
    found = space("made")
    steps, strength = found.dimensions[:2]
    assert (steps.whole, steps.default, strength.whole, strength.default) == (True, "3", False, None)
    values = suggested(found, "key", 5, [Past({}, 0.5)])
    assert values["made.steps"] == str(int(values["made.steps"]))
    assert parse_defense(found.defense_at(values)).name.startswith("made:steps=")


def test_a_declaration_that_the_builder_does_not_take_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    @searched(nothing=Range(0, 1))
    def made() -> Defense:
        return Defense("made")

    monkeypatch.setitem(DEFENSES._entries, "made", Entry("made", made, False))
    with pytest.raises(BenchError, match="declares a range for 'nothing'"):
        space("made")
