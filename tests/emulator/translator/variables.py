# SPDX-License-Identifier: Apache-2.0
"""Variable declarations and their initial data ("State Spaces, Types, and Variables" in the PTX ISA)."""
import re
import struct
from dataclasses import dataclass, field

from .errors import TranslationError
from .lexer import split_list
from .ptx_types import BITS

_DECLARATION = re.compile(
    r"(?P<linkage>(?:\.(?:visible|extern|weak|common)\s+)*)\.(?P<space>global|const|shared|local)\s+"
    r"(?P<attribute>\.attribute\s*\([^)]*\)\s*)?(?:\.align\s+(?P<align>\d+)\s+)?(?:\.v(?P<vector>\d)\s+)?\.(?P<type>\w+)\s+"
    r"(?P<name>[\w$%]+)(?P<dims>(?:\s*\[\s*\d*\s*\])*)\s*(?:=\s*(?P<data>.*))?$",
    re.S,
)
_FLOAT_LITERAL = re.compile(r"0[fF][0-9a-fA-F]{8}")
_DOUBLE_LITERAL = re.compile(r"0[dD][0-9a-fA-F]{16}")
_ADDRESS = re.compile(r"(?:generic\(\s*([\w$]+)\s*\)|([A-Za-z_$][\w$]*))\s*(?:\+\s*(\d+))?")


@dataclass
class Variable:
    """A variable of a module or a function.

    size: bytes, 0 for an array of open length (`dynamic` shared memory); data: initial bytes, may be shorter than size;
    relocations: (offset in data, symbol, addend) of 8-byte addresses to fill in when addresses are known.
    """

    name: str
    space: str
    type: str
    align: int
    size: int
    open_length: bool
    external: bool
    managed: bool
    data: bytes = b""
    relocations: list = field(default_factory=list)


def parse_variable(statement):
    """Variable of one declaration (without its semicolon)."""
    match = _DECLARATION.match(statement.strip())
    if not match:
        raise TranslationError("variable declaration: " + " ".join(statement.split())[:120])
    if match["type"] not in BITS:
        raise TranslationError(f"variable of type .{match['type']}")
    element = BITS[match["type"]] // 8
    count, open_length = int(match["vector"] or 1), False
    for dimension in re.findall(r"\[\s*(\d*)\s*\]", match["dims"]):
        if dimension == "":
            open_length, count = True, 0
        else:
            count *= int(dimension)
    variable = Variable(
        name=match["name"],
        space=match["space"],
        type=match["type"],
        align=int(match["align"] or element * int(match["vector"] or 1)),
        size=count * element,
        open_length=open_length,
        external=".extern" in match["linkage"],
        managed="managed" in (match["attribute"] or ""),
    )
    if match["data"]:
        variable.data, variable.relocations = _initial_data(match["data"].strip(), element)
    return variable


def _flat(items):
    for item in items:
        if item.startswith("{"):
            yield from _flat(split_list(item[1:-1]))
        else:
            yield item


def _initial_data(text, element):
    """(bytes, relocations) of an initializer whose elements have `element` bytes."""
    data, relocations = bytearray(), []
    for item in _flat(split_list(text[1:-1]) if text.startswith("{") else [text]):
        address = _ADDRESS.fullmatch(item)
        if _FLOAT_LITERAL.fullmatch(item):
            data += struct.pack("<I", int(item[2:], 16))
        elif _DOUBLE_LITERAL.fullmatch(item):
            data += struct.pack("<Q", int(item[2:], 16))
        elif address and element == 8:
            relocations.append((len(data), address[1] or address[2], int(address[3] or 0)))
            data += bytes(8)
        else:
            try:
                value = int(item.rstrip("U"), 0)
            except ValueError as error:
                raise TranslationError("initial value: " + item) from error
            data += (value & ((1 << 8 * element) - 1)).to_bytes(element, "little")
    return bytes(data), relocations
