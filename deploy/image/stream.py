"""stream.py HOST:PORT: let a real client stream a visualization from a server and check what comes."""

import sys
from collections import Counter

import neurofv

STEPS, EVERY = 16, 8


def main(server: str) -> None:
    """Visualize a class, count the events and check the volume; whatever is wrong raises."""
    counts: Counter[str] = Counter()

    def count(event: neurofv.Event) -> None:
        counts[type(event).__name__] += 1

    with neurofv.Client(server, deadline_seconds=300) as client:
        client.wait_until_ready(30)
        (model,) = (model for model in client.models() if model.name == "lesion-shapes")
        assert model.ready, model
        # The client itself checks order, length and SHA-256 of everything that arrives.
        result = client.visualize(
            model.name, class_name="cube", steps=STEPS, canvas_mm=80, snapshot_every=EVERY, on_event=count
        )
    image = result.volume.nifti()
    assert image.shape == result.volume.shape, image.shape
    assert (image.affine == result.volume.affine).all(), image.affine
    assert counts["Accepted"] == counts["Completed"] == 1, counts
    assert counts["Progress"] == STEPS, counts
    assert counts["Volume"] == len(result.snapshots) + 1 + len(result.extras) > 1, counts
    print("events:", ", ".join(f"{name} {number}" for name, number in counts.items()))
    print(
        f"volume: {image.shape}, sha256 {result.volume.sha256}, software {dict(result.provenance.software)}"
    )


if __name__ == "__main__":
    main(sys.argv[1])
