"""predict.py URL KEYS: let TorchServe predict the class of a mean brain, and check it."""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from models import ZOO

MODEL = "lesion-shapes"
SECONDS = 120


def main(url: str, keys: str) -> None:
    """Predict until a worker answers; probabilities that do not add up to 1 raise."""
    token = json.loads(Path(keys).read_text(encoding="utf-8"))["inference"]["key"]
    image = (ZOO / MODEL / "1" / "reference.nii.gz").read_bytes()
    call = urllib.request.Request(
        f"{url}/predictions/{MODEL}", image, {"Authorization": f"Bearer {token}"}, method="POST"
    )
    end = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(call, timeout=60) as answer:
                found = json.load(answer)
            break
        except urllib.error.HTTPError as error:
            # The frontend is there before its workers.
            if error.code < 500 or time.monotonic() > end:
                raise
            time.sleep(1)
    print(json.dumps(found)[:300])
    probabilities = found.get("probabilities", found)
    assert abs(sum(probabilities.values()) - 1) < 1e-3, found


if __name__ == "__main__":
    main(*sys.argv[1:])
