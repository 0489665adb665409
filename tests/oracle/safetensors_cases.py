#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files on which readers of safetensors may disagree, and what each of them makes of them.

The format's own reader (the package safetensors, written in Rust) and Python's json, which is told to refuse keys that
occur twice, are compared with dpmp's rules, which are written down here a second time (`rules`). Recorded for ctest:

    python3 -m venv env && env/bin/pip install safetensors
    env/bin/python tests/oracle/safetensors_cases.py --write     # tests/interop/safetensors_cases.txt
    env/bin/python tests/oracle/safetensors_cases.py --check     # is it current?
    env/bin/python tests/oracle/safetensors_cases.py --random 100000 --program build/ci/tests/fuzz/list_safetensors

The last one changes headers at random and compares with the program live. It is no part of ctest, because it needs a
package from PyPI.
"""
import argparse
import json
import math
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

import safetensors

TABLE = pathlib.Path(__file__).resolve().parents[1] / "interop" / "safetensors_cases.txt"
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
        "C64": 64, "F64": 64, "I64": 64, "U64": 64}


class Refused(Exception):
    pass


def need(holds, why):
    if not holds:
        raise Refused(why)


class NoWholeNumber:
    pass


def unique(pairs):
    need(len({key for key, _ in pairs}) == len(pairs), "duplicate key")
    return dict(pairs)


def constant(text):
    raise Refused(text)


def no_whole_number(text):
    need(math.isfinite(float(text)), "number out of range")
    return NoWholeNumber()


def whole_number(text):
    return NoWholeNumber() if text.startswith("-") else int(text)


def walk(value, depth=0):
    need(depth <= 16, "nesting depth")
    if isinstance(value, str):
        value.encode()  # a lone surrogate is no text
    for key in value if isinstance(value, dict) else ():
        key.encode()
        walk(value[key], depth + (1 if isinstance(value[key], (dict, list)) else 0))
    for item in value if isinstance(value, list) else ():
        walk(item, depth + (1 if isinstance(item, (dict, list)) else 0))


def header_of(data):
    need(len(data) >= 8, "short")
    (length,) = struct.unpack("<Q", data[:8])
    need(length <= 100_000_000 and length <= len(data) - 8, "length")
    return data[8:8 + length], data[8 + length:]


def size(value):
    need(type(value) is int and value < 2**63, "no whole number")
    return value


def entry(value, body):
    need(isinstance(value, dict) and {"dtype", "shape", "data_offsets"} <= value.keys(), "entry")
    need(isinstance(value["dtype"], str), "dtype")
    need(isinstance(value["shape"], list) and isinstance(value["data_offsets"], list), "lists")
    shape = [size(extent) for extent in value["shape"]]
    offsets = [size(offset) for offset in value["data_offsets"]]
    need(len(offsets) == 2 and offsets[0] <= offsets[1] <= len(body), "offsets")
    numel = 1
    for extent in shape:
        numel *= extent
        need(numel < 2**63, "overflow")
    if value["dtype"] in BITS:
        bits = numel * BITS[value["dtype"]]
        need(bits < 2**63 and bits % 8 == 0 and offsets[1] - offsets[0] == bits // 8, "size")
    return value["dtype"], shape, offsets


def rules(data):
    """The listing of what dpmp accepts, else None."""
    try:
        header, body = header_of(data)
        need(header.startswith(b"{") and header.rstrip(b" ").endswith(b"}") and b"\0" not in header, "braces")
        parsed = json.loads(header.decode(), object_pairs_hook=unique, parse_constant=constant, parse_int=whole_number,
                            parse_float=no_whole_number)
        walk(parsed, 1)
        metadata = parsed.pop("__metadata__", {})
        need(isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values()), "metadata")
        need("" not in parsed, "empty name")
        found = sorted((*e[2], name.encode(), e) for name, value in parsed.items() for e in [entry(value, body)])
        at = 0
        for begin, end, _, _ in found:
            need(begin == at, "hole or overlap")
            at = end
        need(at == len(body), "unclaimed bytes")
        return "".join(f"{name.hex()}:{dtype.encode().hex()}:{''.join(f'{n},' for n in shape)}:{begin}:{end};"
                       for begin, end, name, (dtype, shape, _) in found)
    except (Refused, ValueError, RecursionError):
        return None


def theirs(data):
    try:
        return safetensors.deserialize(bytes(data))
    except Exception:
        return None


def json_accepts(data):
    try:
        json.loads(header_of(data)[0].decode(), object_pairs_hook=unique, parse_constant=constant)
        return True
    except (Refused, ValueError, RecursionError):
        return False


def image(header, data=b"dddd", length=None):
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


E = '"dtype":"F32","shape":[1],"data_offsets":[0,4]'
GOOD = '{"a":{' + E + "}}"


def one(dtype='"F32"', shape="[1]", offsets="[0,4]", more=""):
    return '{"a":{"dtype":%s,"shape":%s,"data_offsets":%s%s}}' % (dtype, shape, offsets, more)


def cases():
    yield "plain", image(GOOD)
    yield "empty_file", b""
    yield "seven_bytes", b"\0" * 7
    yield "empty_header", image("", b"")
    yield "no_tensors", image("{}", b"")
    yield "no_tensors_but_data", image("{}", b"d")
    yield "only_metadata", image('{"__metadata__":{"k":"v"}}', b"")
    yield "length_max", image(GOOD, length=2**64 - 1)
    yield "length_sign", image(GOOD, length=2**63)
    yield "length_long", image(GOOD, length=len(GOOD) + 5)
    yield "length_into_data", image(GOOD, length=len(GOOD) + 1)
    yield "length_short", image(GOOD, length=len(GOOD) - 1)
    yield "length_zero", image(GOOD, length=0)
    for name, tail in {"space": " ", "spaces": " " * 13, "newline": "\n", "tab": "\t", "return": "\r", "nul": "\0",
                       "nul_and_object": '\0{"b":{}}', "object": "{}", "letter": "x", "comma": ",", "comment": "/**/",
                       "form_feed": "\x0c", "space_then_newline": " \n"}.items():
        yield "tail_" + name, image(GOOD + tail)
    for name, head in {"space": " ", "newline": "\n", "bom": "\ufeff", "nul": "\0"}.items():
        yield "head_" + name, image(head + GOOD)
    yield "list_on_top", image("[]", b"")
    yield "string_on_top", image('"a"', b"")
    yield "spaces_inside", image('{ "a" :\n{' + E.replace(",", "\t,\r\n") + "} }")
    yield "tensor_twice", image('{"a":{' + E + '},"a":{' + E + "}}")
    yield "tensor_twice_escaped", image('{"a":{' + E + '},"\\u0061":{' + E + "}}")
    yield "tensor_twice_others_between", image('{"a":{' + E + '},"b":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{' + E + "}}")
    yield "metadata_twice", image('{"__metadata__":{},"__metadata__":{},"a":{' + E + "}}")
    yield "metadata_key_twice", image('{"__metadata__":{"k":"1","k":"2"},"a":{' + E + "}}")
    for field in ('"dtype":"F32"', '"shape":[1]', '"shape":[2,2]', '"data_offsets":[0,4]'):
        yield "field_twice_" + field[1:6] + str(len(field)), image(one(more="," + field))
    yield "more_fields", image(one(more=',"more":{"k":[1,"x",null,true,{"l":{}}]}'))
    yield "more_fields_twice", image(one(more=',"more":1,"more":2'))
    yield "more_fields_twice_deep", image(one(more=',"more":[{"k":1,"k":1}]'))
    yield "more_fields_number_out_of_range", image(one(more=',"more":1e999'))
    yield "more_fields_nan", image(one(more=',"more":NaN'))
    yield "more_fields_infinity", image(one(more=',"more":-Infinity'))
    for depth in (13, 14, 15, 120, 130, 5000):
        yield f"depth_{depth}", image(one(more=',"more":' + "[" * depth + "]" * depth))
    yield "depth_open", image('{"a":' + "[" * 3000)
    yield "metadata_null", image('{"__metadata__":null,"a":{' + E + "}}")
    yield "metadata_list", image('{"__metadata__":[],"a":{' + E + "}}")
    yield "metadata_number", image('{"__metadata__":{"k":1},"a":{' + E + "}}")
    yield "metadata_nested", image('{"__metadata__":{"k":{"l":"m"}},"a":{' + E + "}}")
    yield "metadata_empty_key", image('{"__metadata__":{"":""},"a":{' + E + "}}")
    yield "metadata_as_tensor", image('{"__metadata__":{' + E + "}}")
    yield "name_empty", image('{"":{' + E + "}}")
    yield "name_space", image('{" ":{' + E + "}}")
    yield "name_nul_escape", image('{"\\u0000":{' + E + "}}")
    yield "name_unicode", image('{"\u00e9\U0001f600":{' + E + "}}")
    yield "name_surrogates", image('{"\\ud83d\\ude00":{' + E + "}}")
    yield "name_lone_surrogate", image('{"\\ud83d":{' + E + "}}")
    yield "name_lone_low_surrogate", image('{"\\ude00":{' + E + "}}")
    yield "name_latin1", image(b'{"\xe9":{' + E.encode() + b"}}")
    yield "name_overlong", image(b'{"\xc0\xaf":{' + E.encode() + b"}}")
    yield "name_surrogate_bytes", image(b'{"\xed\xa0\x80":{' + E.encode() + b"}}")
    yield "name_control", image('{"a\x01":{' + E + "}}")
    yield "name_newline", image('{"a\n":{' + E + "}}")
    yield "name_delete", image('{"a\x7f":{' + E + "}}")
    yield "name_bad_escape", image('{"\\x61":{' + E + "}}")
    yield "name_path", image('{"../../etc/passwd":{' + E + "}}")
    yield "entry_list", image('{"a":["F32",[1],[0,4]]}')
    yield "entry_null", image('{"a":null}')
    yield "entry_number", image('{"a":3}')
    yield "entry_empty", image('{"a":{}}')
    yield "no_dtype", image('{"a":{"shape":[1],"data_offsets":[0,4]}}')
    yield "no_shape", image('{"a":{"dtype":"F32","data_offsets":[0,4]}}')
    yield "no_offsets", image('{"a":{"dtype":"F32","shape":[1]}}')
    for name, dtype in {"object": '{"F32":null}', "number": "7", "null": "null", "list": '["F32"]', "lower": '"f32"',
                        "space": '"F32 "', "empty": '""', "escaped": '"\\u004632"'}.items():
        known = name in ("object", "number", "null", "list", "escaped")
        yield ("dtype_" if known else "unknown_dtype_") + name, image(one(dtype=dtype))
    yield "unknown_dtype", image(one(dtype='"Q5_NEW"', shape="[7]"))
    yield "unknown_dtype_hole", image(one(dtype='"Q5_NEW"', offsets="[0,3]"))
    for dtype, bits in BITS.items():
        yield "dtype_" + dtype, image(one(dtype=f'"{dtype}"', shape="[2,4]", offsets=f"[0,{bits}]"), b"d" * bits)
        yield "dtype_wrong_size_" + dtype, image(one(dtype=f'"{dtype}"', shape="[2,4]", offsets=f"[0,{bits + 1}]"), b"d" * (bits + 1))
    yield "half_byte", image(one(dtype='"F4"', shape="[7]", offsets="[0,3]"), b"ddd")
    yield "three_quarters", image(one(dtype='"F6_E2M3"', shape="[1]", offsets="[0,1]"), b"d")
    for name, shape in {"minus_zero": "[-0]", "minus": "[-1]", "fraction": "[1.0]", "exponent": "[1e0]", "string": '["1"]',
                        "null": "[null]", "true": "[true]", "nested": "[[1]]", "number": "1", "object": '{"0":1}',
                        "leading_zero": "[01]", "plus": "[+1]", "hex": "[0x1]", "2_63": "[9223372036854775808]",
                        "2_64": "[18446744073709551616]", "2_64_plus_1": "[18446744073709551617]", "trailing": "[1,]",
                        "empty": "[]", "six": "[1,1,1,1,1,1]", "overflow": "[4294967296,4294967296]",
                        "wraps_to_1": "[6148914691236517205,3,1]", "bytes_wrap": "[4611686018427387905]"}.items():
        yield "shape_" + name, image(one(shape=shape))
    yield "zero_after_overflow", image(one(shape="[4294967296,4294967296,0]", offsets="[0,0]"), b"")
    yield "zero_before_overflow", image(one(shape="[0,4294967296,4294967296]", offsets="[0,0]"), b"")
    for name, offsets in {"one": "[4]", "three": "[0,4,4]", "none": "[]", "minus": "[0,-4]", "fraction": "[0,4.0]",
                          "falling": "[4,0]", "late": "[1,5]", "beyond": "[0,8]", "short": "[0,3]", "object": '{"0":4}',
                          "huge": "[0,18446744073709551612]", "minus_zero": "[-0,4]", "string": '"04"'}.items():
        yield "offsets_" + name, image(one(offsets=offsets))
    yield "unclaimed_byte", image(GOOD, b"ddddd")
    yield "missing_byte", image(GOOD, b"ddd")

    def two(a, b, shape="[2]", data=8):
        return image('{"a":{"dtype":"BF16","shape":%s,"data_offsets":%s},"b":{"dtype":"BF16","shape":%s,"data_offsets":%s}}'
                     % (shape, a, shape, b), b"d" * data)

    yield "two_in_order", two("[0,4]", "[4,8]")
    yield "two_turned_round", two("[4,8]", "[0,4]")
    yield "two_overlap", two("[0,4]", "[2,6]")
    yield "two_same_bytes", two("[0,4]", "[0,4]", data=4)
    yield "two_hole", two("[0,4]", "[5,9]", data=9)
    yield "two_empty_same_place", two("[0,0]", "[0,0]", shape="[0]", data=0)
    yield "empty_in_the_middle", image('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                                       '"b":{"dtype":"F32","shape":[0,9],"data_offsets":[4,4]},'
                                       '"c":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', b"d" * 8)
    yield "empty_elsewhere", image('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                                   '"b":{"dtype":"F32","shape":[0],"data_offsets":[2,2]}}')
    yield "scalar", image(one(shape="[]"))


def lines():
    yield "# Written by tests/oracle/safetensors_cases.py with safetensors " + safetensors.__version__ + "."
    yield "# name, verdict of safetensors, of a JSON parser that refuses equal keys, of dpmp, what dpmp lists (names and dtypes"
    yield "# in hex), the file in hex"
    for name, data in cases():
        listing = rules(data)
        yield " ".join([name, "refuse" if theirs(data) is None else "accept", "accept" if json_accepts(data) else "refuse",
                        "refuse" if listing is None else "accept", listing or "-", data.hex() or "-"])


TOKENS = ['"a"', '"b"', '"dtype"', '"shape"', '"data_offsets"', '"__metadata__"', '"F32"', '"BF16"', '"F4"', '"Q"', "{", "}",
          "[", "]", ",", ":", "0", "1", "2", "4", "8", "-0", "1.0", "1e0", "null", "true", '""', " ", "\n", "\0", '"\\u0061"',
          "9223372036854775808", '"k":1,', "\\ud800", "\u00e9"]


def mutated(rng, good, bad):
    header, body = header_of(rng.choice(good)) if rng.random() < 0.8 else (rng.choice(bad)[8:], b"dddd")
    text = header.decode("latin-1")
    for _ in range(rng.choice((1, 1, 1, 1, 2, 4))):
        at, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        end = min(end, at + rng.choice((0, 0, 1, 2, 5, 30)))
        kind = rng.random()
        if kind < 0.45:
            text = text[:at] + rng.choice(TOKENS) + text[end:]
        elif kind < 0.6:
            text = text[:at] + text[end:]
        elif kind < 0.75:
            text = text[:at] + text[at:end] * 2 + text[end:]
        elif kind < 0.9:
            words = rng.sample(TOKENS, 2)
            text = text.replace(words[0], words[1], 1)
        else:
            text = text[:at] + chr(rng.randrange(256)) + text[at + 1:]
    header = text.encode("latin-1", "replace")
    if rng.random() < 0.05:
        body += b"d" * rng.randrange(5)
    return image(header, body, None if rng.random() < 0.95 else len(header) + rng.randint(-3, 3) & 2**64 - 1)


def compare(program, count, seed):
    rng = random.Random(seed)
    good = [data for name, data in cases() if rules(data) is not None and "depth" not in name]
    bad = [data for name, data in cases() if rules(data) is None and "depth" not in name]
    print("seed", seed)
    tallies, wrong, batch = {}, 0, 2000
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, str(k)) for k in range(batch)]
        for first in range(0, count, batch):
            files = [mutated(rng, good, bad) for _ in range(min(batch, count - first))]
            for path, data in zip(paths, files):
                pathlib.Path(path).write_bytes(data)
            said = subprocess.run([program], input="\n".join(paths[:len(files)]) + "\n", capture_output=True, text=True,
                                  errors="replace", check=True).stdout.splitlines()
            for data, answer in zip(files, said, strict=True):
                ours, listing = answer.startswith("accept"), rules(data)
                their = theirs(data)
                strange = listing is not None and any(bytes.fromhex(part.split(":")[1]).decode() not in BITS for part in listing.split(";")[:-1])
                key = (("dpmp accepts" if ours else "dpmp refuses"), ("safetensors accepts" if their is not None else
                       "safetensors refuses"), "unknown dtype" if strange else "")
                tallies[key] = tallies.get(key, 0) + 1
                same = ours == (listing is not None) and (not ours or answer[7:] == listing)
                if ours and their is not None:
                    names = {name.encode().hex(): tensor for name, tensor in their}
                    parts = [part.split(":") for part in listing.split(";")[:-1]]
                    same = same and {p[0] for p in parts} == set(names) and all(
                        names[p[0]]["dtype"].encode().hex() == p[1] and "".join(f"{n}," for n in names[p[0]]["shape"]) == p[2]
                        and len(names[p[0]]["data"]) == int(p[4]) - int(p[3]) for p in parts)
                if not same or (ours and their is None and not strange):
                    wrong += 1
                    print("DISAGREE", answer[:200], "| rules:", listing, "| safetensors:", their is not None, "|", data[8:300])
    for key, n in sorted(tallies.items()):
        print(f"{n:8d} ", *key)
    print("disagreements:", wrong)
    return wrong == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table")
    parser.add_argument("--check", action="store_true", help="compare the table with what the readers of today say")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="compare N changed files with the program")
    parser.add_argument("--program", help="list_safetensors, built from tests/fuzz")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    text = "\n".join(lines()) + "\n"
    good = True
    if options.write:
        TABLE.write_text(text)
    if options.check:
        good = TABLE.read_text() == text
        print("current" if good else "the table is not what the readers of today say")
    if options.random:
        good = compare(options.program, options.random, options.seed) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
