import gzip

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from models import ZOO
from service.errors import InvalidField
from service.torchserve.asked import Image, Wish, read_call
from tests.service.requests import CUBE, request

PACKED = (ZOO / "growth" / "1" / "reference.nii.gz").read_bytes()
REQUEST = request(CUBE, "steps: 3")


@pytest.mark.parametrize("data", [PACKED, gzip.decompress(PACKED), bytearray(PACKED)])
def test_an_image_is_known_by_its_first_bytes(data: bytes) -> None:
    assert read_call({"data": data}) == Image(bytes(data), "data")


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("size", [348, 540])
def test_no_message_begins_as_an_image_does(size: int, order: str) -> None:
    header = size.to_bytes(4, order)  # type: ignore[arg-type]
    assert isinstance(read_call({"data": header}), Image)
    with pytest.raises(DecodeError):
        type(REQUEST).FromString(header + bytes(344))
    with pytest.raises(DecodeError):
        type(REQUEST).FromString(PACKED)


def test_a_request_is_read_as_protobuf_or_as_json() -> None:
    plain = json_format.MessageToJson(REQUEST)
    assert read_call({"stream": REQUEST.SerializeToString()}) == Wish(REQUEST, "stream", as_json=False)
    for value in (
        plain,
        plain.encode(),
        bytearray(b"\n " + plain.encode()),
        json_format.MessageToDict(REQUEST),
    ):
        assert read_call({"body": value}) == Wish(REQUEST, "body", as_json=True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "input has 0 fields"),
        ({"a": b"", "b": b""}, "input has 2 fields"),
        ({"body": b""}, "body is empty"),
        ({"body": []}, "body is JSON, but no object"),
        ({"body": {"stepz": 1}}, 'no field named "stepz"'),
        ({"body": b'{"steps": '}, "body is no VisualizeRequest in JSON"),
        ({"body": b'{"a":' * 100_000}, "body is no VisualizeRequest in JSON"),
        ({"body": {"steps": "many"}}, "body is no VisualizeRequest in JSON"),
    ],
)
def test_what_is_neither_is_refused_in_few_words(fields: dict, said: str) -> None:
    with pytest.raises(InvalidField) as caught:
        read_call(fields)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400
