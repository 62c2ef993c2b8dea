"""Packing of per-image outcomes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.outcome import Outcome


def outcome(n: int, draws: int, seed: int) -> Outcome:
    random = np.random.default_rng(seed)
    bits = [random.random((n, draws)) < 0.5 for _ in range(3)]
    margins = [random.normal(size=n).astype(np.float32) for _ in range(2)]
    return Outcome(*bits, *margins, random.integers(0, 8, n).astype(np.uint8))


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 99))
def test_unpack_reads_what_pack_wrote(n: int, draws: int, seed: int) -> None:
    original = outcome(n, draws, seed)
    again = Outcome.unpack(original.pack())
    for name, value in vars(original).items():
        assert np.array_equal(getattr(again, name), value), name
        assert getattr(again, name).dtype == value.dtype
    assert again.pack() == original.pack()


def test_nan_margins_survive() -> None:
    original = outcome(3, 1, 0)
    original.margin_last[1] = np.nan
    assert np.isnan(Outcome.unpack(original.pack()).margin_last[1])


@pytest.mark.parametrize("damage", [b"", b"short", b"\x02" + b"\0" * 20])
def test_foreign_bytes_are_refused(damage: bytes) -> None:
    with pytest.raises(ValueError, match="not a packed outcome"):
        Outcome.unpack(damage)


def test_damaged_bytes_are_refused() -> None:
    packed = bytearray(outcome(50, 2, 0).pack())
    packed[-5] ^= 255
    with pytest.raises(ValueError, match="damaged"):
        Outcome.unpack(bytes(packed))


def test_concatenation_keeps_image_order() -> None:
    whole = outcome(30, 2, 1)
    parts = [Outcome(*(value[a:b] for value in vars(whole).values())) for a, b in ((0, 12), (12, 30))]
    assert Outcome.concatenate(parts).pack() == whole.pack()


def test_an_image_wrong_without_attack_counts_as_not_robust() -> None:
    yes, no = np.array([[True, True]]), np.array([[False, True]])
    margin, flags = np.zeros(1, np.float32), np.zeros(1, np.uint8)
    assert Outcome(no, yes, yes, margin, margin, flags).robust_last.tolist() == [0.5]
    assert Outcome(no, yes, yes, margin, margin, flags).robust_any.tolist() == [0.5]


def test_the_candidate_of_a_draw_is_chosen_by_the_other_draws() -> None:
    """Whoever does not see the noise cannot answer each draw with the better of two images."""
    clean = np.ones((3, 4), bool)
    last = np.array([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    best = np.array([[1, 0, 0, 1], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
    found = Outcome(clean, last, best, np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.uint8))
    # Draw 0 of image 0: in the others it stands 3 times under the last and once under the best, which is taken. In draw
    # 1 it stands twice under either.
    assert found.stands("any")[0].tolist() == [True, True, True, True]
    assert found.stands("any")[1].all()
    # Draw 0 of image 2: once under either, so the last; in draw 3 never under the last.
    assert found.stands("any")[2].tolist() == [False, False, False, True]


def test_two_candidates_that_are_equally_good_are_no_worse_together() -> None:
    random = np.random.default_rng(0)
    bits = [np.ones((20_000, 5), bool), *(random.random((2, 20_000, 5)) < 0.5)]
    zero = np.zeros(20_000, np.float32)
    found = Outcome(*bits, zero, zero, np.zeros(20_000, np.uint8))
    assert found.robust_any.mean() == pytest.approx(0.5, abs=0.01)


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_any_iterate_is_the_union_for_a_network_without_noise_and_no_image_depends_on_others(
    seed: int, draws: int
) -> None:
    found = outcome(40, draws, seed)
    assert (found.robust_any >= (found.clean & found.last & found.best).mean(1)).all()
    part = Outcome(*(value[7:19] for value in vars(found).values()))
    assert np.array_equal(part.robust_any, found.robust_any[7:19])
    if draws == 1:
        assert np.array_equal(found.robust_any, (found.clean & found.last & found.best)[:, 0])
