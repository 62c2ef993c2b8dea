"""Filters that clean a recording before a network sees it: what defends against event attacks without any training.

Both are those of Linares-Barranco et al., IEEE Access 2019 (doi 10.1109/ACCESS.2019.2941282), which Marchisio et al.
put before networks under attack (DVS-Attacks, IJCNN 2021, arXiv 2107.00415; R-SNN, IROS 2021, arXiv 2109.00533).
"""

import numpy as np
from numpy.typing import NDArray

from events.recording import Recording


def background_filter(recording: Recording, window: int, radius: int = 1) -> Recording:
    """Leave out events that nothing happened beside: a camera's noise comes alone, an edge comes with neighbours.

    An event stays if one of the pixels around its own, up to `radius` rows and columns away, had an event of either
    polarity before it and at most `window` microseconds ago. Its own pixel does not count, so that a hot pixel does
    not vouch for itself. Every event of the recording counts as a neighbour, also one that is left out.

    Source: Delbruck, "Frame-free dynamic digital vision" (2008); Linares-Barranco et al. 2019.

    Args:
        recording: of any length.
        window: microseconds, at least 0.
        radius: pixels, at least 1.

    Returns:
        the events that stay, in their order.

    Raises:
        ValueError: a window below 0 or a radius below 1.
    """
    if window < 0:
        raise ValueError(f"window must be at least 0 microseconds, got {window}")
    if radius < 1:
        raise ValueError(f"radius must be at least 1 pixel, got {radius}")
    n, width, height = len(recording), recording.sensor.width, recording.sensor.height
    x, y = recording.x.astype(np.int64), recording.y.astype(np.int64)
    number = np.arange(n)
    # An event's pixel and number as one integer: sorted, the event before another's at any pixel is next to it.
    seen = np.sort((y * width + x) * n + number)
    beside = np.zeros(n, np.bool_)
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            if not (down or right):
                continue
            there = (x + right >= 0) & (x + right < width) & (y + down >= 0) & (y + down < height)
            pixel = (y + down) * width + x + right
            last = seen[np.maximum(np.searchsorted(seen, pixel * n + number) - 1, 0)]
            since = recording.t - recording.t[last % max(n, 1)]
            beside |= there & (last // max(n, 1) == pixel) & (last % max(n, 1) < number) & (since <= window)
    return _only(recording, beside)


def mask_filter(recording: Recording, most: int) -> Recording:
    """Leave out every event of the pixels with more than `most` events: what a hot pixel or a fixed pattern says.

    Source: Linares-Barranco et al. 2019; `most` is the threshold of Marchisio et al. 2021.

    Args:
        recording: of any length.
        most: events of either polarity that a pixel may have in the whole recording, at least 0.

    Returns:
        the events of the other pixels, in their order.

    Raises:
        ValueError: `most` below 0.
    """
    if most < 0:
        raise ValueError(f"most must be at least 0 events, got {most}")
    pixel = recording.y.astype(np.int64) * recording.sensor.width + recording.x
    return _only(recording, np.bincount(pixel, minlength=1)[pixel] <= most)


def _only(recording: Recording, stay: NDArray[np.bool_]) -> Recording:
    return Recording(recording.x[stay], recording.y[stay], recording.t[stay], recording.p[stay], recording.sensor)
