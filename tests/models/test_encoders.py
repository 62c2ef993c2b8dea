"""Encodings: what is shown has the right mean and the right gradient, and its noise is the image's own."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import images, labels, spiking_net
from torch import Tensor

from attacks.gradients import estimating, frozen, input_gradient
from attacks.losses import cross_entropy
from bench.hygiene import check_model
from models.encoders.frequency import FrequencyEncoder
from models.encoders.poisson import PoissonEncoder
from models.encoders.rounding import RoundingEncoder
from models.encoders.signed_rate import SignedRateEncoder
from models.encoding import ENCODERS, Encoder, build_encoder
from models.neurons import is_stochastic
from models.random import noise_stream

MEAN = 0.3
STOCHASTIC = ["poisson", "signed-rate", "rounding:levels=3"]


def encoded(text: str, steps: int = 4, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A small network behind an encoding."""
    net = spiking_net(T=steps, dtype=dtype)
    encoder = build_encoder(text, (MEAN,))
    assert encoder is not None
    net.encoder = encoder.to(dtype)
    return net


def shown(encoder: Encoder, x: Tensor, steps: int) -> Tensor:
    """What an encoder shows of images [N, C, H, W], outside of any network and stream."""
    torch.manual_seed(3)
    return encoder(x.unsqueeze(0), steps)


def filtered(image: np.ndarray, half_height: float, half_width: float) -> np.ndarray:
    """The definition, with every index written out."""
    height, width = image.shape
    spectrum = np.fft.fft2(image)
    for i in range(height):
        for j in range(width):
            k, m = (i if i < (height + 1) // 2 else i - height), (j if j < (width + 1) // 2 else j - width)
            if not (-half_height <= k < half_height and -half_width <= m < half_width):
                spectrum[i, j] = 0
    return np.abs(np.fft.ifft2(spectrum))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (32, 32)])
def test_the_frequency_encoding_equals_its_definition(height: int, width: int) -> None:
    x = images(2, 2, height, width, dtype=torch.float64)
    got = shown(FrequencyEncoder(0.125), x, 8)
    for t in range(8):
        share = 1 - t / 8
        for n in range(2):
            for c in range(2):
                want = filtered(x[n, c].numpy(), share * height / 2, share * width / 2)
                np.testing.assert_allclose(got[t, n, c].numpy(), want, atol=1e-12)
    assert torch.equal(got[0], x)


def test_the_half_widths_at_32_pixels_are_the_papers() -> None:
    x = images(1, 1, 32, 32)
    got = shown(FrequencyEncoder(0.125), x, 4)
    for t, r in enumerate((16, 14, 12, 10)):
        np.testing.assert_allclose(got[t, 0, 0].numpy(), filtered(x[0, 0].numpy(), r, r), atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 5))
def test_waves_inside_the_band_pass_untouched_and_others_vanish(k: int, m: int) -> None:
    i = torch.arange(16, dtype=torch.float64)
    angle = 2 * torch.pi * (k * i[:, None] + m * i) / 16
    x = (0.5 + 0.25 * angle.cos())[None, None]
    last = shown(FrequencyEncoder(0.25), x, 3)[2]
    # Half of 8 frequencies.
    expected = x if max(k, m) < 4 else torch.full_like(x, 0.5)
    if max(k, m) != 4:
        torch.testing.assert_close(last, expected, atol=1e-12, rtol=0)


def test_the_frequency_encodings_gradient_is_the_finite_difference() -> None:
    x = images(1, 1, 6, 6, dtype=torch.float64).add(0.01).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: shown(FrequencyEncoder(0.2), x, 4), (x,))


def test_black_pixels_of_the_unfiltered_step_have_the_gradient_of_the_image() -> None:
    x = torch.zeros(1, 1, 8, 8).requires_grad_()
    first = shown(FrequencyEncoder(), x, 4)[0]
    (grad,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(grad, torch.ones_like(x))


def test_frames_are_filtered_each_at_its_own_step() -> None:
    encoder, frames = FrequencyEncoder(0.25), images(4, 2, 1, 8, 8)
    whole = encoder(frames, 4)
    for t in range(4):
        torch.testing.assert_close(whole[t], shown(encoder, frames[t], 4)[t])
    with pytest.raises(ValueError, match="no frequency is left; take fewer time steps"):
        encoder(frames[:1], 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("text", ["frequency", *STOCHASTIC])
def test_an_encoding_keeps_shape_and_dtype(text: str, dtype: torch.dtype) -> None:
    encoder = build_encoder(text, (MEAN,) * 2)
    assert encoder is not None
    out = shown(encoder.to(dtype), images(3, 2, 8, 6, dtype=dtype), 5)
    assert (out.shape, out.dtype) == ((5, 3, 2, 8, 6), dtype)


@pytest.mark.parametrize("text", STOCHASTIC)
def test_the_mean_of_what_is_shown_is_the_image(text: str) -> None:
    encoder = build_encoder(text, (MEAN,))
    assert encoder is not None
    x = torch.linspace(0, 1, 21).view(1, 1, 1, 21).expand(-1, -1, 200, -1)
    mean = shown(encoder, x, 64).mean((0, 1, 2, 3))
    # 12800 draws of a variance of at most 1/4: six standard deviations.
    torch.testing.assert_close(mean, x[0, 0, 0], atol=6 * 0.5 / 12800**0.5, rtol=0)


def test_values_shown() -> None:
    x = images(8)
    assert set(shown(PoissonEncoder(), x, 4).unique().tolist()) == {0, 1}
    assert set(shown(RoundingEncoder(4), x, 4).unique().tolist()) == {0, 0.25, 0.5, 0.75, 1}
    signed = build_encoder("signed-rate", (0.5,))
    assert signed is not None
    assert set((shown(signed, x, 4) - 0.5).unique().tolist()) == {-1, 0, 1}
    ends = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(-1, 1, 64, 64)
    for encoder in (PoissonEncoder(), RoundingEncoder(2)):
        assert torch.equal(shown(encoder, ends, 16), ends.expand(16, -1, -1, -1, -1))


def test_rounding_is_poisson_at_one_level_and_the_image_at_many() -> None:
    x = images(4)
    assert torch.equal(shown(RoundingEncoder(1), x, 4), shown(PoissonEncoder(), x, 4))
    for levels in (3, 30, 300):
        worst = float((shown(RoundingEncoder(levels), x, 4) - x).abs().max())
        assert worst <= 1 / levels
    # Images are whole 256ths.
    assert torch.equal(shown(RoundingEncoder(256), x, 4), x.expand(4, -1, -1, -1, -1))


@pytest.mark.parametrize("text", STOCHASTIC)
def test_the_gradient_goes_straight_through(text: str) -> None:
    encoder, x = build_encoder(text, (MEAN,)), images(2).requires_grad_()
    assert encoder is not None
    weight = torch.randn(4, *x.shape)
    (grad,) = torch.autograd.grad((weight * shown(encoder, x, 4)).sum(), x)
    torch.testing.assert_close(grad, weight.sum(0))


def test_signed_spikes_are_less_noisy_around_the_mean() -> None:
    x = torch.full((1, 1, 200, 200), 0.45)
    signed = build_encoder("signed-rate", (0.5,))
    assert signed is not None
    noise = {encoder: shown(encoder, x, 8).var().item() for encoder in (PoissonEncoder(), signed)}
    assert noise[signed] == pytest.approx(0.05 * 0.95, rel=0.05)
    assert max(noise.values()) == pytest.approx(0.45 * 0.55, rel=0.05)


@pytest.mark.parametrize("text", ["frequency", *STOCHASTIC])
def test_an_encoded_network_passes_the_hygiene_checks(text: str) -> None:
    net, x = encoded(text), images(16)
    assert is_stochastic(net) == (text != "frequency")
    check_model(net, x, 4)
    check_model(net, images(16, 4, 1, 8, 8), 4)


@pytest.mark.parametrize("text", STOCHASTIC)
def test_an_images_noise_depends_on_draw_and_sample_alone(text: str) -> None:
    net, x, samples = encoded(text), images(8), torch.arange(8)
    with torch.no_grad():
        with noise_stream(net, 1, samples):
            first, second = net(x), net(x)
        with noise_stream(net, 1, samples):
            again = net(x)
        with noise_stream(net, 1, samples[2:5], first_draw=1):
            part = net(x[2:5])
        with noise_stream(net, 2, samples):
            other = net(x)
    assert torch.equal(first, again)
    torch.testing.assert_close(part, second[2:5])
    assert not torch.equal(first, second) and not torch.equal(first, other)


def test_copies_of_a_batch_are_draws() -> None:
    net, x, y, samples = encoded("poisson"), images(4), labels(4), torch.arange(4)
    with frozen(net):
        with noise_stream(net, 1, samples):
            each = [input_gradient(net, x, y, cross_entropy).grad for _ in range(3)]
        with noise_stream(net, 1, samples), estimating(net, draws=3):
            mean = input_gradient(net, x, y, cross_entropy)
    torch.testing.assert_close(mean.grad, torch.stack(each).mean(0), rtol=1e-4, atol=1e-6)


def test_the_networks_weights_say_nothing_of_the_encoder_and_it_moves_with_them() -> None:
    plain, net = spiking_net(T=4), encoded("signed-rate", dtype=torch.float64)
    assert list(plain.state_dict()) == list(net.state_dict())
    assert isinstance(net.encoder, SignedRateEncoder)
    assert net.encoder.mean.dtype == torch.float64
    assert float(copy.deepcopy(net).encoder.mean) == pytest.approx(MEAN)


@pytest.mark.parametrize("text", ["frequency", *STOCHASTIC])
def test_it_works_under_autocast(text: str) -> None:
    net, x = encoded(text), images(4).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        net(x).float().sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all()) and float(x.grad.abs().sum()) > 0


def test_unknown_and_impossible_encodings_are_refused() -> None:
    assert {text.partition(":")[0] for text in ("frequency", *STOCHASTIC)} == set(ENCODERS)
    with pytest.raises(ValueError, match="unknown encoding 'phase'"):
        build_encoder("phase")
    with pytest.raises(ValueError, match=r"levels must be a whole number from 1, got 1\.5"):
        build_encoder("rounding:levels=1.5")
    with pytest.raises(ValueError, match="step must not be negative"):
        build_encoder("frequency:step=-1")
