"""Speed is compared between networks and attacks that are the same, counted, and kept. No test here asserts a speed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import Run
from torch import Tensor, nn

from bench.cli.perf import _SECTIONS
from bench.errors import BenchError
from bench.figures.growth import draw_growth
from bench.figures.style import rendered
from bench.peers.adapter import Arena, Peer
from bench.perf import contestants
from bench.perf.agreement import compare_attack, compare_network
from bench.perf.child import Child
from bench.perf.contestants import ALL, BY_NAME, NETWORKS, OURS, missing
from bench.perf.growth import AXES, Axis, measure_growth
from bench.perf.lab import BF16, NOISY, Lab
from bench.perf.libraries import LIBRARIES
from bench.perf.limit import bare_layers, flops
from bench.perf.neurons import PlainLIF, triangle
from bench.perf.plain import MODELS, build_plain
from bench.perf.record import Record, Section, read_record
from bench.perf.run import SECTIONS, TRAINED, Comparison, Options
from bench.perf.sample import Entry, Sample, take_turns
from bench.perf.subject import Subject, make_subject
from bench.perf.work import ROW, WORK, gradient_agreement, training
from bench.report.perf import markdown, render, sheets
from bench.spec import ARITHMETICS
from bench.training import hash_of

N, STEPS = 4, 3


@pytest.fixture(scope="module")
def subject() -> Subject:
    return make_subject("cnn-small", images=N, in_shape=(3, 8, 8))


@pytest.fixture
def lab(subject: Subject) -> Lab:
    return Lab(subject)


def need(*, network: str = OURS, contestant: str = OURS) -> None:
    """Skip where a library is not installed."""
    who = BY_NAME[contestant]
    for name in {network, who.network} - {OURS}:
        if not NETWORKS[name].installed:
            pytest.skip(f"{name} is not installed; {NETWORKS[name].pip}")
    if not who.installed:
        pytest.skip(f"{who.attacks.peer.name} is not installed; {who.attacks.pip}")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("model", MODELS)
def test_every_network_computes_what_ours_does(network: str, model: str) -> None:
    need(network=network)
    small = make_subject(model, images=2, in_shape=(3, 8, 8), T=3)
    found = compare_network(Lab(small), network, 2, trained=not NETWORKS[network].looped)
    assert found.error == ""
    assert found.agrees, found
    assert found.neurons > 1000 or found.flips == -1


@pytest.mark.parametrize("model", MODELS)
def test_random_weights_make_a_network_that_spikes_and_has_a_gradient(model: str) -> None:
    small = make_subject(model, images=2, in_shape=(3, 8, 8))
    plain = Lab(small).fresh("plain PyTorch")
    rates: list[float] = []
    hooks = [
        layer.register_forward_hook(lambda *call: rates.append(float(call[2].detach().mean())))
        for layer in plain.modules()
        if isinstance(layer, PlainLIF)
    ]
    x = small.x.clone().requires_grad_()
    plain(x).logsumexp(1).sum().backward()
    assert len(rates) == len(hooks)
    assert all(0.01 < rate < 0.9 for rate in rates), rates
    assert x.grad is not None
    assert bool((x.grad != 0).any())


@pytest.mark.parametrize("name", [contestant.name for contestant in ALL])
def test_every_attack_is_the_same_attack(lab: Lab, name: str) -> None:
    need(contestant=name)
    found = compare_attack(lab, name, N, STEPS)
    assert found.error == ""
    assert found.agrees, found
    assert found.loss == pytest.approx(found.loss_ours, rel=1e-3)


def forgetful(subject: Subject, dtype: torch.dtype) -> nn.Module:
    """A network whose neurons decay otherwise."""
    spec = replace(subject.spec, neuron=replace(subject.spec.neuron, decay=0.25))
    model = build_plain(spec, PlainLIF, looped=False)
    model.load(subject.state)
    return model.to(dtype).eval()


class Detached(PlainLIF):
    """The same spikes, without a gradient through the reset."""

    def forward(self, x: Tensor) -> Tensor:
        u = torch.zeros_like(x[: len(x) // self.T])
        spikes = []
        for current in x.unflatten(0, (self.T, -1)):
            v = self.decay * u + current
            spike = triangle(v - 1)
            u = v * (1 - spike.detach())
            spikes.append(spike)
        return torch.stack(spikes).flatten(0, 1)


def detached(subject: Subject, dtype: torch.dtype) -> nn.Module:
    """A network with the same logits and another gradient."""
    model = build_plain(subject.spec, Detached, looped=False)
    model.load(subject.state)
    return model.to(dtype).eval()


@pytest.mark.parametrize(("wrong", "same_logits"), [(forgetful, False), (detached, True)])
def test_a_network_that_computes_something_else_is_caught_and_not_timed(
    subject: Subject, wrong: Callable[..., nn.Module], same_logits: bool
) -> None:
    lab = Lab(subject, builders={"plain PyTorch": wrong})
    found = compare_network(lab, "plain PyTorch", N)
    assert not found.agrees
    assert (found.logits <= 1e-9) == same_logits
    options = Options(("infer",), rounds=1, batch=2, steps=1, images=2)
    record = Comparison(subject, options, torch.device("cpu"), lab=lab).run()
    assert "plain PyTorch" not in [entry.name for entry in record.sections["infer"].entries]
    assert "plain PyTorch differs and is not timed." in sheets(record)[0].notes


def test_an_attack_that_does_something_else_is_caught_and_not_timed(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = LIBRARIES["ART"]

    def lazy(arena: Arena) -> Tensor:
        return honest.pgd(replace(arena, alpha=arena.alpha / 2))

    monkeypatch.setitem(contestants.LIBRARIES, "ART", replace(honest, pgd=lazy))  # type: ignore[arg-type]
    lab = Lab(subject)
    assert not compare_attack(lab, "ART", N, 2).agrees
    comparison = Comparison(subject, Options(()), torch.device("cpu"), lab=lab)
    comparison.record.networks.append(compare_network(lab, "plain PyTorch", N))
    comparison._sound.add("plain PyTorch")
    comparison.record.attacks.append(compare_attack(lab, "ART", N, 2))
    names = [contestant.name for contestant in comparison.contestants()]
    assert "ART" not in names
    assert OURS in names
    assert any("NOT the same attack, not timed" in note for note in sheets(comparison.record)[0].notes)


@pytest.mark.parametrize(
    ("name", "forwards"), [(OURS, STEPS), ("torchattacks", STEPS), ("foolbox", STEPS + 1), ("ART", None)]
)
def test_passes_of_a_step_are_counted(lab: Lab, name: str, forwards: int | None) -> None:
    need(contestant=name)
    for state in ("tuned", "default"):
        sample = WORK["step"](lab, name=name, state=state, batch=N, steps=STEPS)
        assert sample.backwards == N * STEPS
        assert sample.work == N * STEPS
        assert sample.forwards == N * forwards if forwards else sample.forwards > N * STEPS


def test_a_row_costs_ours_42_gradients_and_others_79(lab: Lab) -> None:
    ours = WORK["row"](lab, name=OURS, state="tuned", images=N, attacks=list(ROW))
    # Fewer where the paths of all images go round.
    assert 42 * N >= ours.backwards > 2 * N
    assert list(ours.extra["accuracy"]) == ["clean", *ROW]
    assert ours.extra["accuracy"]["clean"] == 1.0
    theirs = WORK["row"](lab, name="ART", state="default", images=N, attacks=list(ROW))
    assert theirs.backwards == 79 * N
    assert theirs.extra["accuracy"]["clean"] == 1.0
    need(contestant="torchattacks")
    theirs = WORK["row"](lab, name="torchattacks", state="default", images=N, attacks=list(ROW))
    assert (theirs.forwards, theirs.backwards) == ((79 + 7) * N, 79 * N)


def test_work_leaves_the_networks_as_they_were(lab: Lab) -> None:
    need(contestant="foolbox")
    models = {name: lab.network(name) for name in (OURS, "plain PyTorch")}
    before = {name: hash_of(model) for name, model in models.items()}
    for name in (OURS, "foolbox"):
        WORK["step"](lab, name=name, state="tuned", batch=2, steps=1)
    WORK["inference"](lab, name="plain PyTorch", state="tuned", batch=2, repeats=1)
    assert before == {name: hash_of(model) for name, model in models.items()}
    assert all(parameter.requires_grad for model in models.values() for parameter in model.parameters())


@pytest.mark.parametrize("method", ["vanilla", "at", "tgo"])
@pytest.mark.parametrize("name", [OURS, OURS + BF16, *TRAINED])
def test_training_runs_by_every_method(lab: Lab, name: str, method: str) -> None:
    need(network=name.removesuffix(BF16))
    sample = training(lab, name=name, state="tuned", method=method, batch=2, batches=2)
    assert sample.work == 4
    assert sample.seconds > 0


def test_spikingjelly_noise_is_on_the_potential_and_the_penalty_sees_it_without(lab: Lab) -> None:
    need(network="SpikingJelly")
    model = lab.network("SpikingJelly" + NOISY)
    x, _ = lab.batch(2)
    with torch.no_grad():
        first, second = model(x), model(x)
    assert not torch.equal(first, second)
    layers = [layer for layer in model.modules() if hasattr(layer, "membrane")]
    assert [len(layer.membrane) for layer in layers] == [lab.subject.spec.T] * 3
    # What enters the first neurons has no noise yet, so neither has their potential at the first time step.
    plain = lab.network("SpikingJelly")
    current = plain.stem((x - plain.mean) / plain.std)
    assert torch.allclose(layers[0].membrane[0], current, atol=1e-5)


def test_arithmetic_is_ours_and_says_how_far_it_is_from_the_fast_one(lab: Lab) -> None:
    for how in ARITHMETICS:
        assert WORK["arithmetic"](lab, name=how, state="tuned", batch=2, steps=1).work == 2
    assert gradient_agreement(lab, "reference", N)["cosine"] > 0.999
    assert gradient_agreement(lab, "bf16", N)["cosine"] < 1.0


def test_the_bare_layers_are_those_of_the_network(lab: Lab) -> None:
    layers = bare_layers(lab, 2)
    assert [type(layer.module) for layer in layers] == [nn.Conv2d] * 3 + [nn.Linear]
    assert [len(layer.x) for layer in layers] == [2, 8, 8, 8]
    # 3x3 kernels at 8x8 (3 to 32), 4x4 twice (32 to 64, 64 to 64), four times for all but the first; the readout.
    macs = 9 * (3 * 32 * 64 + 4 * (32 * 64 * 16 + 64 * 64 * 16)) + 4 * 64 * 10
    assert flops(layers, 2) == 4 * macs


def test_turns_are_taken_and_a_failure_costs_only_itself() -> None:
    order: list[str] = []

    def work(name: str) -> Sample:
        order.append(name)
        if name == "b" and order.count("b") == 2:
            raise ValueError("no more")
        return Sample(1.0, 2.0)

    entries = [Entry(name, "tuned") for name in "abc"]
    calls = [lambda name=name: work(name) for name in "abc"]
    take_turns(entries, calls, 3, warm=calls)  # type: ignore[arg-type]
    assert "".join(order) == "abc" + "abc" + "ca" + "ca"
    assert [len(entry.samples) for entry in entries] == [3, 0, 3]
    assert "no more" in entries[1].error
    assert entries[0].rate == 2.0
    assert entries[0].spread == 0.0
    slow = Entry("slow", "tuned", [Sample(4.0, 2.0), Sample(2.0, 2.0), Sample(9.0, 2.0)])
    assert entries[0].over(slow) == 4.0
    assert entries[0].over(Entry("none", "tuned")) != entries[0].over(Entry("none", "tuned"))


def kept(subject: Subject, **options: object) -> Record:
    """A small run that needs no other process."""
    settled = Options(("infer", "noise", "limit"), rounds=2, batch=2, steps=1, images=2, **options)  # type: ignore[arg-type]
    return Comparison(subject, settled, torch.device("cpu")).run()


def test_a_record_survives_being_written_and_read(
    subject: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = kept(subject)
    path = tmp_path / "perf.json"
    record.write(path)
    again = read_record(path)
    assert again.to_json() == json.loads(path.read_text()) == json.loads(json.dumps(record.to_json()))
    assert markdown(again) == markdown(record)
    render(record)
    first = capsys.readouterr().out
    render(again)
    assert capsys.readouterr().out == first
    assert {"provenance", "releases", "load", "sections", "networks"} <= set(record.to_json())
    assert all(len(entry.samples) == 2 for entry in again.sections["infer"].entries)


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "other"}', '{"kind": "perf", "schema": 99}',
                                  '{"kind": "perf", "schema": 1}'])  # fmt: skip
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(BenchError):
        read_record(path)


def test_an_interruption_keeps_what_was_measured(subject: Subject) -> None:
    saved: list[Record] = []

    def stop(what: str) -> None:
        if "round 2" in what:
            raise KeyboardInterrupt

    options = Options(("infer", "limit"), rounds=3, batch=2, steps=1, images=2)
    with pytest.raises(KeyboardInterrupt):
        Comparison(subject, options, torch.device("cpu"), stop).run(saved.append)
    assert saved[-1].interrupted
    assert all(len(entry.samples) == 1 for entry in saved[-1].sections["infer"].entries)
    assert "INTERRUPTED" in "\n".join(markdown(saved[-1]))


def test_what_is_missing_is_named_with_the_line_that_installs_it(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Peer, "installed", property(lambda peer: peer.name not in ("foolbox", "SpikingJelly")))
    lines = missing()
    assert "foolbox: not installed; pip install foolbox" in lines
    assert any(line.startswith("SpikingJelly: not installed; pip install --no-deps spikingjelly") for line in lines)
    comparison = Comparison(subject, Options(()), torch.device("cpu"))
    comparison._sound.update(NETWORKS)
    names = [contestant.name for contestant in comparison.contestants()]
    assert "ART" in names
    assert not [name for name in names if "foolbox" in name or "SpikingJelly" in name]
    assert markdown(comparison.record)[-len(lines) :] == [f"- {line}" for line in lines]


def test_another_process_measures_the_same_and_its_memory(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "subject.safetensors"
    subject.save(path)
    again = Subject.load(path)
    assert again.spec == subject.spec
    assert torch.equal(again.x, subject.x)
    given = {"state": "default", "batch": N, "steps": STEPS}
    with Child(path, "default", 1, "cpu") as child:
        sample = child.ask("step", watch=True, name="ART", **given)  # type: ignore[arg-type]
        assert (sample.backwards, sample.work) == (N * STEPS, N * STEPS)
        assert sample.extra["peak_bytes"] > 0
        with pytest.raises(BenchError, match="nobody"):
            child.ask("step", name="nobody", **given)  # type: ignore[arg-type]
        row = child.ask("row", name=OURS, state="default", images=N, attacks=["pgd2"])
    here = WORK["row"](Lab(subject), name=OURS, state="tuned", images=N, attacks=["pgd2"])
    assert row.extra["accuracy"] == here.extra["accuracy"]


def test_growth_is_measured_and_drawn(subject: Subject) -> None:
    record = Comparison(subject, Options(()), torch.device("cpu")).record
    record.begin()
    axes = {
        "T": Axis("Time steps", "T", (1, 2), "step", lambda _: AXES["T"].arguments(1) | {"batch": 2}, of_time=True),
        "cells": Axis("Cells", "cells", (2,), "cells", lambda _: {"steps": [1, 2], "batch": 2}),
    }
    measure_growth(subject, record, 1, axes=axes)
    times, cells = record.sections["T"].entries, record.sections["cells"].entries
    assert [entry.name for entry in times] == ["1", "2"]
    assert all(entry.samples[0].extra["peak_bytes"] >= 0 and not entry.error for entry in times + cells)
    assert cells[0].samples[0].backwards == 2 * 2
    assert rendered(draw_growth(record), "png")[:4] == b"\x89PNG"
    assert [sheet.title for sheet in sheets(record)] == ["Time steps", "Cells"]


def test_a_record_without_growth_is_not_drawn(subject: Subject) -> None:
    record = Comparison(subject, Options(()), torch.device("cpu")).record
    record.sections["step"] = Section()
    with pytest.raises(BenchError, match="--growth"):
        draw_growth(record)


def test_weights_are_taken_from_a_checkpoint(tmp_path: Path, bench: Run, tiny_run: list[str]) -> None:
    assert bench(*tiny_run, "-a", "clean").returncode == 0
    (path,) = (tmp_path / "results" / "checkpoints").glob("*.safetensors")
    found = make_subject(weights=path, images=N)
    assert (found.spec.name, found.spec.in_shape, found.spec.num_classes) == ("cnn-small", (1, 8, 8), 2)
    assert compare_network(Lab(found), "plain PyTorch", N).agrees
    with pytest.raises(BenchError, match="is a cnn-small"):
        make_subject("wrn16-4", weights=path)


def test_a_quick_look_runs_is_kept_and_is_printed_again(bench: Run, tmp_path: Path) -> None:
    done = bench("perf", "--quick", "--output", "perf.json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    for title in ("Same function?", "One PGD step", "A whole row", "Training", "Inference", "Noisy neurons",
                  "Arithmetic", "Limits"):  # fmt: skip
        assert title in done.stdout
    assert "round 1/1" in done.stderr
    record = read_record(tmp_path / "perf.json")
    assert set(record.sections) == set(SECTIONS) - {"memory"}
    failed = [entry for section in record.sections.values() for entry in section.entries if entry.error]
    assert not failed
    again = bench("perf", "--show", "perf.json")
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "speed"], "--only knows step, row"),
        (["--model", "resnet"], "speed is compared on wrn16-4"),
        (["--quick", "--full"], "contradict"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--show", "nowhere.json"], "cannot read 'nowhere.json'"),
        (["--decay", "1"], "--decay must lie between 0 and 1"),
        (["--format", "html"], "unknown format"),
        (["--figure", "a.png"], "--figure draws"),
        (["--growth", "--only", "step"], "--only has no effect"),
    ],
)
def test_mistakes_are_told_in_one_line(bench: Run, arguments: list[str], message: str) -> None:
    done = bench("perf", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_command_offers_the_sections_there_are() -> None:
    assert _SECTIONS == SECTIONS
