"""Files of events, written here byte by byte from the formats' descriptions."""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import Recording, Sensor
from events.formats.aedat2 import DVS128, read_cifar10_dvs
from events.formats.aedat3 import read_aedat3
from events.formats.gesture import GESTURES, Gesture, labels_of, read_gestures, read_trials
from events.formats.nmnist import NMNIST_SENSOR, read_nmnist, write_nmnist

Event = tuple[int, int, int, int]
"""x, y, t, p"""


def events_of(recording: Recording) -> list[Event]:
    table = zip(recording.x, recording.y, recording.t, recording.p, strict=True)
    return [(int(x), int(y), int(t), int(p)) for x, y, t, p in table]


def events_on(side: int, last: int) -> st.SearchStrategy[list[Event]]:
    """Lists of events in order of time."""
    event = st.tuples(st.integers(0, side - 1), st.integers(0, side - 1), st.integers(0, last), st.integers(0, 1))
    return st.lists(event, max_size=40).map(lambda events: sorted(events, key=lambda event: event[2]))


# N-MNIST: one 40-bit number an event, most significant byte first.


def nmnist_bytes(events: list[Event]) -> bytes:
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for x, y, t, p in events)


@settings(deadline=None)
@given(events_on(34, 2**23 - 1))
def test_nmnist_is_read_as_described_and_written_the_same(tmp_path_factory: Any, events: list[Event]) -> None:
    path = tmp_path_factory.getbasetemp() / "read.bin"
    path.write_bytes(nmnist_bytes(events))
    recording = read_nmnist(path)
    assert events_of(recording) == events
    assert recording.sensor == NMNIST_SENSOR
    written = path.with_name("written.bin")
    write_nmnist(written, recording)
    assert written.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nmnist_bytes([(1, 2, 3, 1), (4, 5, 6, 0)])[:-1], "cut off or of another kind: 9 bytes .* multiple of 5"),
        (nmnist_bytes([(1, 2, 3, 1), (34, 5, 6, 0)]), "damaged.*event 1 is at x = 34"),
        # What ATIS cameras write where a 13-bit counter overflows; N-MNIST has none.
        (nmnist_bytes([(1, 2, 3, 1), (0, 240, 6, 0)]), "damaged.*event 1 is at x = 0, y = 240"),
        (nmnist_bytes([(1, 2, 9, 1), (4, 5, 6, 0)]), "damaged.*event 1 at t = 6 us comes after"),
        (b"<!DOCTYPE html>", "damaged or of another kind: event 0 is at x = 60"),
    ],
)
def test_a_bad_nmnist_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "00007.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^'{path}' is {message}") as caught:
        read_nmnist(path)
    assert "\n" not in str(caught.value)


def test_nmnist_holds_no_longer_and_no_larger_recording(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    one = np.array([1])
    with pytest.raises(ValueError, match="ends at 8388607 us and the recording at 8388608"):
        write_nmnist(path, Recording(one, one, np.array([2**23]), one, NMNIST_SENSOR))
    with pytest.raises(ValueError, match="at most 256x256 pixels, the sensor has 300x20"):
        write_nmnist(path, Recording.empty(Sensor(300, 20)))
    assert not path.exists()


def test_an_empty_nmnist_file_is_a_recording_without_events(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "x.bin", Recording.empty(NMNIST_SENSOR))
    assert read_nmnist(tmp_path / "x.bin") == Recording.empty(NMNIST_SENSOR)


# AEDAT 2.0: what a DVS128 writes, which is not what is seen.

HEADER_2 = (
    b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), \repeated for each event\r\n"
)


def aedat2_bytes(events: list[Event], start: int = 0) -> bytes:
    """A file whose upright events are these, by a counter that starts at `start` and has 32 bits."""
    pairs = []
    for x, y, t, p in events:
        stored_y, stored_x, stored_p = 127 - x, 127 - y, 1 - p
        pairs.append(struct.pack(">II", stored_y << 8 | stored_x << 1 | stored_p, (start + t) % 2**32))
    return HEADER_2 + b"".join(pairs)


@settings(deadline=None)
@given(events_on(128, 2**31), st.sampled_from([0, 35 << 24, 2**31 - 5, 2**32 - 1000]))
def test_aedat2_is_read_upright_and_past_an_overflow(tmp_path_factory: Any, events: list[Event], start: int) -> None:
    path = tmp_path_factory.getbasetemp() / "read.aedat"
    path.write_bytes(aedat2_bytes(events, start))
    recording = read_cifar10_dvs(path)
    first = (start + events[0][2]) % 2**32 - events[0][2] if events else 0
    assert events_of(recording) == [(x, y, first + t, p) for x, y, t, p in events]
    assert recording.sensor == DVS128


def test_aedat2_events_that_come_late_are_put_in_order_and_signals_left_out(tmp_path: Path) -> None:
    path = tmp_path / "late.aedat"
    signal = struct.pack(">II", 1 << 15 | 5, 15)
    path.write_bytes(
        aedat2_bytes([(1, 2, 10, 1), (3, 4, 20, 0)]) + signal + aedat2_bytes([(5, 6, 12, 1)])[len(HEADER_2) :]
    )
    assert events_of(read_cifar10_dvs(path)) == [(1, 2, 10, 1), (5, 6, 12, 1), (3, 4, 20, 0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#!AER-DAT3.1\r\n", r"begins with '#!AER-DAT3.1', not with '#!AER-DAT2.0'"),
        (b"PK\x03\x04", "begins with .* it is no AEDAT 2.0 file"),
        (b"", "begins with '', not"),
        (b"#!AER-DAT2.0\r\n# never", "is cut off within its header"),
        (aedat2_bytes([(1, 2, 3, 1)])[:-3], "is cut off: 5 bytes of events are not a multiple of 8"),
        # Half an event lost in the middle: times are read as addresses.
        (HEADER_2 + struct.pack(">IIII", 5, 90_000_000, 90_000_001, 7), "event 1 has the address 0x055d4a81"),
    ],
)
def test_a_bad_aedat2_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "cifar10_cat_3.aedat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^'{path}' .*{message}") as caught:
        read_cifar10_dvs(path)
    assert "\n" not in str(caught.value)


# AEDAT 3.1: packets.

HEADER_3 = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-01-01 00:00:00 (TZ+0100)\r\n"
    b"#!END-HEADER\r\n"
)


def packet(body: list[tuple[int, int]], kind: int = 1, overflows: int = 0, spare: int = 0) -> bytes:
    """A packet of (word, time) events of 8 bytes, with room for more."""
    valid = sum(word & 1 for word, _ in body)
    header = struct.pack("<hhiiiiii", kind, 1, 8, 4, overflows, len(body) + spare, len(body), valid)
    return header + b"".join(struct.pack("<Ii", *event) for event in body) + bytes(8 * max(spare, 0))


def word(x: int, y: int, p: int, valid: int = 1) -> int:
    return x << 17 | y << 2 | p << 1 | valid


def polarity_packets(events: list[Event], size: int, spare: int = 0) -> bytes:
    """Packets of `size` events at most, a new one where the 31-bit counter overflows."""
    groups: list[list[Event]] = []
    for event in events:
        new = not groups or len(groups[-1]) == size or groups[-1][0][2] >> 31 != event[2] >> 31
        groups.append([event]) if new else groups[-1].append(event)
    return b"".join(
        packet([(word(x, y, p), t & 0x7FFFFFFF) for x, y, t, p in group], overflows=group[0][2] >> 31, spare=spare)
        for group in groups
    )


@settings(deadline=None)
@given(events_on(128, 2**33), st.integers(1, 7), st.integers(0, 2))
def test_aedat3_is_read_as_described(tmp_path_factory: Any, events: list[Event], size: int, spare: int) -> None:
    path = tmp_path_factory.getbasetemp() / "read3.aedat"
    path.write_bytes(HEADER_3 + polarity_packets(events, size, spare))
    assert events_of(read_aedat3(path, DVS128)) == events


def test_aedat3_passes_over_other_packets_and_invalid_events(tmp_path: Path) -> None:
    path = tmp_path / "x.aedat"
    special = packet([(7, 5)], kind=0)
    frame = struct.pack("<hhiiiiii", 2, 1, 100, 4, 0, 1, 1, 1) + bytes(100)
    ours = packet([(word(3, 4, 1), 9), (word(5, 6, 1, valid=0), 10), (word(7, 8, 0), 8)])
    path.write_bytes(HEADER_3 + special + ours + frame)
    assert events_of(read_aedat3(path, DVS128)) == [(7, 8, 8, 0), (3, 4, 9, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER_2, "begins with '#!AER-DAT2.0', not with '#!AER-DAT3.1'"),
        (HEADER_3[:-20], "is cut off within its header"),
        (HEADER_3 + packet([(word(1, 2, 1), 5)])[:20], "is cut off within a packet's header at byte"),
        (HEADER_3 + packet([(word(1, 2, 1), 5)])[:-3], "is cut off: .* promises 8 bytes of events and 5 follow"),
        (HEADER_3 + packet([(word(1, 2, 1), 5)], spare=-1), "is damaged: no packet begins at byte"),
        (HEADER_3 + packet([(word(1, 2, 1), 5)], overflows=-1), "is damaged: no packet begins"),
        (HEADER_3 + packet([(word(1, 2, 1), -5)]), "is damaged: .* has a negative timestamp"),
        (HEADER_3 + packet([(word(128, 2, 1), 5)]), "is damaged or another camera's: event 0 is at x = 128"),
    ],
)
def test_a_bad_aedat3_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "user01_led.aedat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^'{path}' {message}") as caught:
        read_aedat3(path, DVS128)
    assert "\n" not in str(caught.value)


# DVS128 Gesture: tables of times and lists of trials.


def test_gestures_are_cut_by_their_table(tmp_path: Path) -> None:
    path = tmp_path / "user01_led_labels.csv"
    path.write_text("class,startTime_usec,endTime_usec\n1,10,20\n11,18,30\n2,40,40\n\n")
    found = read_gestures(path)
    assert found == (Gesture(0, 10, 20), Gesture(10, 18, 30), Gesture(1, 40, 40))
    t = np.array([9, 10, 18, 19, 20, 29, 30, 40])
    trial = Recording(np.arange(8), np.zeros(8, int), t, np.zeros(8, int), DVS128)
    assert [gesture.cut_from(trial).t.tolist() for gesture in found] == [[10, 18, 19], [18, 19, 20, 29], []]
    assert len(GESTURES) == 11
    assert labels_of(tmp_path / "user01_led.aedat") == path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,10", "line 2: expected class,start,end as integers, got '1,10'"),
        ("a,1,2", "line 2: expected class"),
        ("12,10,20", "line 2: expected a class from 1 to 11"),
        ("0,10,20", "line 2: expected a class from 1 to 11"),
        ("3,30,20", "line 2: expected a class from 1 to 11 and a start before an end, got '3,30,20'"),
        ("", "lists no gestures"),
    ],
)
def test_a_bad_table_of_gestures_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"class,startTime_usec,endTime_usec\n{line}\n")
    with pytest.raises(ValueError, match=rf"^'{path}'.*{message}"):
        read_gestures(path)


def test_trials_are_listed_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "trials_to_test.txt"
    path.write_text("user24_fluorescent.aedat\nuser24_led.aedat\n\n")
    assert read_trials(path) == ("user24_fluorescent.aedat", "user24_led.aedat")
    path.write_text("\n")
    with pytest.raises(ValueError, match="lists no trials"):
        read_trials(path)


# A second opinion.


@settings(max_examples=20, deadline=None)
@given(events_on(128, 2**22), events_on(34, 2**23 - 1))
def test_readers_agree_with_spikingjelly(
    spikingjelly: Any, tmp_path_factory: Any, events: list[Event], small: list[Event]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    cases = {
        "a.bin": (nmnist_bytes(small), spikingjelly.utils.load_ATIS_bin, read_nmnist),
        "b.aedat": (aedat2_bytes(events), spikingjelly.cifar10_dvs._load_origin_data, read_cifar10_dvs),
        "c.aedat": (
            HEADER_3 + polarity_packets(events, 5),
            spikingjelly.utils.load_aedat_v3,
            lambda path: read_aedat3(path, DVS128),
        ),
    }
    for name, (content, theirs, ours) in cases.items():
        (folder / name).write_bytes(content)
        found, mine = theirs(folder / name), ours(folder / name)
        for column in "xytp":
            assert np.array_equal(found[column], getattr(mine, column)), (name, column)


def test_real_nmnist_if_it_is_at_hand() -> None:
    folder = os.environ.get("BENCH_TEST_DATA")
    if not folder or not (Path(folder) / "NMNIST").is_dir():
        pytest.skip("BENCH_TEST_DATA names no folder with NMNIST")
    paths = sorted((Path(folder) / "NMNIST" / "Test").glob("*/*.bin"))[:50]
    assert paths
    for path in paths:
        recording = read_nmnist(path)
        assert 500 < len(recording) < 10_000
        assert 250_000 < recording.t[-1] - recording.t[0] < 350_000
        assert recording.x.max() == 33 or recording.y.max() > 28
        assert 0.3 < recording.p.mean() < 0.7
        assert nmnist_bytes(events_of(recording)) == path.read_bytes()
