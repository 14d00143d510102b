"""predict.py ping|predict URL KEYS: ask TorchServe whether it is well, or for the classes of a mean brain."""

import json
import sys
import urllib.request
from pathlib import Path

from models import ZOO

MODEL = "lesion-shapes"


def ask(url: str, keys: str, body: bytes | None = None) -> dict:
    """Call with the token that TorchServe has written into a file; a refusal raises."""
    token = json.loads(Path(keys).read_text(encoding="utf-8"))["inference"]["key"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
    call = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(call, timeout=60) as answer:
        found: dict = json.load(answer)
        return found


def main(what: str, url: str, keys: str) -> None:
    """Ask and print; a state that is not Healthy, or probabilities that do not add up to 1, raise."""
    if what == "ping":
        found = ask(f"{url}/ping", keys)
        assert found["status"] == "Healthy", found
    else:
        image = (ZOO / MODEL / "1" / "reference.nii.gz").read_bytes()
        found = ask(f"{url}/predictions/{MODEL}", keys, image)
        assert abs(sum(found["probabilities"].values()) - 1) < 1e-3, found
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
