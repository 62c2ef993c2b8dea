"""What is kept for every test image, and how it is packed."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.statistics.worst import better_of


class Flag(IntFlag):
    """Things about one image's outcome that a rate cannot show.

    Attributes:
        NAN: a logit was NaN or infinite.
        TIE: two classes tied for the first place.
        OUTSIDE: the attack proposed a point outside the ball or the box, or edits that its threat model forbids.
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


_PLAIN, _EDITED = 1, 2
"""What a packed outcome begins with: without and with edits."""

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
        edits: of attacks on events what the checker counted, int32 [n, 4]: the recording's events, and how many were
            added, removed and moved. `last` is then under the frames of the edited recording, and `best` under those
            that the attack itself computed with, which no recording need have: no reading of robustness uses them.
    """

    clean: NDArray[np.bool_]
    last: NDArray[np.bool_]
    best: NDArray[np.bool_]
    margin_clean: NDArray[np.float32]
    margin_last: NDArray[np.float32]
    flags: NDArray[np.uint8]
    edits: NDArray[np.int32] | None = None

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

    @property
    def robust_believed(self) -> NDArray[np.float64]:
        """Of attacks on events: as `robust_last`, under the frames that the attack itself computed with, [n]."""
        return np.asarray((self.clean & self.best).mean(1), np.float64)

    def stands(self, iterate: str) -> NDArray[np.bool_]:
        """Where an image is right both without and under attack, bool [n, draws].

        With `any` an image meets the worse of the two candidates. With noise an attacker does not see the draw, so
        cannot answer it with the better of two images: which one an image meets in a draw is decided by the others.

        Args:
            iterate: `last` or `any`.
        """
        last = self.clean & self.last
        if iterate == "last" or self.edits is not None:
            return last
        return better_of(last, self.clean & self.best)

    def part(self, start: int, n: int) -> "Outcome":
        """Those of n images from `start` on."""
        return self._of(lambda name: getattr(self, name)[start : start + n])

    def agrees_with(self, other: "Outcome") -> bool:
        """Whether the decisions are the same; margins may differ by what another machine's rounding does."""
        decisions = ("clean", "last", "best")
        same = all(np.array_equal(getattr(self, name), getattr(other, name)) for name in decisions)
        same = same and np.array_equal(self.flags & ~_DIAGNOSES, other.flags & ~_DIAGNOSES)
        same = same and (self.edits is None) == (other.edits is None)
        same = same and (self.edits is None or np.array_equal(self.edits, other.edits))  # type: ignore[arg-type]
        margins = ("margin_clean", "margin_last")
        return same and all(
            np.allclose(getattr(self, name), getattr(other, name), rtol=1e-3, atol=1e-3, equal_nan=True)
            for name in margins
        )

    def pack(self) -> bytes:
        """Bytes that `unpack` reads back; equal outcomes give equal bytes."""
        n, draws = self.clean.shape
        edits = b"" if self.edits is None else self.edits.astype("<i4").tobytes()
        header = np.array([_PLAIN if self.edits is None else _EDITED, n, draws], "<u4").tobytes()
        bits = [np.packbits(part).tobytes() for part in (self.clean, self.last, self.best)]
        floats = [part.astype("<f4").tobytes() for part in (self.margin_clean, self.margin_last)]
        return header + zlib.compress(b"".join([*bits, *floats, self.flags.tobytes(), edits]), 6)

    @classmethod
    def unpack(cls, data: bytes) -> "Outcome":
        """Read what `pack` wrote.

        Raises:
            ValueError: not written by `pack`, or damaged.
        """
        if len(data) < 12 or np.frombuffer(data[:4], "<u4")[0] not in (_PLAIN, _EDITED):
            raise ValueError("not a packed outcome")
        form, n, draws = (int(v) for v in np.frombuffer(data[:12], "<u4"))
        packed = -(-n * draws // 8)
        length = unpacked_length(form, n, draws)
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
        edits = np.frombuffer(body[offset + 9 * n :], "<i4")
        return cls(
            bits(0),
            bits(1),
            bits(2),
            np.frombuffer(body, "<f4", n, offset).astype(np.float32),
            np.frombuffer(body, "<f4", n, offset + 4 * n).astype(np.float32),
            np.frombuffer(body, np.uint8, n, offset + 8 * n),
            edits.astype(np.int32).reshape(n, 4) if form == _EDITED else None,
        )

    @classmethod
    def concatenate(cls, parts: "list[Outcome]") -> "Outcome":
        """Outcomes of consecutive runs of images as one."""
        return parts[0]._of(lambda name: np.concatenate([getattr(part, name) for part in parts]))

    def _of(self, made: Callable[[str], NDArray[Any]]) -> "Outcome":
        """Another outcome with what this one has."""
        return Outcome(**{f.name: made(f.name) for f in fields(self) if getattr(self, f.name) is not None})


def unpacked_length(form: int, n: int, draws: int) -> int:
    """How many bytes the outcomes of n images are before they are compressed.

    Args:
        form: the first number of what was packed.
        n, draws: of images and scoring draws.
    """
    return 3 * -(-n * draws // 8) + (25 if form == _EDITED else 9) * n
