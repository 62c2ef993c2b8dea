"""The same results on a GPU, where there is one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support import images, spiking_net

from bench.data import load_dataset
from bench.evaluation import Room, evaluate
from bench.outcome import Outcome
from bench.resolve import build_model, parse_attack
from bench.runtime import exact_arithmetic
from bench.spec import CellSpec, ModelSpec
from defenses.dsd import deflated
from models.encoding import build_encoder
from models.neurons import NeuronSpec, spiking_layers
from models.random import CounterRNG, noise_stream

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))


def test_counter_based_numbers_are_the_processor_s() -> None:
    samples = torch.arange(50)
    here = CounterRNG(3, samples)
    there = CounterRNG(3, samples.cuda())
    assert torch.equal(there.uniform((33,)).cpu(), here.uniform((33,)))
    assert torch.allclose(there.normal(4, (33,)).cpu(), here.normal(4, (33,)), rtol=0, atol=1e-5)


def test_the_fused_layer_equals_the_written_out_one() -> None:
    gradients = []
    for reference in (False, True):
        model = spiking_net(dtype=torch.float64).cuda()
        for layer in spiking_layers(model).values():
            layer.reference = reference
        x = images(8, dtype=torch.float64).cuda().requires_grad_()
        gradients.append(torch.autograd.grad(model(x).square().sum(), x)[0])
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-12)


def test_most_outcomes_are_the_processor_s_and_all_repeat() -> None:
    exact_arithmetic()
    data = load_dataset("digits", Path())
    spec = ModelSpec("cnn-small", 10, data.in_shape, 4, NOISY, data.mean, data.std)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(spec).eval()
    cell = CellSpec("train:x", spec, data.test_hash, 256, parse_attack("pgd10", "0.1"), 3, 0, "digits", "nlif", 0)

    def outcome(device: str) -> Outcome:
        chunks = evaluate(model.to(device), data, [cell], device=torch.device(device))
        return Outcome.concatenate([chunk.outcomes[cell] for chunk in chunks])

    there, again, here = outcome("cuda"), outcome("cuda"), outcome("cpu")
    assert there.pack() == again.pack()
    # Float32 rounds differently, and a spike is a step: single images may differ, the picture may not.
    assert np.abs(there.margin_last - here.margin_last).mean() < 0.05
    assert (there.flags == here.flags).all()


def test_a_chunk_that_does_not_fit_is_attacked_in_halves() -> None:
    """Real memory: first as much as a chunk wants, then less."""
    exact_arithmetic()
    data = load_dataset("digits", Path())
    spec = ModelSpec("cnn-medium", 10, data.in_shape, 16, NOISY, data.mean, data.std)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(spec).eval().cuda()
    cell = CellSpec("train:x", spec, data.test_hash, 128, parse_attack("pgd3", "0.1"), 2, 0, "digits", "nlif", 0)
    device = torch.device("cuda")

    def outcome(room: Room) -> Outcome:
        [chunk] = evaluate(model, data, [cell], device=device, room=room)
        return chunk.outcomes[cell]

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_reserved()
    whole = outcome(Room())
    wanted = torch.cuda.max_memory_reserved() - held
    torch.cuda.empty_cache()
    room = Room()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 0.6 * wanted) / total)
    try:
        parts = outcome(room)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert room.batch < 128
    # Other kernels for other sizes round differently there.
    assert (whole.last == parts.last).mean() > 0.95


@pytest.mark.parametrize("text", ["frequency", "poisson", "signed-rate", "rounding:levels=3"])
def test_an_encoding_shows_what_it_shows_on_the_processor(text: str) -> None:
    exact_arithmetic()
    x = images(64)
    shown = {}
    for device in ("cpu", "cuda", "cuda again"):
        place = torch.device(device.split()[0])
        encoder = build_encoder(text, (0.3,))
        assert encoder is not None
        samples = torch.arange(64, device=place)
        with noise_stream(encoder.to(place), 1, samples) as stream:
            stream.begin_forward()
            shown[device] = encoder(x[None].to(place), 4).cpu()
    assert torch.equal(shown["cuda"], shown["cuda again"])
    # Normal numbers round differently there, and a spike is a step.
    assert ((shown["cuda"] - shown["cpu"]).abs() < 1e-5).double().mean() > 0.999


def test_deflation_is_the_processors_and_repeats() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((32, 27), (300, 500)):
        matrix = torch.randn(shape, generator=generator)
        matrix += 3 * torch.outer(matrix[:, 0], matrix[0])
        there = deflated(matrix.cuda())
        assert torch.equal(there, deflated(matrix.cuda()))
        torch.testing.assert_close(there.cpu(), deflated(matrix), rtol=0, atol=1e-3)
