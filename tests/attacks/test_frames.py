"""Every attack on frames of event counts: nothing is clipped to [0, 1], and whole counts stay whole."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attacks import Threat
from attacks.base import Candidate
from attacks.combinators import restarted, run_attack
from attacks.grid import OnGrid, counts_of, of_counts, to_counts
from attacks.losses import margin
from attacks.projections import ball
from attacks.threat import Box
from bench.errors import BenchError
from bench.evaluation import feasible
from bench.registry import ATTACKS
from bench.resolve import attack_arguments, parse_attack, parse_gradient, threat_of
from models.cnn import SpikingCNN
from models.neurons import NeuronSpec
from models.random import CounterRNG, noise_stream

LARGEST = 9
SCALES = pytest.mark.parametrize("scale", [1, LARGEST])
RNG = Callable[..., CounterRNG]
LINF = (
    "clean", "fgsm", "rfgsm", "pgd4", "pgd4:random_start=false,early_stop=true", "pgd4:restarts=2,loss=margin",
    "apgd5", "apgd5@assg", "mtpgd2", "sapgd4", "square9", "sweep2", "snn-standard", "autoattack-rand",
    "art:FastGradientMethod", "art:ProjectedGradientDescent:max_iter=4", "art:DeepFool:max_iter=3",
)  # fmt: skip
L2 = ("fgsm", "pgd4", "apgd5", "mtpgd2", "art:FastGradientMethod")
FAST = ("fgsm", "rfgsm", "pgd4", "apgd5", "apgd5@assg", "mtpgd2", "sapgd4", "square9")


def network(scale: int, neuron: NeuronSpec | None = None) -> SpikingCNN:
    """A spiking network on frames [N, 3, 2, 8, 8] of counts up to 9, which fires."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = LARGEST / 2 / scale
        model = SpikingCNN(
            4, 2, (8, 8), (1, 2), (neuron or NeuronSpec()).build, T=3, mean=(middle,) * 2, std=(middle,) * 2
        )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 4.0)
    return model.eval()


def recordings(
    n: int, scale: int, shape: tuple[int, ...] = (3, 2, 8, 8), seed: int = 1, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Frames as networks see them. Empty pixels are common, and so are counts above 1."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(-3, LARGEST + 1, (n, *shape), generator=generator).clamp_(min=0)
    counts[0].view(-1)[0] = LARGEST
    return of_counts(counts, scale, dtype)


def box(scale: int) -> Box:
    return Box(0.0, float(of_counts(torch.tensor([LARGEST]), scale, torch.float32)), scale)


def labels(n: int) -> Tensor:
    return torch.arange(n) % 4


def run(text: str, model: nn.Module, x: Tensor, eps: str, norm: str, scale: int, samples: Tensor) -> Candidate:
    """As the harness runs it."""
    spec = parse_attack(text, eps, norm, box=box(scale))
    attack = ATTACKS.get(spec.family)
    steps = {"steps": (spec.steps,)} if attack.takes_steps else {}
    gradient = parse_gradient(spec.surrogate) if spec.surrogate else None
    path = restarted(
        attack, spec.restarts, model, x.clone(), samples % 4, threat_of(spec), rng=CounterRNG(7, samples),
        gradient=gradient, eot=spec.eot, **steps, **attack_arguments(spec),
    )  # fmt: skip
    return path[spec.steps]


def test_every_attack_is_tested_here() -> None:
    families = {parse_attack(name, "0.1").family for name in LINF}
    ours = {name for name in ATTACKS.names() if ATTACKS.entry(name).builtin and ATTACKS.get(name).domain == "frames"}
    assert families | {name for name in ours if ATTACKS.get(name).images_only} == ours


@SCALES
@pytest.mark.parametrize(
    ("name", "norm"),
    [*((name, norm) for name in LINF for norm in ("linf", "linf-int")), *((name, "l2") for name in L2)],
)
def test_without_a_budget_counts_above_one_stay_what_they_are(name: str, norm: str, scale: int) -> None:
    x, model = recordings(4, scale), network(scale)
    found = run(name, model, x, "0", norm, scale, torch.arange(4))
    assert torch.equal(found.last, x) and torch.equal(found.best, x)
    assert bool(feasible(x, found.last, threat_of(parse_attack(name, "0", norm, box=box(scale)))).all())


@SCALES
@pytest.mark.parametrize("name", LINF)
def test_candidates_obey_the_ball_and_the_frames_box(name: str, scale: int) -> None:
    x, model, eps = recordings(4, scale), network(scale), "2" if scale == 1 else "2/9"
    for norm in ("linf", "linf-int"):
        threat = threat_of(parse_attack(name, eps, norm, box=box(scale)))
        found = run(name, model, x, eps, norm, scale, torch.arange(4))
        for candidate in found:
            assert bool(feasible(x, candidate, threat).all())
            counts = candidate.double() * scale
            assert norm == "linf" or torch.allclose(counts, counts.round(), rtol=0, atol=1e-6)
        # Busy pixels are left alone by more than the budget only where an attack clips to [0, 1].
        assert float(found.last[0].view(-1)[0]) >= (LARGEST - 2) / scale - 1e-6


@given(
    st.sampled_from(FAST),
    st.sampled_from(["linf", "linf-int", "l2"]),
    st.sampled_from([1, 2, 7, 9, 255]),
    st.fractions(0, 4),
    st.integers(0, 99),
)
@settings(max_examples=60)
def test_any_budget_in_any_unit(name: str, norm: str, scale: int, counts: Fraction, seed: int) -> None:
    norm = "linf" if norm == "l2" and name not in L2 else norm
    eps = counts / scale
    if norm == "linf-int" and 0 < counts < 1:
        with pytest.raises(BenchError, match="less than one count"):
            parse_attack(name, str(eps), norm, box=box(scale))
        return
    x = recordings(3, scale, seed=seed)
    found = run(name, network(scale), x, str(eps), norm, scale, torch.arange(3))
    threat = threat_of(parse_attack(name, str(eps), norm, box=box(scale)))
    assert bool(feasible(x, found.last, threat).all() & feasible(x, found.best, threat).all())


@pytest.mark.parametrize("norm", ["linf", "linf-int"])
@pytest.mark.parametrize("name", FAST)
def test_a_recording_s_adversarial_depends_on_it_alone(name: str, norm: str) -> None:
    x, model, everyone = recordings(8, 9, dtype=torch.float64), network(9).double(), torch.arange(8)
    whole = run(name, model, x, "2/9", norm, 9, everyone).last
    for part in (everyone.flip(0), everyone[[5, 2]]):
        again = run(name, model, x[part], "2/9", norm, 9, part).last
        assert torch.allclose(again, whole[part], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "linf-int"])
@pytest.mark.parametrize("name", LINF)
def test_nothing_is_left_behind(name: str, norm: str) -> None:
    x, model = recordings(3, 9), network(9).train()
    before, generator = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    kept = x.clone()
    run(name, model, x, "2/9", norm, 9, torch.arange(3))
    assert torch.equal(x, kept) and torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_noisy_network_gives_each_recording_its_own_noise() -> None:
    noisy, x = NeuronSpec("nlif", params=(("noise_var", 0.4),)), recordings(6, 9)
    model = network(9, noisy)
    results = []
    for samples in (torch.arange(6), torch.tensor([4, 1])):
        with noise_stream(model, 3, samples):
            results.append(run("pgd3:eot=2", model, x[samples], "2/9", "linf-int", 9, samples).last)
    assert torch.equal(results[0][[4, 1]], results[1])


class Linear(nn.Module):
    """logits = W x on flattened inputs."""

    def __init__(self, dimension: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(2, dimension, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.flatten(1), self.weight)


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([1, 7, 9]),
    st.fractions(1, 4),
    st.integers(0, 999),
)
@settings(max_examples=40)
def test_on_a_linear_model_the_closed_form_optimum_is_reached(
    shape: tuple[int, ...], scale: int, counts: Fraction, seed: int
) -> None:
    x, y = recordings(4, scale, shape, seed, torch.float64), torch.arange(4) % 2
    model = Linear(x[0].numel(), seed)
    slope = (model.weight[1 - y] - model.weight[y]).detach().view_as(x)
    high = of_counts(torch.tensor([LARGEST]), scale, torch.float64)
    for grid in (0, scale):
        threat = Threat(counts / scale, high=float(high), grid=grid)
        reach = int(counts) / scale if grid else float(counts) / scale
        optimum = (x + reach * slope.sign()).clamp(0, float(high))
        # Cross-entropy is exactly flat where a margin of counts is large.
        walks = (("pgd", (12,), {"alpha": reach / 4}), ("apgd", (40,), {}))
        for attack, steps, params in (("fgsm", (), {}), *walks):
            params = {"loss": "margin", **params}
            path = run_attack(
                ATTACKS.get(attack), model, x, y, threat, rng=CounterRNG(seed, torch.arange(4)), steps=steps, **params
            )
            (found,) = path.values()
            assert torch.allclose(found.last, optimum, rtol=0, atol=1e-12), (attack, grid)
            assert bool(feasible(x, found.last, threat).all())


def test_a_square_lies_at_one_place_in_all_frames(rng: RNG) -> None:
    x, asked = recordings(5, 1) / 2 + 1, list[Tensor]()

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(x.clone())
            # Only the first entry counts, and it never breaks anything.
            return torch.stack([x[:, 0, 0, 0, 0] * 0 + 5, -x.flatten(1).sum(1)], 1)

    threat = Threat(Fraction(1, 2), high=float(x.max()) + 1)
    square = ATTACKS.get("square")
    run_attack(square, Watched(), x, torch.zeros(5, dtype=torch.long), threat, rng=rng(5), steps=(30,))
    stripes = asked[0] - x
    assert torch.allclose(stripes.abs(), torch.full_like(stripes, 0.5), atol=1e-6)
    assert torch.equal(stripes, stripes[..., :1, :].expand_as(stripes).contiguous()) or torch.allclose(
        stripes, stripes[..., :1, :].expand_as(stripes), atol=1e-6
    )
    best, places = asked[0], set()
    for query in asked[1:]:
        for before, after in zip(best, query, strict=True):
            changed = (before != after).any(0).any(0)
            rows, columns = torch.nonzero(changed, as_tuple=True)
            if len(rows):
                places.add((int(rows.min()), int(columns.min())))
                inside = after[..., rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                assert inside.shape[:2] == (3, 2)
        better = query.flatten(1).sum(1) < best.flatten(1).sum(1)
        best = torch.where(better.view(-1, 1, 1, 1, 1), query, best)
    assert len(places) > 5


SHAPE = (2, 1, 2, 2)
MOVES = torch.tensor(list(itertools.product((-1, 0, 1), repeat=8))).view(-1, *SHAPE)


def small(seed: int) -> nn.Module:
    """A spiking network on frames [N, 2, 1, 2, 2]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SpikingCNN(3, 1, (6, 6), (1, 1), NeuronSpec().build, T=2, mean=(2.0,), std=(2.0,))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 3.0)
    return model.eval()


def highest_margin(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """The largest margin over every frame of whole counts within one count of x, [N]."""
    found = []
    for frame, label in zip(x, y, strict=True):
        every = frame + MOVES
        every = every[(every >= 0).flatten(1).all(1) & (every <= threat.high).flatten(1).all(1)]
        assert bool(feasible(frame.expand_as(every), every, threat).all())
        with torch.no_grad():
            found.append(margin(model(every), label.expand(len(every))).max())
    return torch.stack(found)


SEARCHES: tuple[tuple[str, int, dict[str, object]], ...] = (
    ("pgd", 20, {"alpha": 0.3}), ("mtpgd", 10, {"alpha": 0.3}), ("apgd", 50, {"loss": "margin"}), ("square", 200, {}),
)  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exhaustive_search_bounds_what_whole_counts_can_do(seed: int) -> None:
    model, x, y = small(seed), recordings(12, 1, SHAPE, seed), torch.arange(12) % 3
    threat = Threat(Fraction(1), high=float(LARGEST), grid=1)
    highest, clean = highest_margin(model, x, y, threat), margin(model(x), y).detach()
    gains: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, steps, params in SEARCHES:
        attack, rng = ATTACKS.get(name), CounterRNG(seed, torch.arange(12))
        seen = run_attack(attack, model, x, y, threat, rng=rng, steps=(steps,), **params)[steps].best
        blind = to_counts(x, attack.run(model, x, y, threat, rng=rng, steps=steps, **params)[steps].best, 1)
        for here, best in ((True, seen), (False, blind)):
            assert bool(feasible(x, best, threat).all())
            reached = margin(model(best), y).detach()
            assert bool((reached <= highest + 1e-5).all())
            gains[here].append(((reached - clean) / (highest - clean).clamp(min=1e-6))[highest > clean + 1e-3])
    # Together they go most of the way to the worst of 6,561 frames.
    assert float(torch.stack(gains[True]).amax(0).mean()) > 0.6
    # And further than the same attacks that do not know that they will be rounded.
    assert float(torch.stack(gains[True]).mean()) > float(torch.stack(gains[False]).mean()) + 0.1


def test_the_attack_sees_the_network_where_it_is_scored(rng: RNG) -> None:
    model, x, y = network(1), recordings(4, 1), labels(4)
    seen, asked = list[Tensor](), model.forward
    model.forward = lambda x: (seen.append(x.detach().clone()), asked(x))[1]  # type: ignore[method-assign,assignment]
    threat = Threat(Fraction(2), high=float(LARGEST), grid=1)
    found = run_attack(ATTACKS.get("pgd"), model, x, y, threat, rng=rng(4), steps=(3,), alpha=0.4)[3]
    assert len(seen) == 3
    assert all(torch.equal(values, values.round()) for values in seen)
    assert any(torch.equal(found.best, values) for values in seen) or bool((found.best == found.best.round()).all())


def test_the_gradient_passes_the_rounding() -> None:
    model, x = Linear(8, 0), torch.full((1, 8), 1.3, dtype=torch.float64, requires_grad=True)
    logits = OnGrid(model, 2)(x)
    assert torch.equal(logits, model(torch.full((1, 8), 1.5, dtype=torch.float64)))
    (grad,) = torch.autograd.grad(logits[0, 0], x)
    assert torch.equal(grad[0], model.weight[0])


@given(st.integers(1, 1000), st.integers(0, 2000), st.integers(0, 2000))
def test_rounding_finds_a_count_again_in_any_scale(scale: int, count: int, other: int) -> None:
    x, clean = (of_counts(torch.tensor([[value]]), scale, torch.float32) for value in (count, other))
    assert int(counts_of(x, scale)) == count
    assert torch.equal(to_counts(clean, x, scale), x)
    off = x.nextafter(torch.tensor([[torch.inf]]))
    assert torch.equal(to_counts(clean, off, scale), x)


@pytest.mark.parametrize("scale", [1, 7, 9])
def test_the_checker_takes_whole_counts_within_reach_and_nothing_else(scale: int) -> None:
    x = recordings(7, scale)
    threat = Threat(Fraction(2, scale), high=box(scale).high, grid=scale)
    counts = counts_of(x, scale)
    moved = (counts + 2).clamp(max=LARGEST)
    tried = [of_counts(values, scale, x.dtype) for values in (counts, moved, counts - 3, moved, moved, moved, moved)]
    stacked = torch.stack([values[row] for row, values in enumerate(tried)])
    first = stacked.view(7, -1)
    first[3, 5] = first[3, 5] + 0.5 / scale
    first[4, 5] = torch.nan
    first[5, 5] = of_counts(torch.tensor([LARGEST + 1]), scale, x.dtype)
    first[6, 5] = first[6, 5].nextafter(torch.tensor(-torch.inf))
    assert feasible(x, stacked, threat).tolist() == [True, True, False, False, False, False, False]


def test_a_fraction_of_a_count_reaches_as_far_as_the_whole_counts_in_it() -> None:
    x = recordings(2, 9)
    whole, more = (ball(x, Threat(eps, high=1.0, grid=9)) for eps in (Fraction(2, 9), Fraction(29, 90)))
    far = x + 1
    assert torch.equal(whole.project(far), more.project(far))
    assert torch.equal(counts_of(whole.project(far), 9), (counts_of(x, 9) + 2).clamp(max=9))


def test_an_attack_of_somebody_else_is_rounded_and_not_repaired() -> None:
    """What leaves the ball by more than half a count stays outside, and is counted as such."""
    x, y, threat = recordings(3, 1), labels(3), Threat(Fraction(1), high=float(LARGEST), grid=1)
    for step, legal in ((0.4, True), (1.4, True), (1.6, False), (-20.0, False)):
        plug_in = partial(lambda model, x, y, threat, *, rng, step: x + step * (x < 8), step=step)
        attack = ATTACKS.get("fgsm").__class__(plug_in, "")
        (found,) = run_attack(attack, network(1), x, y, threat, rng=CounterRNG(0, torch.arange(3))).values()
        assert torch.equal(found.last, found.last.round())
        assert bool(feasible(x, found.last, threat).all()) == legal


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Threat(Fraction(8, 255), high=9.0, grid=9), "eps 8/255 is less than one count, .* at least 1/9"),
        (lambda: Threat(Fraction(1), "l2", high=9.0, grid=1), "go with the norm linf"),
        (lambda: Threat(Fraction(10), high=9.0), r"range of the frames \[0, 9\]"),
        (lambda: parse_attack("pgd5", "0.1", "linf-int"), "frames of events or 8-bit images"),
        (lambda: parse_attack("pgd5", "30", box=box(1)), "frames' own unit"),
        (lambda: run("autoattack", network(9), recordings(4, 9), "2/9", "linf", 9, torch.arange(4)), "images"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, BenchError), match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
