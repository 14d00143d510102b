from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofv import StreamBroken, Visualization, Volume, VolumeCorrupt
from neurofv.events import Collector, Event, Order
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.streams import SHAPE, a_stream, announcement, carried, file_of, numbered, some_volume

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
    with pytest.raises((StreamBroken, VolumeCorrupt)):
        fold(STREAM[:place] + STREAM[place + 1 :])


@given(st.integers(0, len(STREAM) - 1))
def test_a_stream_cut_short_is_found(length: int) -> None:
    with pytest.raises(StreamBroken, match="without a result"):
        fold(STREAM[:length])


@given(st.integers(0, len(STREAM) - 1))
def test_a_doubled_event_is_found(place: int) -> None:
    with pytest.raises((StreamBroken, VolumeCorrupt)):
        fold(STREAM[: place + 1] + STREAM[place:])


def test_the_order_of_kinds_is_checked() -> None:
    with pytest.raises(StreamBroken, match="out of turn"):
        fold(numbered(STREAM[1:]))
    with pytest.raises(StreamBroken, match="out of turn"):
        fold(numbered([STREAM[0], *STREAM]))
    with pytest.raises(StreamBroken, match="after the completed"):
        fold(numbered([*STREAM, STREAM[1]]))


def test_a_completion_without_its_volume_is_refused() -> None:
    without = [event for event in STREAM if not (event.WhichOneof("event") or "").startswith("volume")]
    with pytest.raises(StreamBroken, match="did not come"):
        fold(numbered(without))
    open_end = [event for event in STREAM if not event.HasField("volume_end")]
    with pytest.raises(StreamBroken, match="was lost"):
        fold(numbered(open_end))


def test_a_completion_for_another_volume_is_refused() -> None:
    other = a_stream(some_volume(seed=1))
    with pytest.raises(StreamBroken, match="another volume"):
        fold(numbered([*STREAM[:-1], other[-1]]))


BATCH = a_stream(others=["torus", "sphere"], extras={"gradient": np.ones(SHAPE), "jacobian": np.ones(SHAPE)})


def test_a_batch_becomes_one_result_with_the_others_in_order() -> None:
    events, result = fold(BATCH)
    assert len([event for event in events if isinstance(event, vis.Progress)]) == 1
    assert [each.label for each in result.items] == ["cube", "torus", "sphere"]
    assert [each.item for each in result.items] == [0, 1, 2]
    assert [each.evaluation.objective for each in result.items] == [12.5, 13.5, 14.5]
    for item, each in enumerate(result.items):
        assert each.volume.bytes == file_of(some_volume(item))
        assert sorted(each.extras) == ["gradient", "jacobian"]
        assert {extra.item for extra in each.extras.values()} == {item}
        assert [snapshot.item for snapshot in each.snapshots] == [item]
        assert each.provenance.volume_sha256 == each.volume.sha256
        assert each.batch == ()
    assert result.batch == result.items[1:]


def test_the_samples_of_an_objective_have_their_own_seeds() -> None:
    stream = a_stream(*(some_volume(item) for item in range(4)), others=["torus"])
    request = stream[-1].completed.provenance.request
    request.samples, request.seed = 2, 7
    _, result = fold(stream)
    assert [each.label for each in result.items] == [
        *("cube (seed 7)", "cube (seed 8)", "torus (seed 7)", "torus (seed 8)")
    ]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda end: end.provenance.volumes.update({"item1.final": ""}),
            "another volume 'item1.final'",
        ),
        (
            lambda end: end.provenance.volumes.update({"item9.final": ""}),
            "'item9.final', which did not",
        ),
        (lambda end: end.provenance.volumes.pop("item2.jacobian"), "another volume 'item2.jacobian'"),
        (lambda end: end.batch.pop(), "'item2.final' came without figures"),
        (lambda end: end.batch.add(), "no final volume of item 3"),
    ],
)
def test_every_volume_is_held_against_the_provenance(
    spoil: Callable[[vis.Completed], object], words: str
) -> None:
    stream = numbered(BATCH)
    spoil(stream[-1].completed)
    with pytest.raises(StreamBroken, match=words):
        fold(stream)


def test_a_kind_of_a_newer_server_is_passed_over_but_checked() -> None:
    data = file_of(some_volume())
    stream = numbered(
        [*STREAM[:-1], *carried(announcement(data, "final", id="new", kind=99), data), STREAM[-1]]
    )
    with pytest.raises(StreamBroken, match="'new'"):
        fold(stream)
    stream[-1].completed.provenance.volumes["new"] = stream[-1].completed.provenance.volume_sha256
    _, result = fold(stream)
    assert (result.extras, result.volume.id) == ({}, "final")


def test_an_event_of_a_newer_server_is_passed_over() -> None:
    unknown = vis.VisualizeResponse.FromString(b"\x9a\x06\x00")  # field 99, a message
    assert unknown.WhichOneof("event") is None
    _, result = fold(numbered([*STREAM[:2], unknown, *STREAM[2:]]))
    assert result.volume.final
