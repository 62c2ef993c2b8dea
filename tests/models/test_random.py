"""Counter-based random numbers: the published generator, well distributed, and indifferent to batching."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from models import random
from models.random import CounterRNG, derive_key, noise_stream, philox4x32


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_authors_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: str) -> None:
    """Vectors of Random123's kat_vectors (Salmon et al., 2011)."""
    words = philox4x32([torch.tensor([c]) for c in counter], key[0] | key[1] << 32)
    assert " ".join(f"{int(word):08x}" for word in words) == expected


def sample(n: int = 400, key: int = 5) -> CounterRNG:
    return CounterRNG(key, torch.arange(n))


def test_uniform_numbers_are_uniform() -> None:
    values = sample().uniform((101,)).flatten()
    assert float(values.min()) > 0
    assert float(values.max()) < 1
    assert stats.kstest(values.numpy(), "uniform").pvalue > 1e-3


def test_normal_numbers_are_normal_out_to_the_tails() -> None:
    values = sample(2000).normal(2, (101,)).flatten()
    assert stats.kstest(values.numpy(), "norm").pvalue > 1e-3
    assert float((values.abs() > 3).double().mean()) == pytest.approx(0.0027, rel=0.1)
    assert float(values.abs().max()) > 4


@pytest.mark.parametrize("what", ["sample", "stream", "draw", "key", "step", "position"])
def test_what_differs_in_any_coordinate_is_independent(what: str) -> None:
    n, rng = 20_000, sample(20_000)
    first = rng.normal(1, (1,)).flatten()
    second = {
        "sample": first.roll(1),
        "stream": rng.normal(1, (1,), stream=1).flatten(),
        "draw": rng.normal(1, (1,), draw=1).flatten(),
        "key": sample(n, 6).normal(1, (1,)).flatten(),
        "step": rng.normal(2, (1,))[1].flatten(),
        "position": rng.normal(1, (2,))[0, :, 1],
    }[what]
    # Correlations of the values and of their squares are normal with deviation 1/sqrt(n).
    for a, b in ((first, second), (first.square(), second.square())):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4.5 / math.sqrt(n)


@settings(max_examples=25)
@given(st.permutations(range(9)), st.integers(1, 8), st.sampled_from([(3,), (2, 5), (1, 4, 4)]))
def test_a_sample_s_numbers_do_not_depend_on_the_batch(order: list[int], cut: int, shape: tuple[int, ...]) -> None:
    def numbers(index: Tensor) -> Tensor:
        return CounterRNG(3, index).normal(4, shape, stream=2, draw=7)

    whole = numbers(torch.arange(9))
    shuffled = torch.tensor(order)
    assert torch.equal(torch.cat([numbers(shuffled[:cut]), numbers(shuffled[cut:])], 1), whole[:, shuffled])


def test_the_internal_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample(50).normal(3, (17,))
    monkeypatch.setattr(random, "_CACHED_WORDS", 7)
    assert torch.equal(sample(50).normal(3, (17,)), whole)


def test_more_time_steps_keep_the_earlier_ones() -> None:
    assert torch.equal(sample(5).normal(8, (6,))[:3], sample(5).normal(3, (6,)))


def test_forks_differ_and_number_zero_is_the_original() -> None:
    rng = sample(5)
    assert torch.equal(rng.fork(0).uniform((4,)), rng.uniform((4,)))
    values = [rng.fork(k).uniform((4,)) for k in range(3)]
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])


def test_more_numbers_than_the_counter_has_are_refused() -> None:
    with pytest.raises(ValueError, match="exceed the counter's range"):
        sample(1).uniform((1 << 27,))


def test_torch_s_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    sample().normal(2, (5,))
    assert torch.equal(before, torch.get_rng_state())


def test_a_key_depends_on_every_part_and_on_where_parts_end() -> None:
    keys = [derive_key("a", 1), derive_key("a", 2), derive_key("b", 1), derive_key("a1"), derive_key("a", 1, "")]
    assert len(set(keys)) == 5
    assert keys[0] == 13722700206037900931, "stored keys would lose their meaning"
    assert all(0 <= key < 1 << 64 for key in keys)


def test_a_stream_serves_only_the_batch_it_was_opened_for() -> None:
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream:
        with pytest.raises(ValueError, match="outside of a call of the model"):
            stream.normal(torch.zeros(2, 4, 3), 0)
        stream.begin_forward()
        assert stream.normal(torch.zeros(2, 4, 3), 0).shape == (2, 4, 3)
        with pytest.raises(ValueError, match="a batch of 5 inside a noise stream that was opened for 4"):
            stream.normal(torch.zeros(2, 5, 3), 0)


def drawn(stream: random.NoiseStream, rows: int) -> Tensor:
    stream.begin_forward()
    return stream.normal(torch.zeros(2, rows, 3), 1)


def test_copies_of_a_batch_are_as_many_draws_one_after_another() -> None:
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream:
        one_by_one = [drawn(stream, 4) for _ in range(6)]
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream:
        first = drawn(stream, 4)
        folded = drawn(stream, 12)
        assert stream.next_draw == 4
        rest = drawn(stream, 8)
    assert torch.equal(torch.cat([first, folded, rest], 1), torch.cat(one_by_one, 1))


def test_a_part_of_the_batch_keeps_its_samples_noise() -> None:
    index = torch.tensor([3, 1])
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream:
        whole = [drawn(stream, 4) for _ in range(3)]
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream:
        assert torch.equal(drawn(stream, 4), whole[0])
        with stream.rows(index):
            assert torch.equal(drawn(stream, 2), whole[1][:, index])
        assert torch.equal(drawn(stream, 4), whole[2])


@pytest.mark.parametrize("rows", [2, 3, 5, 6])
def test_rows_that_are_no_whole_copies_are_refused(rows: int) -> None:
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream, pytest.raises(ValueError, match="opened for 4"):
        drawn(stream, rows)


def test_copies_inside_a_part_are_copies_of_the_part() -> None:
    outer, inner = torch.tensor([5, 0, 3]), torch.tensor([2, 1])
    with noise_stream(nn.Identity(), 1, torch.arange(6)) as stream:
        whole = [drawn(stream, 6) for _ in range(8)]
    with noise_stream(nn.Identity(), 1, torch.arange(6)) as stream:
        assert torch.equal(drawn(stream, 12), torch.cat(whole[:2], 1))
        with stream.rows(outer):
            assert torch.equal(drawn(stream, 6), torch.cat([whole[2][:, outer], whole[3][:, outer]], 1))
            with stream.rows(inner):
                assert torch.equal(drawn(stream, 4), torch.cat([whole[k][:, outer[inner]] for k in (4, 5)], 1))
            assert torch.equal(drawn(stream, 3), whole[6][:, outer])
        assert torch.equal(drawn(stream, 6), whole[7])


def test_a_part_is_given_back_after_an_error_and_may_be_empty() -> None:
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream:
        whole = [drawn(stream, 4) for _ in range(3)]
        stream.seek(0)
        with pytest.raises(RuntimeError), stream.rows(torch.tensor([1])):
            raise RuntimeError
        assert torch.equal(drawn(stream, 4), whole[0])
        with stream.rows(torch.tensor([], dtype=torch.long)):
            assert drawn(stream, 0).shape == (2, 0, 3)
        assert torch.equal(drawn(stream, 4), whole[2])


def test_seeking_inside_a_part_and_after_copies() -> None:
    index = torch.tensor([3, 1])
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream:
        whole = [drawn(stream, 4) for _ in range(9)]
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream:
        drawn(stream, 12)
        stream.seek(1)
        assert stream.next_draw == 1
        assert torch.equal(drawn(stream, 4), whole[1])
        with stream.rows(index):
            stream.seek(7)
            assert torch.equal(drawn(stream, 4), torch.cat([whole[7][:, index], whole[8][:, index]], 1))
            stream.seek(4)
        assert torch.equal(drawn(stream, 4), whole[4])


def test_noise_between_a_seek_and_a_call_is_refused() -> None:
    with noise_stream(nn.Identity(), 1, torch.arange(4)) as stream:
        drawn(stream, 4)
        stream.seek(3)
        with pytest.raises(ValueError, match="outside of a call"):
            stream.normal(torch.zeros(2, 4, 3), 0)


def test_the_layers_of_one_call_draw_from_the_same_draws() -> None:
    with noise_stream(nn.Identity(), 1, torch.arange(2)) as stream:
        stream.begin_forward()
        for layer in range(3):
            stream.normal(torch.zeros(1, 6, 2), layer)
        assert stream.next_draw == 3


def test_streams_nest() -> None:
    assert random.active_noise_stream() is None
    model = nn.Identity()
    with noise_stream(model, 1, torch.arange(1)) as outer:
        with noise_stream(model, 2, torch.arange(1)) as inner:
            assert random.active_noise_stream() is inner
            model(torch.zeros(1))
        assert random.active_noise_stream() is outer
        assert (outer.draw, inner.draw) == (-1, 0)
    assert random.active_noise_stream() is None
