"""Packing of per-image outcomes."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.outcome import Outcome


def outcome(n: int, draws: int, seed: int, edited: bool = False) -> Outcome:
    random = np.random.default_rng(seed)
    bits = [random.random((n, draws)) < 0.5 for _ in range(3)]
    margins = [random.normal(size=n).astype(np.float32) for _ in range(2)]
    edits = random.integers(0, 10**6, (n, 4)).astype(np.int32) if edited else None
    return Outcome(*bits, *margins, random.integers(0, 8, n).astype(np.uint8), edits)


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 99), st.booleans())
def test_unpack_reads_what_pack_wrote(n: int, draws: int, seed: int, edited: bool) -> None:
    original = outcome(n, draws, seed, edited)
    again = Outcome.unpack(original.pack())
    assert (again.edits is None) == (not edited)
    for name, value in vars(original).items():
        if value is None:
            continue
        assert np.array_equal(getattr(again, name), value), name
        assert getattr(again, name).dtype == value.dtype
    assert again.pack() == original.pack()


def test_nan_margins_survive() -> None:
    original = outcome(3, 1, 0)
    original.margin_last[1] = np.nan
    assert np.isnan(Outcome.unpack(original.pack()).margin_last[1])


@pytest.mark.parametrize("damage", [b"", b"short", b"\x03" + b"\0" * 20])
def test_foreign_bytes_are_refused(damage: bytes) -> None:
    with pytest.raises(ValueError, match="not a packed outcome"):
        Outcome.unpack(damage)


def test_damaged_bytes_are_refused() -> None:
    packed = bytearray(outcome(50, 2, 0).pack())
    packed[-5] ^= 255
    with pytest.raises(ValueError, match="damaged"):
        Outcome.unpack(bytes(packed))


def test_concatenation_keeps_image_order() -> None:
    for whole in (outcome(30, 2, 1), outcome(30, 2, 1, edited=True)):
        parts = [whole.part(start, n) for start, n in ((0, 12), (12, 18))]
        assert [part.n for part in parts] == [12, 18]
        assert np.array_equal(parts[1].margin_last, whole.margin_last[12:])
        assert Outcome.concatenate(parts).pack() == whole.pack()


def test_what_is_no_attack_on_events_is_packed_as_it_always_was() -> None:
    """Stored outcomes keep their bits: a header of three numbers, then the compressed arrays."""
    plain = outcome(20, 3, 4)
    packed = plain.pack()
    assert np.frombuffer(packed[:12], "<u4").tolist() == [1, 20, 3]
    bits = [np.packbits(part).tobytes() for part in (plain.clean, plain.last, plain.best)]
    floats = [part.tobytes() for part in (plain.margin_clean, plain.margin_last)]
    assert zlib.decompress(packed[12:]) == b"".join([*bits, *floats, plain.flags.tobytes()])


def test_frames_that_no_recording_has_are_no_reading_of_robustness() -> None:
    """What an attack on events believes of itself is kept beside the rates, and never counted as an iterate."""
    yes, no = np.array([[True]]), np.array([[False]])
    margin, flags, edits = np.zeros(1, np.float32), np.zeros(1, np.uint8), np.zeros((1, 4), np.int32)
    found = Outcome(yes, yes, no, margin, margin, flags, edits)
    assert found.robust_any.tolist() == found.robust_last.tolist() == [1.0]
    assert found.robust_believed.tolist() == [0.0]
    assert Outcome(yes, yes, no, margin, margin, flags).robust_any.tolist() == [0.0]


def test_other_edits_are_other_outcomes() -> None:
    one, plain = outcome(5, 1, 0, edited=True), outcome(5, 1, 0)
    other = outcome(5, 1, 0, edited=True)
    assert one.agrees_with(other)
    assert other.edits is not None
    other.edits[2, 1] += 1
    assert not one.agrees_with(other)
    assert not one.agrees_with(plain)
    assert not plain.agrees_with(one)


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
    part = found.part(7, 12)
    assert np.array_equal(part.robust_any, found.robust_any[7:19])
    if draws == 1:
        assert np.array_equal(found.robust_any, (found.clean & found.last & found.best)[:, 0])
