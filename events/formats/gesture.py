"""DVS128 Gesture (Amir et al., CVPR 2017): trials with several gestures each, cut by a table of times."""

from dataclasses import dataclass
from pathlib import Path

from events.recording import Recording

GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter-clockwise",
    "left arm clockwise", "left arm counter-clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip


@dataclass(frozen=True)
class Gesture:
    """One gesture within a trial.

    Attributes:
        label: index into `GESTURES`; the files count from 1.
        start, end: microseconds, as in the trial's events; the end is not part of it.
    """

    label: int
    start: int
    end: int

    def cut_from(self, trial: Recording) -> Recording:
        """Its events. Two gestures may overlap, as they do in `user22_led`; the times stay the trial's."""
        return trial.between(self.start, self.end)


def read_gestures(path: Path) -> tuple[Gesture, ...]:
    """Read a trial's table, `user01_fluorescent_labels.csv`: a line of titles, then class, start and end.

    Raises:
        ValueError: a line that says something else; names file and line.
        OSError: the file cannot be read.
    """
    found = []
    for number, line in enumerate(path.read_text().splitlines()[1:], start=2):
        if not line.strip():
            continue
        try:
            label, start, end = (int(field) for field in line.split(","))
        except ValueError:
            raise ValueError(f"'{path}', line {number}: expected class,start,end as integers, got '{line}'") from None
        if not (1 <= label <= len(GESTURES) and 0 <= start <= end):
            raise ValueError(
                f"'{path}', line {number}: expected a class from 1 to {len(GESTURES)} and a start before an end, "
                f"got '{line}'"
            )
        found.append(Gesture(label - 1, start, end))
    if not found:
        raise ValueError(f"'{path}' lists no gestures; fetch or unpack it again")
    return tuple(found)


def read_trials(path: Path) -> tuple[str, ...]:
    """The file names in a list of trials, `trials_to_train.txt`, in its order.

    Raises:
        ValueError: it names none.
        OSError: the file cannot be read.
    """
    names = tuple(filter(None, map(str.strip, path.read_text().splitlines())))
    if not names:
        raise ValueError(f"'{path}' lists no trials; fetch or unpack it again")
    return names


def labels_of(trial: Path) -> Path:
    """The table that belongs to a trial's events."""
    return trial.with_name(f"{trial.stem}_labels.csv")
