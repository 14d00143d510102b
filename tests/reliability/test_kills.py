"""`kill -9` at failpoints and at random moments: the soak's proof, at a small size."""

from benchmarks.reliability import kills

# One for each kind of place; `make soak` visits all of them.
_POINTS = [
    ("job.after_commit", 1),
    ("events.before_commit", 9),
    ("checkpoint.after_rename", 1),
    ("worker.before_result", 1),
    ("end.before_commit", 1),
]


def test_every_point_is_a_known_failpoint() -> None:
    assert {name for name, _ in kills.POINTS} == set(kills.FAILPOINTS)


def test_a_kill_at_a_failpoint_loses_nothing() -> None:
    found = kills.at_failpoints(_POINTS)
    assert found["faults"] == []
    assert found["not_reached"] == []
    assert found["checkpoints_left"] == 0


def test_a_kill_at_a_random_moment_loses_nothing() -> None:
    found = kills.at_random(3, seed=1, server_share=0.34)
    assert found["faults"] == []
    assert found["kills"] == 3
    assert found["checkpoints_left"] == 0
