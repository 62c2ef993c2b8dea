"""What is kept for every test image, and how it is packed."""

import zlib
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from bench.statistics.worst import better_of


class Flag(IntFlag):
    """Things about one image's outcome that a rate cannot show.

    Attributes:
        NAN: a logit was NaN or infinite.
        TIE: two classes tied for the first place.
        OUTSIDE: the attack proposed a point outside the ball or the box.
        PLACEBO: the image scored differently with eps = 0, that is, when nothing was done to it.
        ZERO_GRADIENT: the first gradient that the attack took at the image was zero in every pixel.
        UNWATCHED: no gradient at the image was seen, because the attack took none or made batches of its own.
    """

    NAN = 1
    TIE = 2
    OUTSIDE = 4
    PLACEBO = 8
    ZERO_GRADIENT = 16
    UNWATCHED = 32


_DIAGNOSES = Flag.ZERO_GRADIENT | Flag.UNWATCHED


@dataclass(frozen=True)
class Outcome:
    """Per-image results of one cell, for a run of consecutive test images.

    Draw d uses one realisation of the model's noise for the clean and the attacked
    image alike, so an attack that changes nothing scores exactly the clean accuracy.

    Attributes:
        clean: correct without attack, bool [n, draws].
        last: correct under the last iterate, bool [n, draws].
        best: correct under the visited iterate of largest loss, bool [n, draws].
        margin_clean, margin_last: z_y - max_{j != y} z_j, mean over draws, float32 [n].
        flags: `Flag` bits, uint8 [n].
    """

    clean: NDArray[np.bool_]
    last: NDArray[np.bool_]
    best: NDArray[np.bool_]
    margin_clean: NDArray[np.float32]
    margin_last: NDArray[np.float32]
    flags: NDArray[np.uint8]

    @property
    def n(self) -> int:
        return len(self.flags)

    @property
    def robust_last(self) -> NDArray[np.float64]:
        """Share of draws in which an image is right both without and under attack, [n]."""
        return np.asarray(self.stands("last").mean(1), np.float64)

    @property
    def robust_any(self) -> NDArray[np.float64]:
        """As `robust_last`, under the worse of the attack's two candidates, [n]."""
        return np.asarray(self.stands("any").mean(1), np.float64)

    def stands(self, iterate: str) -> NDArray[np.bool_]:
        """Where an image is right both without and under attack, bool [n, draws].

        With `any` an image meets the worse of the two candidates. With noise an attacker does not see the draw, so
        cannot answer it with the better of two images: which one an image meets in a draw is decided by the others.

        Args:
            iterate: `last` or `any`.
        """
        last = self.clean & self.last
        if iterate == "last":
            return last
        return better_of(last, self.clean & self.best)

    def part(self, start: int, n: int) -> "Outcome":
        """Those of n images from `start` on."""
        return Outcome(*(getattr(self, name)[start : start + n] for name in self.__dataclass_fields__))

    def agrees_with(self, other: "Outcome") -> bool:
        """Whether the decisions are the same; margins may differ by what another machine's rounding does."""
        decisions = ("clean", "last", "best")
        same = all(np.array_equal(getattr(self, name), getattr(other, name)) for name in decisions)
        same = same and np.array_equal(self.flags & ~_DIAGNOSES, other.flags & ~_DIAGNOSES)
        margins = ("margin_clean", "margin_last")
        return same and all(
            np.allclose(getattr(self, name), getattr(other, name), rtol=1e-3, atol=1e-3, equal_nan=True)
            for name in margins
        )

    def pack(self) -> bytes:
        """Bytes that `unpack` reads back; equal outcomes give equal bytes."""
        n, draws = self.clean.shape
        header = np.array([1, n, draws], "<u4").tobytes()
        bits = [np.packbits(part).tobytes() for part in (self.clean, self.last, self.best)]
        floats = [part.astype("<f4").tobytes() for part in (self.margin_clean, self.margin_last)]
        return header + zlib.compress(b"".join([*bits, *floats, self.flags.tobytes()]), 6)

    @classmethod
    def unpack(cls, data: bytes) -> "Outcome":
        """Read what `pack` wrote.

        Raises:
            ValueError: not written by `pack`, or damaged.
        """
        if len(data) < 12 or np.frombuffer(data[:4], "<u4")[0] != 1:
            raise ValueError("not a packed outcome")
        n, draws = (int(v) for v in np.frombuffer(data[4:12], "<u4"))
        packed = -(-n * draws // 8)
        length = 3 * packed + 9 * n
        try:
            # No more than belongs there: a few bytes of a stranger's file can unpack to gigabytes.
            body = zlib.decompressobj().decompress(data[12:], length + 1)
        except zlib.error as error:
            raise ValueError(f"damaged outcome: {error}") from error
        if len(body) != length:
            raise ValueError("damaged outcome: wrong length")

        def bits(part: int) -> NDArray[np.bool_]:
            raw = np.frombuffer(body, np.uint8, packed, part * packed)
            return np.unpackbits(raw, count=n * draws).astype(bool).reshape(n, draws)

        offset = 3 * packed
        return cls(
            bits(0),
            bits(1),
            bits(2),
            np.frombuffer(body, "<f4", n, offset).astype(np.float32),
            np.frombuffer(body, "<f4", n, offset + 4 * n).astype(np.float32),
            np.frombuffer(body, np.uint8, n, offset + 8 * n),
        )

    @classmethod
    def concatenate(cls, parts: "list[Outcome]") -> "Outcome":
        """Outcomes of consecutive runs of images as one."""
        names = ("clean", "last", "best", "margin_clean", "margin_last", "flags")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
