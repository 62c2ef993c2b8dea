"""From what a user types to values, and what is said when that fails."""

import re
from fractions import Fraction
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.names import split_list, without_eot
from bench.plan import Request, make_plan
from bench.presets import PRESETS
from bench.resolve import attack_arguments, parse_attack, parse_defense, threat_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("retime3", r"are forbidden \(shifted\); give max_shift=5000 or so"),
        ("retime3:max_shift=100,shifted=0", "leave out shifted=0"),
        ("retime3:max_shift=100,width=0", "width must be at least 1, got 0"),
        ("frame:polarity=foo", "polarity must be on, off, both, got 'foo'"),
        ("corner:sizes=0", "sizes must be at least 1, got 0"),
        ("dash:sizes=0", "sizes must be at least 1, got 0"),
        ("mf-dash:mask=0", "mask must be at least 1, got 0"),
        ("mf-dash:polarity=foo", "polarity must be on, off, both"),
        ("yao3:draws=0", "draws must be at least 1"),
        ("yao3:kappa=-1", "kappa at least 0"),
        ("sparse3:lr=0", "lr must be more than 0"),
        ("sparse3:lam=2", r"lam in \[0, 1\)"),
        ("greedy3:width=0", "width must be at least 1, got 0"),
        ("spikefool3:lam=0", "lam must be at least 1, got 0"),
        ("random-edits:tries=0", "tries must be at least 1, got 0"),
        ("frame:added=0", r"are forbidden \(added\); leave out added=0"),
        ("frame:on=0", "on=0 forbids all its events"),
        ("random-edits:added=0,removed=0", "leave out removed=0 or leave out added=0 or give max_shift"),
        ("sda3:added=0,removed=0", "are forbidden"),
        ("spikefool3:added=0,removed=0", "are forbidden"),
        ("sparse3:added=0,removed=0,max_shift=9", "are forbidden"),
        ("yao3:added=0,removed=0,max_shift=9", "are forbidden"),
        ("greedy3:on=0,off=0", "on=0 and off=0 forbid every edit"),
    ],
)
def test_what_no_attack_on_events_can_do_is_refused_by_its_name(text: str, words: str) -> None:
    with pytest.raises(BenchError, match=words) as caught:
        parse_attack(text, "0.1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["random-edits:added=0", "greedy3:added=0,removed=0,max_shift=9", "frame:polarity=both,on=0", "yao3:on=0"]
)
def test_rules_that_leave_something_to_do_are_kept(text: str) -> None:
    assert parse_attack(text, "0.1").name == text


def test_paper_step_size_is_the_default_at_the_paper_budget() -> None:
    spec = parse_attack("pgd40", "8/255")
    assert dict(spec.params)["alpha"] == Fraction(1, 100)
    assert attack_arguments(spec) == {"alpha": 0.01, "loss": "ce", "random_start": True}
    assert threat_of(spec).eps == Fraction(8, 255)


def test_step_size_scales_with_the_budget() -> None:
    assert dict(parse_attack("pgd7", "4/255").params)["alpha"] == Fraction(1, 200)


@pytest.mark.parametrize(
    ("text", "overrides", "params", "restarts", "name"),
    [
        ("pgd10:alpha=1/255", {}, {"alpha": Fraction(1, 255)}, 1, "pgd10:alpha=1/255"),
        ("pgd10", {"alpha": "0.02"}, {"alpha": Fraction(1, 50)}, 1, "pgd10:alpha=0.02"),
        ("pgd10:random_start=false", {}, {"random_start": False}, 1, "pgd10:random_start=false"),
        ("pgd10:restarts=5", {"restarts": "2"}, {}, 5, "pgd10:restarts=5"),
        ("pgd10", {"restarts": "1"}, {}, 1, "pgd10"),
        ("fgsm", {"alpha": "0.5", "restarts": "3"}, {}, 1, "fgsm"),
    ],
)
def test_parameters_come_from_the_name_first_then_from_the_options(
    text: str, overrides: dict[str, str], params: dict[str, object], restarts: int, name: str
) -> None:
    spec = parse_attack(text, "8/255", overrides=overrides)
    assert params.items() <= dict(spec.params).items()
    assert (spec.restarts, spec.name) == (restarts, name)


def test_attacker_surrogate_is_in_the_name_and_the_threat() -> None:
    spec = parse_attack("pgd10", "8/255", surrogate="arctan:alpha=4")
    assert spec.name == "pgd10@arctan:alpha=4.0"
    assert threat_of(spec).surrogate == "arctan:alpha=4.0"


@pytest.mark.parametrize(
    ("text", "option", "name", "written"),
    [
        ("pgd10@rga", None, "pgd10@rga", "rga:gamma=0.2"),
        ("pgd10 @ bptr", "arctan", "pgd10@bptr", "bptr"),
        ("pgd10:alpha=0.02@arctan:alpha=4", None, "pgd10:alpha=0.02@arctan:alpha=4.0", "arctan:alpha=4.0"),
        (
            "fgsm@assg:shape=sigmoid",
            None,
            "fgsm@assg:shape=sigmoid",
            "assg:tolerance=0.85,shape=sigmoid,beta=0.9,r=1.5",
        ),
        ("fgsm", "hart:gamma=0.5", "fgsm@hart:gamma=0.5", "hart:gamma=0.5"),
    ],
)
def test_the_gradient_stands_after_an_at_sign(text: str, option: str | None, name: str, written: str) -> None:
    spec = parse_attack(text, "8/255", surrogate=option)
    assert spec.surrogate == written
    assert spec.name == name
    assert parse_attack(spec.name, "8/255") == spec


def test_draws_of_a_mean_gradient_are_identity_but_not_a_parameter() -> None:
    plain, mean = parse_attack("pgd10", "8/255"), parse_attack("pgd10", "8/255", overrides={"eot": "20"})
    assert (plain.eot, mean.eot, mean.name) == (1, 20, "pgd10:eot=20")
    assert mean.params == plain.params
    assert parse_attack("pgd10:eot=20", "8/255", overrides={"eot": "3"}) == mean
    assert parse_attack("clean", "8/255", overrides={"eot": "3"}).eot == 1


@pytest.mark.parametrize(
    "text",
    [
        "pgd40:loss=margin,restarts=3@arctan:alpha=4",
        "sapgd9:loss=dlr@assg:beta=0.8,shape=sigmoid",
        "pgd7:alpha=0.01",
    ],
)
def test_a_name_survives_a_list_and_parses_back(text: str) -> None:
    assert split_list([f"fgsm,{text},pgd7"]) == ["fgsm", text, "pgd7"]
    spec = parse_attack(text, "8/255")
    assert parse_attack(spec.name, "8/255") == spec


def test_one_attack_has_one_name_however_it_is_typed() -> None:
    overrides = {"restarts": "2", "eot": "3", "alpha": "1/50"}
    names = {
        parse_attack("pgd5", "8/255", overrides=overrides).name,
        parse_attack("pgd5:restarts=2,eot=3,alpha=0.02", "8/255").name,
        parse_attack("pgd5:alpha=2/100,eot=3", "8/255", overrides={"restarts": "2"}).name,
    }
    assert names == {"pgd5:alpha=0.02,eot=3,restarts=2"}


def test_a_gradient_is_dropped_where_none_is_taken_and_refused_where_members_bring_their_own() -> None:
    for name in ("clean", "square100", "sweep5", "snn-standard"):
        assert parse_attack(name, "8/255", surrogate="rga") == parse_attack(name, "8/255")
    with pytest.raises(BenchError, match="brings its own gradients; leave out @rga"):
        parse_attack("sweep5@rga", "8/255")


def test_a_mean_over_draws_is_dropped_from_a_name_wherever_it_stands() -> None:
    names = ["pgd5:eot=3", "pgd5:eot=3,loss=dlr@rga", "pgd5:loss=dlr,eot=3", "art:DeepFool:eot=3", "pgd5"]
    plain = ["pgd5", "pgd5:loss=dlr@rga", "pgd5:loss=dlr", "art:DeepFool", "pgd5"]
    assert [without_eot(name) for name in names] == plain


@pytest.mark.parametrize("preset_name", PRESETS)
def test_every_preset_can_be_resolved(preset_name: str) -> None:
    for chosen in PRESETS[preset_name]:
        assert [parse_attack(name, eps) for name in chosen["attacks"] for eps in chosen.get("eps", ("8/255",))]
        assert [parse_defense(name) for name in chosen["defenses"]]


@pytest.mark.parametrize(
    ("text", "eps", "message"),
    [
        ("pgd7@", "8/255", "name a gradient after the @"),
        ("pgd7@rgaa", "8/255", "did you mean 'rga'"),
        ("pgd7@rga:gama=1", "8/255", "has no parameter 'gama'"),
        ("pgd7@assg:tolerance=2", "8/255", "must lie in"),
        ("pgd7:eot=0", "8/255", "eot must be at least 1"),
        ("apgd7:loss=dlrr", "8/255", "unknown loss 'dlrr'"),
        ("pdg40", "8/255", "did you mean 'pgd'"),
        ("pgd", "8/255", "needs a step count, for example pgd10"),
        ("pgd0", "8/255", "at least 1"),
        ("pgd-5", "8/255", "at least 1, got -5"),
        ("fgsm7", "8/255", "takes no step count"),
        ("pgd7", "8", "did you mean 8/255"),
        ("pgd7", "-1/255", "must not be negative"),
        ("pgd7", "eight", "is not a number"),
        ("pgd7:alfa=1", "8/255", "did you mean 'alpha'"),
        ("pgd7:alpha=big", "8/255", "alpha=big is not a number"),
        ("pgd7:alpha=-1", "8/255", "alpha must not be negative"),
        ("pgd7:alpha=1e400", "8/255", "alpha is too large"),
        ("pgd7:random_start=maybe", "8/255", "is not true or false"),
        ("pgd7:restarts=0", "8/255", "restarts must be at least 1"),
        ("pgd7:loss=mse", "8/255", "choose from ce, margin"),
        ("pgd7:alpha", "8/255", "has no '='"),
        ("pgd7:alpha=0.01,alpha=0.02", "8/255", "alpha is given twice"),
        ("random-edits:min_gap=0, min_gap=9", "0.1", "min_gap is given twice"),
    ],
)
def test_a_bad_attack_is_refused_with_the_mend(text: str, eps: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        parse_attack(text, eps)


def test_defense_hyper_parameters_are_read_by_type() -> None:
    defense = parse_defense("mc:lam_max=0.6,delta=1/4+at:eps=4/255,steps=5")
    parts = {part.name: part for part in defense.parts}
    assert parts["membrane-constraint"].identity()["delta"] == 0.25
    assert parts["adversarial-inputs"].identity()["eps"] == "4/255"
    assert parts["adversarial-inputs"].identity()["steps"] == 5
    assert defense.name == "mc:lam_max=0.6,delta=1/4+at:eps=4/255,steps=5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tgoo", "did you mean 'tgo'"),
        ("tgo:lam=1", "did you mean 'lam_max'"),
        ("tgo:lam_max=much", "is not a number"),
        ("at:steps=0", "steps must be at least 1"),
        ("at:eps=-1", "must not be negative"),
        ("nlif:noise_var=1e400", "is not a number"),
        ("mc:penalty=cubic", "linear, quadratic"),
        ("nlif+nlif:noise_var=0.1", "noise_var = 0.4 against 0.1"),
    ],
)
def test_a_bad_defense_is_refused_with_the_mend(text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        parse_defense(text)


def test_commas_separate_items_but_not_the_parameters_of_one() -> None:
    given = ["tgo:lam_max=0.6,delta=0.25,at", "vanilla", "at"]
    assert split_list(given) == ["tgo:lam_max=0.6,delta=0.25", "at", "vanilla"]


@pytest.mark.parametrize(
    ("params", "attacks", "complaint"),
    [
        ({"alpha": "0.5"}, ("fgsm", "clean"), "--alpha 0.5 has no effect on fgsm, clean"),
        ({"restarts": "3"}, ("fgsm",), "--restarts 3 has no effect on fgsm"),
        ({"random_start": "false"}, ("square10",), "--no-random-start has no effect on square10"),
        ({"eot": "3"}, ("clean",), "--eot 3 has no effect on clean"),
    ],
)
def test_an_option_that_no_attack_takes_is_a_mistake(
    params: dict[str, str], attacks: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=re.escape(complaint)):
        make_plan(Request(attacks=attacks, params=params), tmp_path, tmp_path)


def test_an_option_that_one_attack_of_several_takes_is_none(tmp_path: Path) -> None:
    request = Request(attacks=("fgsm", "pgd7@rga", "art:DeepFool"), params={"alpha": "0.5", "eot": "2"})
    alphas = [dict(cell.attack.params).get("alpha") for cell in make_plan(request, tmp_path, tmp_path).cells]
    assert alphas.count(None) == 2
