"""`kill -9` at failpoints and at random moments: the soak's proof, at a small size."""

from benchmarks.reliability import kills

# Two of them; `make soak` visits all.
_POINTS = [
    ("events.before_commit", 9),
    ("checkpoint.after_rename", 1),
]


def test_every_point_is_a_known_failpoint() -> None:
    assert {name for name, _ in kills.POINTS} == set(kills.FAILPOINTS)


def test_a_kill_at_a_failpoint_loses_nothing() -> None:
    found = kills.at_failpoints(_POINTS)
    assert found["faults"] == []
    assert found["not_reached"] == []
    assert found["checkpoints_left"] == 0


def test_a_kill_at_a_random_moment_loses_nothing() -> None:
    found = kills.at_random(2, seed=1, server_share=0.5)
    assert found["faults"] == []
    assert found["kills"] == 2
    assert found["checkpoints_left"] == 0
