"""Each known fault is caught by the check meant for it, and sound networks pass every check."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bench.audit.calibrate import false_alarms, tried
from bench.audit.checks import CHECKS
from bench.audit.fixtures import BASES, FIXTURES, Fixture, audit_spec, trained_base
from bench.audit.lab import Lab
from bench.audit.network import audit_network
from bench.data import load_dataset
from bench.data.dataset import Dataset

SEED, N = 0, 96
BROKEN = [fixture for fixture in FIXTURES if fixture.caught_by]
SOUND = [fixture for fixture in FIXTURES if not fixture.caught_by]
# The full audit of a noisy network takes longer than the rest of this file together.
QUICK = ("eot", "unbounded", "fresh noise", "undeclared noise", "state", "direction", "blind gradient", "noise", "ties")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("digits", tmp_path_factory.mktemp("none"))


@pytest.fixture(scope="session")
def network(digits: Dataset) -> Callable[[Fixture], nn.Module]:
    bases: dict[str, nn.Module] = {}

    def built(fixture: Fixture) -> nn.Module:
        if fixture.base not in bases:
            bases[fixture.base] = trained_base(digits, fixture.base, SEED)
        return fixture.build(copy.deepcopy(bases[fixture.base]))

    return built


def lab_of(model: nn.Module, digits: Dataset, base: str) -> Lab:
    return Lab(model, digits, audit_spec(digits, base, SEED, N), torch.device("cpu"))


@pytest.mark.parametrize(
    ("fixture", "check"), [pytest.param(f, check, id=f"{f.name}: {check}") for f in BROKEN for check in f.caught_by]
)
def test_a_known_fault_is_caught(
    network: Callable[[Fixture], nn.Module], digits: Dataset, fixture: Fixture, check: str
) -> None:
    lab = lab_of(network(fixture), digits, fixture.base)
    if check == "nan":
        lab.outcome("clean")
    finding = CHECKS[check](lab)
    assert finding.check == check
    assert finding.verdict in ("suspect", "invalid"), finding
    assert finding.value is not None and finding.limit is not None
    assert finding.value > finding.limit


@pytest.mark.parametrize("fixture", [f for f in SOUND if f.base in ("vanilla", "at")], ids=lambda f: f.name)
def test_a_sound_network_passes_every_check_and_is_left_as_it_was(
    network: Callable[[Fixture], nn.Module], digits: Dataset, fixture: Fixture
) -> None:
    model = network(fixture).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    spec = audit_spec(digits, fixture.base, SEED, N)
    heard: list[str] = []
    audit = audit_network(model, digits, spec, torch.device("cpu"), heard.append)
    assert audit.verdict == "ok", [finding for finding in audit.findings if finding.verdict != "ok"]
    assert heard == list(CHECKS) == [finding.check for finding in audit.findings]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("fixture", [f for f in SOUND if f.base in ("nlif", "poisson")], ids=lambda f: f.name)
def test_a_sound_noisy_network_passes(
    network: Callable[[Fixture], nn.Module], digits: Dataset, fixture: Fixture
) -> None:
    lab = lab_of(network(fixture), digits, fixture.base)
    assert lab.stochastic
    findings = [CHECKS[name](lab) for name in QUICK]
    assert [finding for finding in findings if finding.verdict != "ok"] == []


def test_a_network_without_a_gradient_is_audited_to_the_end(
    network: Callable[[Fixture], nn.Module], digits: Dataset
) -> None:
    (fixture,) = (f for f in FIXTURES if f.name == "no graph")
    audit = audit_network(network(fixture), digits, audit_spec(digits, "vanilla", SEED, 32), torch.device("cpu"))
    assert audit.verdict == "invalid"
    assert len(audit.findings) == len(CHECKS)
    unchecked = [finding for finding in audit.findings if "could not be checked" in finding.says]
    assert {finding.verdict for finding in unchecked} == {"suspect"}


def test_every_fixture_names_a_base_and_checks_that_exist() -> None:
    assert {fixture.base for fixture in FIXTURES} <= set(BASES)
    assert {check for fixture in FIXTURES for check in fixture.caught_by} <= set(CHECKS)
    assert len({fixture.name for fixture in FIXTURES}) == len(FIXTURES)


def test_a_calibration_counts_what_was_caught(network: Callable[[Fixture], nn.Module], digits: Dataset) -> None:
    (softmax,) = (f for f in FIXTURES if f.name == "softmax output")
    (sound,) = (f for f in FIXTURES if f.base == "vanilla" and not f.caught_by)
    spec = audit_spec(digits, "vanilla", SEED, 32)
    audits = [audit_network(network(f), digits, spec, torch.device("cpu")) for f in (softmax, sound)]
    caught, missed = tried(softmax, audits[:1]), tried(softmax, audits[1:])
    assert (caught.meant.hits, missed.meant.hits) == (1, 0)
    assert caught.alarms["probabilities"] == 1
    wrong = tried(sound, audits)
    assert (wrong.meant.hits, wrong.meant.n) == (1, 2)
    rate = false_alarms([caught, wrong])
    assert (rate.hits, rate.n) == (sum(wrong.alarms.values()), 2 * len(CHECKS))
