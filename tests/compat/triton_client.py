"""What a user of Triton's client does; a process of its own, for it registers the protocol's messages too.

`python triton_client.py TARGET TOKEN VOLUMES` prints what came back as JSON. It needs tritonclient and numpy
alone, of any version that has `parameters`.
"""

import json
import sys
from collections.abc import Callable

import numpy as np
import tritonclient.grpc as triton
from google.protobuf.json_format import MessageToDict

MODEL = "lesion-shapes"


def _infer(
    client: triton.InferenceServerClient,
    volume: np.ndarray,
    *names: str,
    called: str = "volume",
    **more: object,
) -> dict:
    tensor = triton.InferInput(called, list(volume.shape), "FP32")
    tensor.set_data_from_numpy(volume)
    wanted = [triton.InferRequestedOutput(name) for name in names] or None
    result = client.infer(MODEL, [tensor], outputs=wanted, **more)
    answer = result.get_response()
    outputs = {output.name: result.as_numpy(output.name).tolist() for output in answer.outputs}
    return {"id": answer.id, "version": answer.model_version, "outputs": outputs}


def _refusal(act: Callable[[], object]) -> list[str]:
    try:
        act()
    except triton.InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    return ["OK", ""]


def main(target: str, token: str, volumes: np.ndarray) -> dict:
    """Go through the protocol."""
    client, known = triton.InferenceServerClient(target), {"headers": {"authorization": f"Bearer {token}"}}
    batch = volumes[:, None]
    return {
        "live": client.is_server_live(**known),
        "ready": client.is_server_ready(**known),
        "model_ready": client.is_model_ready(MODEL, **known),
        "version_ready": client.is_model_ready(MODEL, "1", **known),
        "damaged_ready": client.is_model_ready(MODEL, "2", **known),
        "unknown_ready": client.is_model_ready("nobody", **known),
        "server": MessageToDict(client.get_server_metadata(**known)),
        "model": MessageToDict(client.get_model_metadata(MODEL, **known)),
        "one": _infer(client, volumes[0], request_id="one", **known),
        "batch": _infer(client, batch, "probabilities", "logits", **known),
        "normalized": _infer(client, batch / 700, "logits", parameters={"normalized": True}, **known),
        "wrong_name": _refusal(lambda: _infer(client, volumes[0], called="image", **known)),
        "wrong_output": _refusal(lambda: _infer(client, volumes[0], "labels", **known)),
        "wrong_shape": _refusal(lambda: _infer(client, volumes[0, :-1], **known)),
        "wrong_model": _refusal(lambda: client.get_model_metadata("nobody", **known)),
        "no_token": _refusal(client.is_server_live),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:3], np.load(sys.argv[3]))))
