"""What every single edit of a recording is worth, to first order, with the borders of frames that it moves."""

import numpy as np
from numpy.typing import NDArray

from events import Framing, Recording

Floats = NDArray[np.float64]
NEVER = -np.inf


def removal_gains(recording: Recording, framing: Framing, slope: Floats) -> Floats:
    """How much a loss that is linear in the counts grows if one event goes.

    In frames of equal numbers every later event comes one place earlier, so that some change frames; if a frame then
    holds one less, every border moves. In frames of equal spans the first and the last event hold the borders. All of
    this is counted: for a loss that is linear in the frames the numbers are exact.

    Args:
        recording: n events.
        framing: how they are counted.
        slope: of the loss in each count, [T, 2, height, width].

    Returns:
        float64 [n].
    """
    flat, pixel, n = slope.reshape(framing.T, -1), framing.pixel_of(recording), len(recording)
    now = flat[framing.frame_of(recording), pixel]
    if framing.by == "time" or n < 2:
        gains: Floats = -now
        for event in {0, n - 1} if n > 1 else ():
            others = np.delete(np.arange(n), event)
            left = Recording(
                recording.x[others], recording.y[others], recording.t[others], recording.p[others], recording.sensor
            )
            gains[event] = flat[framing.frame_of(left), pixel[others]].sum() - now.sum()
        return gains
    frame = framing.by_number(n - 1)
    staying, moving = flat[frame, pixel[:-1]], flat[frame, pixel[1:]]
    # What the events before keep, and what those behind are worth one place earlier.
    before = np.append(0.0, np.cumsum(staying - now[:-1]))
    behind = np.append(np.cumsum((moving - now[1:])[::-1])[::-1], 0.0)
    return np.asarray(before + behind - now)


def addition_gains(recording: Recording, framing: Framing, slope: Floats) -> Floats:
    """How much a loss that is linear in the counts grows if there is an event more in a frame.

    In frames of equal numbers it does not matter where in its frame the event comes; the events that it pushes into
    other frames are counted. In frames of equal spans it comes between the first and the last event.

    Args:
        recording, framing, slope: as for `removal_gains`.

    Returns:
        float64 [T, 2 * height * width], -inf in frames that it cannot be in.
    """
    flat, pixel, n = slope.reshape(framing.T, -1), framing.pixel_of(recording), len(recording)
    if framing.by == "time" and n:
        return flat.copy()
    now = flat[framing.frame_of(recording), pixel]
    frame = framing.by_number(n + 1)
    before = np.append(0.0, np.cumsum(flat[frame[:-1], pixel] - now))
    behind = np.append(np.cumsum((flat[frame[1:], pixel] - now)[::-1])[::-1], 0.0)
    pushed = np.full(framing.T, NEVER)
    pushed[frame] = before + behind
    return np.asarray(flat + pushed[:, None])


def move_gains(recording: Recording, framing: Framing, slope: Floats) -> Floats:
    """How much a loss that is linear in the counts grows if one event moves to another frame.

    In frames of equal numbers the events at the borders between come back into the frame that the event left, one by
    one; this is counted. In frames of equal spans the first and the last event hold the borders and are not moved.

    Args:
        recording, framing, slope: as for `removal_gains`.

    Returns:
        float64 [n, T], -inf where the event is already, and in frames that it cannot reach.
    """
    flat, pixel, n = slope.reshape(framing.T, -1), framing.pixel_of(recording), len(recording)
    frame, frames = framing.frame_of(recording), np.arange(framing.T)
    gains: Floats = flat[:, pixel].T - flat[frame, pixel][:, None]
    if framing.by == "time":
        gains[[0, n - 1] if n else []] = NEVER
    elif n < framing.T:
        gains[:] = NEVER
    else:
        first = np.searchsorted(frame, frames)
        last = np.append(first[1:] - 1, n - 1)
        back = flat[frames[1:] - 1, pixel[first[1:]]] - flat[frames[1:], pixel[first[1:]]]
        onward = flat[frames[:-1] + 1, pixel[last[:-1]]] - flat[frames[:-1], pixel[last[:-1]]]
        later, earlier = np.append(0.0, np.cumsum(back)), np.append(0.0, np.cumsum(onward))
        gains += np.where(frames > frame[:, None], later - later[frame][:, None], earlier[frame][:, None] - earlier)
    gains[np.arange(n), frame] = NEVER
    return gains


def move_times(recording: Recording, framing: Framing, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When an event of another frame is counted in each frame once it has moved there.

    Args:
        recording, framing: as for `removal_gains`.
        last: the latest moment that is allowed.

    Returns:
        int64 [T, 2] for events of earlier frames and the same for events of later ones: first and last microsecond,
        the first is the later one where there is no such moment.
    """
    if framing.by == "time" or len(recording) < framing.T:
        times = framing.times_for_one_more(recording, last)
        return times, times
    t, frame = recording.t, framing.frame_of(recording)
    first = np.searchsorted(frame, np.arange(framing.T))
    # Events keep their order within a microsecond, so one that passes another does so by a microsecond.
    from_before = np.stack([t[first] + 1, np.append(t[first[1:]], last)], 1)
    from_behind = np.stack([np.append(0, t[first[1:] - 1]), np.append(t[first[1:] - 1], t[-1]) - 1], 1)
    return from_before, from_behind
