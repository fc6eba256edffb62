# SPDX-License-Identifier: MIT
"""Libraries for JSON on the document of 100 models: why msgspec.

The values are those of our own export. orjson and `json` write plain dictionaries,
which somebody has to build first and which nobody validates; msgspec writes the typed
structs.
"""

from __future__ import annotations

import json

import msgspec
import orjson
from operations import SOME, filled
from rounds import Statement

from ometrics.export import _document
from ometrics.snapshot import Snapshot

PACKAGES = ("msgspec", "orjson")


def fast() -> dict[str, Statement]:
    """Nothing."""
    return {}


def slow() -> dict[str, Statement]:
    """Write the values compactly, write them indented, read them."""
    data = filled(SOME).export_json()
    whole = _document.struct_of(Snapshot)
    document = msgspec.json.decode(data, type=whole)
    plain = json.loads(data)
    names = {
        "Snapshot": Snapshot,
        "data": data,
        "document": document,
        "plain": plain,
        "json": json,
        "orjson": orjson,
        "encode": msgspec.json.Encoder().encode,
        "typed": msgspec.json.Decoder(whole).decode,
        "untyped": msgspec.json.Decoder().decode,
        "format": msgspec.json.format,
        "INDENT": orjson.OPT_INDENT_2,
    }
    codes = {
        "write: msgspec, typed structs": "encode(document)",
        "write: msgspec, dictionaries": "encode(plain)",
        "write: orjson, dictionaries": "orjson.dumps(plain)",
        "write: json, dictionaries": "json.dumps(plain)",
        "write indented: msgspec, typed structs": "format(encode(document), indent=2)",
        "write indented: orjson, dictionaries": "orjson.dumps(plain, option=INDENT)",
        "write indented: json, dictionaries": "json.dumps(plain, indent=2)",
        "read: msgspec into validated structs": "typed(data)",
        "read: msgspec into dictionaries": "untyped(data)",
        "read: orjson into dictionaries": "orjson.loads(data)",
        "read: json into dictionaries": "json.loads(data)",
        "read: Snapshot.from_json": "Snapshot.from_json(data)",
    }
    return {name: Statement(code, names) for name, code in codes.items()}
