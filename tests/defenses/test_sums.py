"""Defenses add up, or say why they cannot."""

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from attacks.threat import Box
from defenses import ConflictError, Defense, Part, Setting
from defenses.at import at
from defenses.dlif import dlif
from defenses.el import el
from defenses.hosnn import hosnn
from defenses.mc import mc
from defenses.mppd import mppd
from defenses.nlif import nlif
from defenses.rat import rat
from defenses.sr import sr
from defenses.stog import stog
from defenses.tgo import tgo
from defenses.vanilla import vanilla
from models.neurons import NeuronSpec
from models.random import CounterRNG

ALL = {"vanilla": vanilla(), "at": at(), "rat": rat(), "sr": sr(), "mc": mc(), "nlif": nlif(), "tgo": tgo()}
NEURONS = {"stog": stog(), "dlif": dlif(), "el": el(), "hosnn": hosnn()}
SETTING = Setting("wrn16-4", Fraction(2, 255))
ONES = st.sampled_from(list(ALL.values()))


@given(ONES, ONES)
def test_the_order_of_a_sum_changes_nothing_that_is_trained(a: Defense, b: Defense) -> None:
    assert (a + b).identity() == (b + a).identity()


@given(ONES, ONES, ONES)
def test_sums_may_be_bracketed_anyhow(a: Defense, b: Defense, c: Defense) -> None:
    assert ((a + b) + c).identity() == (a + (b + c)).identity()
    assert ((a + b) + c).name == (a + (b + c)).name


@given(ONES)
def test_vanilla_is_zero_and_a_defense_twice_is_once(a: Defense) -> None:
    assert (a + vanilla()).identity() == a.identity()
    assert (vanilla() + a).name == a.name
    assert (a + a).identity() == a.identity()
    assert (a + a).name == a.name


def test_tgo_is_mc_and_nlif() -> None:
    assert tgo().identity() == (mc() + nlif()).identity()
    assert (tgo() + mc()).identity() == tgo().identity()
    assert tgo(0.6, 0.25, "quadratic", 0.16).identity() == (mc(0.6, 0.25, "quadratic") + nlif(0.16)).identity()


def test_rat_contains_at() -> None:
    assert (rat() + at()).identity() == rat().identity()


@pytest.mark.parametrize(
    ("total", "name"),
    [
        (tgo() + at(), "tgo+at"),
        (at() + tgo(), "tgo+at"),
        (rat() + sr(), "sr+rat"),
        (rat() + nlif() + mc(), "nlif+mc+rat"),
        (vanilla() + vanilla(), "vanilla"),
    ],
)
def test_a_sum_is_named_as_the_paper_names_it(total: Defense, name: str) -> None:
    assert total.name == name


def test_one_idea_with_two_settings_is_refused_and_the_difference_named() -> None:
    with pytest.raises(ConflictError, match=r"both contain 'membrane-constraint'.*lam_max = 0\.4 against 0\.6"):
        mc(0.4) + mc(0.6)
    with pytest.raises(ConflictError, match=r"noise_var = 0\.4 against 0\.16"):
        tgo() + nlif(0.16)
    with pytest.raises(ConflictError, match="'at' and 'rat' both contain 'adversarial-inputs'"):
        at(steps=5) + rat()


@dataclass(frozen=True)
class Darker(Part):
    name: ClassVar[str] = "darker"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: CounterRNG) -> Tensor:
        return x / 2


@dataclass(frozen=True)
class Brighter(Darker):
    name: ClassVar[str] = "brighter"


def test_hooks_run_in_one_order_however_a_sum_is_written() -> None:
    a, b = Defense("a", (Darker(),)), Defense("b", (Brighter(),))
    names = [[part.name for part in total.parts] for total in (a + b, b + a, Defense("ab", (Darker(), Brighter())))]
    assert names == [["brighter", "darker"]] * 3


@dataclass(frozen=True)
class OtherNeurons(Part):
    name: ClassVar[str] = "other-neurons"
    slot: ClassVar[str | None] = "neuron"

    def neuron(self, spec: NeuronSpec) -> NeuronSpec:
        return replace(spec, decay=0.9)


def test_two_neuron_types_are_refused_with_the_reason() -> None:
    other = Defense("other", (OtherNeurons(),))
    with pytest.raises(ConflictError, match="'noisy-lif' and 'other-neurons' both decide the neuron"):
        tgo() + other
    assert (mc() + other).neuron(NeuronSpec()).decay == 0.9


@pytest.mark.parametrize("a", NEURONS)
def test_a_network_has_one_kind_of_neuron(a: str) -> None:
    for b in (nlif(), *(defense for name, defense in NEURONS.items() if name != a)):
        with pytest.raises(ConflictError, match="both decide the neuron"):
            NEURONS[a] + b
    for b in (at(), rat(), sr(), mc(), mppd(), mppd() + rat()):
        assert (NEURONS[a] + b).identity() == (b + NEURONS[a]).identity()
        assert (NEURONS[a] + b).neuron(NeuronSpec()).kind == a


def test_open_values_are_settled_by_the_run() -> None:
    total = (tgo() + at()).settled(SETTING)
    values = {part["part"]: part for part in total.identity()}
    assert values["membrane-constraint"]["lam_max"] == 0.4
    assert values["adversarial-inputs"]["eps"] == "2/255"
    assert total.name == "tgo+at"
    assert total.settled(Setting("vgg11", Fraction(1))).identity() == total.identity()
    noise = mppd().settled(replace(SETTING, eps=Fraction(8, 255))).identity()
    assert [part["sigma"] for part in noise] == ["8/255"]
    vgg = {part["part"]: part for part in mc().settled(Setting("vgg11", Fraction(1))).identity()}
    assert vgg["membrane-constraint"]["lam_max"] == 0.6


def test_every_hyper_parameter_and_the_version_are_part_of_the_identity() -> None:
    for defense in (*ALL.values(), *NEURONS.values(), mppd()):
        for part, identity in zip(defense.parts, (part.identity() for part in defense.parts), strict=True):
            assert identity["part"] == part.name
            assert identity["version"] == part.version
            # Where nobody says otherwise inputs reach to 1 and a step is half of eps, which keys have never mentioned.
            assert {field.name for field in fields(part)} - {"high", "alpha"} <= {*identity}
    assert at(alpha=Fraction(1, 255)).identity() != at().identity()
    for alpha, same in ((Fraction(1, 255), True), (Fraction(2, 255), False)):
        named, plain = (defense.settled(SETTING).identity() for defense in (at(alpha=alpha), at()))
        assert (named == plain) == same, "half of eps is the usual step, whether or not somebody says it"
    assert mc(delta=0.25).identity() != mc().identity()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mc(penalty="cubic"), "penalty must be one of linear, quadratic"),
        (lambda: mc(delta=0), "delta must be positive"),
        (lambda: mc(lam_max=-1), "lam_max not negative"),
        (lambda: nlif(-0.1), "noise_var must not be negative"),
        (lambda: sr(h=0), "h must be positive"),
        (lambda: sr(lam=-1), "lam must not be negative"),
        (lambda: rat(beta=0), "beta must be positive"),
        (lambda: stog(gamma=-1), "gamma must not be negative"),
        (lambda: mppd(rho=-1), "rho must not be negative"),
        (lambda: mppd(sigma=Fraction(0)), "sigma must be positive"),
        (lambda: el(leak=float("nan")), "leak must be a finite number"),
        (lambda: hosnn(tau=0), "tau must be positive"),
        (lambda: at(steps=0), "steps must be at least 1"),
        (lambda: at(eps=Fraction(8)).settled(SETTING), r"did you mean 8/255\?"),
        (lambda: at(eps=Fraction(8)).settled(replace(SETTING, box=Box(high=7.0))), r"range of the frames \[0, 7\]"),
    ],
)
def test_impossible_settings_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]
