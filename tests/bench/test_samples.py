"""Pictures of samples: the colours and marks are those of the events, and the files are what they say."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import Run
from typer.testing import CliRunner

from bench.cli import app
from bench.data.events import EventDataset
from bench.evidence.samples import attacked_samples, telling
from bench.evidence.stored import stored_cell, stored_images, stored_network
from bench.figures.pictures import draw_pictures
from bench.figures.samples import (
    ADDED,
    GROUND,
    LESS,
    MORE,
    MOVED,
    OFF,
    ON,
    REMOVED,
    animate_sample,
    blend,
    draw_samples,
)
from bench.figures.style import rendered
from bench.figures.views import View, view_of_frames, view_of_recordings
from bench.outcome import Outcome
from bench.store import Store
from events import Recording, Sensor

SENSOR = Sensor(6, 8)


def colour(name: str) -> tuple[int, ...]:
    return tuple(int(name[at : at + 2], 16) for at in (1, 3, 5))


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def near(pixels: np.ndarray, name: str, within: int = 12) -> int:
    """How many pixels have a colour, about."""
    return int((np.abs(pixels - colour(name)).max(-1) <= within).sum())


def moments() -> tuple[Recording, Recording]:
    """ON at the left early, OFF at the right late; one event is removed, one added, one moved by 2 ms."""
    original = Recording(
        [1, 1, 6, 6, 3], [1, 2, 4, 5, 3], [1000, 2000, 40_000, 44_000, 47_999], [1, 1, 0, 0, 1], SENSOR
    )
    edited = Recording(
        [1, 5, 6, 6, 3], [1, 1, 4, 5, 3], [1000, 30_000, 40_000, 46_000, 47_999], [1, 1, 0, 0, 1], SENSOR
    )
    return original, edited


def test_a_view_of_recordings_counts_every_event_in_its_window() -> None:
    original, edited = moments()
    view = view_of_recordings(original, edited, 3000, 47)
    assert (view.unit, view.whole, view.edges[0], view.edges[-1]) == ("ms", True, 1.0, 48.0)
    assert view.clean.shape == (47, 2, 6, 8) and view.clean.sum() == view.attacked.sum() == 5
    assert view.clean[0, 1, 1, 1] == view.clean[46, 1, 3, 3] == view.clean[39, 0, 4, 6] == 1
    assert view.added.sum() == view.removed.sum() == view.moved.sum() == 1
    assert view.added[29, 1, 5] == view.removed[1, 2, 1] == view.moved[45, 5, 6] == 1
    assert view.changed == 3
    # Without a reach nothing is moved: the same is a removal and an addition.
    apart = view_of_recordings(original, edited, 0, 47)
    assert (apart.added.sum(), apart.removed.sum(), apart.moved.sum()) == (2, 2, 0)


def test_short_recordings_have_finer_time_and_empty_ones_a_view() -> None:
    short = Recording([0, 1], [0, 0], [5, 99], [0, 1], SENSOR)
    view = view_of_recordings(short, short, 0)
    assert (view.unit, view.edges[0], view.edges[-1], view.changed) == ("µs", 5.0, 100.0, 0.0)
    nothing = view_of_recordings(Recording.empty(SENSOR), Recording.empty(SENSOR), 0)
    assert nothing.clean.sum() == 0
    assert Image.open(io.BytesIO(animate_sample(nothing, "none"))).format == "GIF"
    one = view_of_recordings(Recording.empty(SENSOR), short, 0)
    assert one.added.sum() == 2


def test_a_view_of_frames_says_what_became_more_and_less() -> None:
    clean, attacked = np.zeros((3, 2, 4, 4)), np.zeros((3, 2, 4, 4))
    clean[0, 0, 1, 1], attacked[0, 1, 1, 1], attacked[2, 0, 3, 3] = 2.0, 0.5, 1.25
    view = view_of_frames(clean, attacked)
    assert (view.unit, view.whole, view.edges.tolist()) == ("time step", False, [0.5, 1.5, 2.5, 3.5])
    # What moves from one polarity to the other is both.
    assert (view.added[0, 1, 1], view.removed[0, 1, 1], view.added[2, 3, 3]) == (0.5, 2.0, 1.25)
    assert view.changed == 3.75


def test_colours_say_which_polarity_and_how_many() -> None:
    first, second = np.array([[4.0, 0.0, 2.0, 0.0, 1.0]]), np.array([[0.0, 4.0, 2.0, 0.0, 0.0]])
    row = blend(first, second, 4.0, (ON, OFF))[0]
    assert tuple(row[0]) == colour(ON) and tuple(row[1]) == colour(OFF) and tuple(row[3]) == colour(GROUND)
    between = (np.array(colour(ON)) + colour(OFF)) / 2
    assert np.abs(row[2] - between).max() <= 1
    # One event of four is fainter than four, and far from the ground.
    assert 60 < np.abs(row[4].astype(int) - colour(GROUND)).max() < np.abs(row[0].astype(int) - colour(GROUND)).max()


def shown(view: View) -> np.ndarray:
    return picture(
        rendered(
            draw_samples([view], ["test sample 3: a \N{RIGHTWARDS ARROW} a clean, b attacked"], "Of a test."), "png"
        )
    )


def test_the_picture_marks_what_was_added_removed_and_moved() -> None:
    original, edited = moments()
    marked, still = shown(view_of_recordings(original, edited, 3000)), shown(view_of_recordings(original, original, 0))
    assert marked.shape[1] == still.shape[1] == 1520
    for name in (ADDED, MOVED):
        assert near(marked, name) > 150 and near(still, name) == 0
    # The difference is the third panel; text and axes are black as removals are.
    part = slice(int(0.47 * 1520), int(0.66 * 1520))
    assert near(marked[:, part], REMOVED) > near(still[:, part], REMOVED) + 60
    for name in (ON, OFF):
        assert near(marked[:, : int(0.4 * 1520)], name) > 1000


def test_the_picture_of_frames_has_colours_of_its_own() -> None:
    clean = np.full((3, 2, 4, 4), 1.0)
    attacked = clean.copy()
    attacked[:, :, :2], attacked[:, :, 2:] = 1.3, 0.7
    found = shown(view_of_frames(clean, attacked))
    assert near(found, MORE) > 5000 and near(found, LESS) > 5000
    same = shown(view_of_frames(clean, clean))
    assert near(same, MORE) + near(same, LESS) < 2000


def test_the_animation_shows_a_window_after_the_other() -> None:
    original, edited = moments()
    data = animate_sample(view_of_recordings(original, edited, 3000), "test sample 3: a clean, b attacked")
    movie = Image.open(io.BytesIO(data))
    assert (movie.format, movie.n_frames) == ("GIF", 24)  # type: ignore[attr-defined]
    assert len(data) < 1_000_000
    assert "loop" in movie.info
    frames, times = [], []
    for number in range(24):
        movie.seek(number)
        times.append(movie.info["duration"])
        frames.append(np.asarray(movie.convert("RGB")).astype(int))
    assert all(frame.shape == frames[0].shape for frame in frames) and len(set(times[:-1])) == 1 < len(set(times))
    upper = [frame[50:250] for frame in frames]
    on, off, added = ([near(frame, name, 30) for frame in upper] for name in (ON, OFF, ADDED))
    # Events of 1 and 2 ms are in window 0, those from 40 ms on in windows 19 to 23; one was added at 30 ms.
    assert on[0] > 100 and off[0] == 0 and off[19] > 100 and on[5] == off[5] == 0
    assert [number for number, count in enumerate(added) if count > 20] == [14]


def test_the_same_sample_gives_the_same_bytes() -> None:
    view = view_of_recordings(*moments(), 3000, 3)
    assert animate_sample(view, "a") == animate_sample(view, "a")


def test_images_are_shown_with_their_difference_enlarged() -> None:
    x = torch.full((1, 8, 8), 0.5)
    x_adv = x.clone()
    x_adv[0, :4] += 0.02
    x_adv[0, 6:] -= 0.02
    found = picture(
        rendered(draw_pictures([x, torch.rand(3, 8, 8)], [x_adv, torch.rand(3, 8, 8)], ["a", "b"], "Of a test."), "png")
    )
    third = found[: found.shape[0] // 2, 2 * found.shape[1] // 3 :]
    assert near(third, "#FFFFFF", 2) > 5000 and near(third, "#000000", 2) > 5000 and near(third, "#808080", 2) > 5000
    assert near(found[: found.shape[0] // 2, : found.shape[1] // 3], "#808080", 2) > 20_000


def test_broken_samples_come_first() -> None:
    clean = np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0]], bool)
    last = np.array([[1, 1, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]], bool)
    margins = np.zeros(5, np.float32)
    outcome = Outcome(clean, last, last, margins, margins, np.zeros(5, np.uint8))
    assert telling(outcome, 3) == [1, 3, 0]
    assert telling(outcome, 99) == [1, 3, 0, 2, 4]


EVENTS = (
    "--dataset",
    "digits-dvs:T=2,size=4",
    "-n",
    "24",
    "-a",
    "random-edits:max_shift=2000,pgd2",
    "--event-eps",
    "0.2",
)
IMAGES = ("--dataset", "digits", "-n", "20", "-a", "fgsm")
BRIEFLY = ("-d", "vanilla", "--epochs", "1", "--train-size", "160", "--threads", "1")


def here(folder: Path, *arguments: str | Path) -> Any:
    """The command line in this process, where torch is imported already."""
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """A folder with cells of an attack on events, of one on their frames, and of one on images."""
    folder = tmp_path_factory.mktemp("cells")
    for arguments in (EVENTS, IMAGES):
        assert here(folder, "run", *BRIEFLY, *arguments).exit_code == 0
    cells = json.loads(here(folder, "ls", "runs", "--json").stdout)
    return {cell["attack"].partition(":")[0]: (folder, cell["key"]) for cell in cells}


def test_a_cell_of_event_edits_is_drawn_and_animated(bench: Run, stored: dict[str, tuple[Path, str]]) -> None:
    folder, key = stored["random-edits"]
    done = bench("show", key[:10], "--samples", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "attacking 2 samples again with random-edits:max_shift=2000" in done.stderr
    assert "note:" not in done.stderr
    paths = [folder / line for line in done.stdout.split()]
    assert [path.suffix for path in paths] == [".png", ".gif", ".gif"]
    assert all(path.parent == folder / "results" / "samples" and path.name.startswith(key[:12]) for path in paths)
    assert near(picture(paths[0].read_bytes()), ADDED) > 300
    for path in paths[1:]:
        assert Image.open(path).n_frames == 24  # type: ignore[attr-defined]
        assert path.stat().st_size < 1_000_000


def test_cells_on_frames_and_on_images_are_drawn(stored: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    folder, key = stored["pgd2"]
    done = here(folder, "show", key, "--pictures", "1", "-o", tmp_path / "new", "--json")
    assert done.exit_code == 0, done.stderr
    png, gif = json.loads(done.stdout)
    assert Image.open(gif).n_frames == 2  # type: ignore[attr-defined]
    assert near(picture(Path(png).read_bytes()), MORE) > 300
    folder, key = stored["fgsm"]
    done = here(folder, "show", key, "--samples=2", "-o", tmp_path / "images")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in (tmp_path / "images").iterdir()] == [f"{key[:12]}.png"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--samples", "0"), "error: --samples draws 1 to 64 samples, got 0"),
        (("--samples", "65"), "error: --samples draws 1 to 64 samples, got 65"),
        (("-o", "x"), "error: -o, --dataset, --weights and --model are for drawn samples"),
        (("--samples", "2", "--repeat"), "error: --samples N draws what was measured"),
        (("--samples", "2", "--weights", "none"), "error: the weights 'none' are not there"),
        (("--samples", "2", "--dataset", "digits4"), "error: the test images of 'digits4' are not those"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    stored: dict[str, tuple[Path, str]], arguments: tuple[str, ...], says: str
) -> None:
    folder, key = stored["fgsm"]
    done = here(folder, "show", key, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert line.startswith(says)


def test_without_a_number_every_outcome_is_printed(stored: dict[str, tuple[Path, str]]) -> None:
    folder, key = stored["fgsm"]
    for arguments in ((key, "--samples"), ("--samples", key)):
        table = here(folder, "show", *arguments)
        assert table.exit_code == 0 and len(table.stdout.splitlines()) > 20


def test_what_is_drawn_is_what_was_scored(stored: dict[str, tuple[Path, str]]) -> None:
    """Also of samples from the middle of a chunk, which are attacked in other company than they were scored in."""
    for attack in ("random-edits", "pgd2"):
        folder, key = stored[attack]
        with contextlib.chdir(folder):
            store = Store(folder / "results" / "bench.sqlite")
            row, device = store.cell(key), torch.device("cpu")
            cell = stored_cell(row)
            outcome, data = store.outcome(key), stored_images(cell, Path("data"))
            model = stored_network(cell, store, folder / "results" / "checkpoints", device)
        assert outcome is not None
        numbers = [21, 3, 17]
        found = attacked_samples(model, data, cell, numbers, device)
        assert [sample.number for sample in found] == numbers
        for sample in found:
            right = (sample.clean == sample.label, sample.attacked == sample.label)
            assert right == (outcome.clean[sample.number, 0], outcome.last[sample.number, 0])
            assert torch.equal(sample.x, data.pixels(data.x_test[sample.number : sample.number + 1], device)[0])
            if sample.edited is not None and isinstance(data, EventDataset) and outcome.edits is not None:
                assert sample.recording == data.recordings_test[sample.number]
                view = view_of_recordings(data.recordings_test[sample.number], sample.edited, 2000)
                added, removed, moved = outcome.edits[sample.number, 1:].tolist()
                assert (view.added.sum(), view.removed.sum(), view.moved.sum()) == (added, removed, moved)
