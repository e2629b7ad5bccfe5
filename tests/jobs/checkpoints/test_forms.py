"""Files say of themselves whether they are whole, at whatever byte they are cut."""

from __future__ import annotations

import io
import json
import struct
import zipfile

from jobs.checkpoints import forms


def archive(comment: bytes = b"") -> bytes:
    """As torch.save and numpy.savez write."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"x" * 300)
        file.writestr("archive/data/0", bytes(range(256)) * 3)
        file.comment = comment
    return buffer.getvalue()


def of(data: bytes) -> str:
    return forms.of_zip(data[-forms.TAIL :], len(data))


def test_a_zip_is_whole_only_with_its_last_byte() -> None:
    for data in (archive(), archive(b"PK\x05\x06 and more")):
        assert forms.is_zip(data)
        assert of(data) == "whole"
        assert {of(data[:size]) for size in range(4, len(data))} == {"torn"}
        assert of(data + b"\0") == "torn"


def test_a_zip64_is_whole_with_its_locator() -> None:
    """Files of more than 4 GiB, which torch writes so: the same records, made by hand."""
    body = b"PK\x03\x04" + b"d" * 500
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 100, 404)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(body), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    data = body + end64 + locator + end
    assert of(data) == "whole"
    assert of(body + end64 + end) == "torn"


def test_a_safetensors_file_says_how_long_it_is() -> None:
    header = json.dumps(
        {"__metadata__": {"a": "b"}, "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    ).encode()
    size = forms.HEAD + len(header) + 16
    assert forms.safetensors_header(struct.pack("<Q", len(header))) == len(header)
    assert forms.of_safetensors(header, size) == "whole"
    assert forms.of_safetensors(header, size - 1) == "torn"
    assert forms.of_safetensors(b"[" * 10_000, size) == "unknown"
    assert forms.safetensors_header(b"\xff" * 8) is None


def test_a_dcp_metadata_names_its_shards() -> None:
    text = b"\x80\x04\x8c\x0d__0_0.distcp\x94..__1_0.distcp__1_0.distcp"
    assert forms.shards_of(text) == {"__0_0.distcp", "__1_0.distcp"}
