from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofv import StreamBroken, Visualization, Volume, VolumeCorrupt
from neurofv.events import Collector, Event, Order
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.streams import a_stream, file_of, some_volume

STREAM = a_stream(snapshots=2)


def fold(
    stream: list[vis.VisualizeResponse], keep_snapshots: bool = True
) -> tuple[list[Event], Visualization]:
    order, collector, events = Order(), Collector(keep_snapshots), []
    for response in stream:
        event = collector.take(order.check(response))
        if event is not None:
            events.append(event)
    order.finish()
    return events, collector.result()


def test_a_stream_becomes_events_and_a_result() -> None:
    events, result = fold(STREAM)
    assert [type(event).__name__ for event in events] == [
        *("Accepted", "StateChanged", "Progress", "Volume", "Progress", "Volume", "Volume", "Completed")
    ]
    assert [event.step for event in events if isinstance(event, Volume)] == [1, 2, 3]
    assert result.volume.bytes == file_of(some_volume())
    assert [snapshot.step for snapshot in result.snapshots] == [1, 2]
    assert (result.job, result.label, result.request.steps) == ("jobs/1", "cube", 3)


def test_snapshots_need_not_be_kept() -> None:
    events, result = fold(STREAM, keep_snapshots=False)
    assert result.snapshots == ()
    assert len([event for event in events if isinstance(event, Volume)]) == 3


@given(st.integers(0, len(STREAM) - 1))
def test_a_lost_event_is_found(place: int) -> None:
    with pytest.raises(StreamBroken):
        fold(STREAM[:place] + STREAM[place + 1 :])


@given(st.integers(0, len(STREAM) - 1))
def test_a_stream_cut_short_is_found(length: int) -> None:
    with pytest.raises(StreamBroken, match="without a result"):
        fold(STREAM[:length])


@given(st.integers(0, len(STREAM) - 1))
def test_a_doubled_event_is_found(place: int) -> None:
    with pytest.raises(StreamBroken):
        fold(STREAM[: place + 1] + STREAM[place:])


def renumbered(stream: list[vis.VisualizeResponse]) -> list[vis.VisualizeResponse]:
    copies = [vis.VisualizeResponse.FromString(event.SerializeToString()) for event in stream]
    for number, event in enumerate(copies, 1):
        event.sequence = number
    return copies


def test_the_order_of_kinds_is_checked() -> None:
    with pytest.raises(StreamBroken, match="out of turn"):
        fold(renumbered(STREAM[1:]))
    with pytest.raises(StreamBroken, match="out of turn"):
        fold(renumbered([STREAM[0], *STREAM]))
    with pytest.raises(StreamBroken, match="after the completed"):
        fold(renumbered([*STREAM, STREAM[1]]))


def test_a_completion_without_its_volume_is_refused() -> None:
    without = [event for event in STREAM if not (event.WhichOneof("event") or "").startswith("volume")]
    with pytest.raises(StreamBroken, match="no final volume"):
        fold(renumbered(without))
    open_end = [event for event in STREAM if not event.HasField("volume_end")]
    with pytest.raises(VolumeCorrupt, match="breaks off"):
        fold(renumbered(open_end))


def test_a_completion_for_another_volume_is_refused() -> None:
    other = a_stream(some_volume(seed=1))
    with pytest.raises(StreamBroken, match="another volume"):
        fold(renumbered([*STREAM[:-1], other[-1]]))


def test_an_event_of_a_newer_server_is_passed_over() -> None:
    unknown = vis.VisualizeResponse.FromString(b"\x9a\x06\x00")  # field 99, a message
    assert unknown.WhichOneof("event") is None
    _, result = fold(renumbered([*STREAM[:2], unknown, *STREAM[2:]]))
    assert result.volume.final
