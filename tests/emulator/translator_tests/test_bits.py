# SPDX-License-Identifier: Apache-2.0
"""Logic, shifts, bit fields, permutations: the ISA's pseudo-code, bit by bit."""
import unittest

from translator.ptx_types import BITS

from .harness import Case, Kernels, generator, integers, signed

TABLES = (0x00, 0x80, 0x96, 0xE8, 0xCA, 0xD8, 0x3C, 0xFF, 0x1B)
#: "prmt" of the ISA: bytes picked for each value of the two selector bits, most significant first
PERMUTE = {
    "f4e": ("3210", "4321", "5432", "6543"),
    "b4e": ("5670", "6701", "7012", "0123"),
    "rc8": ("0000", "1111", "2222", "3333"),
    "ecl": ("3210", "3211", "3222", "3333"),
    "ecr": ("0000", "1110", "2210", "3210"),
    "rc16": ("1010", "3232", "1010", "3232"),
}
INSERT = {"b32": 32, "b64": 64}
EXTRACT = {"u32": 32, "s32": 32, "u64": 64, "s64": 64}


def cases():
    for name in ("and", "or", "xor"):
        for t in ("b16", "b32", "b64", "pred"):
            yield Case(f"{name}_{t}", f"{name}.{t} %d, %a, %b;", (t, t), (t,))
    for t in ("b16", "b32", "b64"):
        yield Case(f"not_{t}", f"not.{t} %d, %a;", (t,), (t,))
        yield Case(f"cnot_{t}", f"cnot.{t} %d, %a;", (t,), (t,))
        yield Case(f"shl_{t}", f"shl.{t} %d, %a, %b;", (t, "b32"), (t,))
        for kind in ("u", "s"):
            s = kind + t[1:]
            yield Case(f"shr_{s}", f"shr.{s} %d, %a, %b;", (t, "b32"), (t,))
    yield Case("not_pred", "not.pred %d, %a;", ("pred",), ("pred",))
    for table in TABLES:
        yield Case(f"lop3_{table}", f"lop3.b32 %d, %a, %b, %c, {hex(table)};", ("b32",) * 3, ("b32",))
    for side in "lr":
        for mode in ("clamp", "wrap"):
            yield Case(f"shf_{side}_{mode}", f"shf.{side}.{mode}.b32 %d, %a, %b, %c;", ("b32",) * 3, ("b32",))
    for t in INSERT:
        yield Case(f"bfi_{t}", f"bfi.{t} %d, %a, %b, %c, %f;", (t, t, "b32", "b32"), (t,))
        yield Case(f"clz_{t}", f"clz.{t} %d, %a;", (t,), ("b32",))
        yield Case(f"popc_{t}", f"popc.{t} %d, %a;", (t,), ("b32",))
        yield Case(f"brev_{t}", f"brev.{t} %d, %a;", (t,), (t,))
    for t in EXTRACT:
        yield Case(f"bfe_{t}", f"bfe.{t} %d, %a, %b, %c;", (t, "b32", "b32"), (t,))
        yield Case(f"bfind_{t}", f"bfind.{t} %d, %a; bfind.shiftamt.{t} %e, %a;", (t,), ("b32", "b32"))
    for mode in ("clamp", "wrap"):
        yield Case(f"bmsk_{mode}", f"bmsk.{mode}.b32 %d, %a, %b;", ("b32",) * 2, ("b32",))
    yield Case("fns", "fns.b32 %d, %a, %b, %c;", ("b32",) * 3, ("b32",))
    yield Case("prmt", "prmt.b32 %d, %a, %b, %c;", ("b32",) * 3, ("b32",))
    for mode in PERMUTE:
        yield Case(f"prmt_{mode}", f"prmt.b32.{mode} %d, %a, %b, %c;", ("b32",) * 3, ("b32",))


def bit(value, position):
    return value >> position & 1


def insert(a, b, position, length, width):
    """bfi of the ISA."""
    position, length, result = position & 0xFF, length & 0xFF, b
    for i in range(length):
        if position + i <= width - 1:
            result = result & ~(1 << position + i) | bit(a, i) << position + i
    return result


def extract(a, position, length, width, is_signed):
    """bfe of the ISA."""
    position, length = position & 0xFF, length & 0xFF
    fill = 0 if not is_signed or length == 0 else bit(a, min(position + length - 1, width - 1))
    result = 0
    for i in range(width):
        inside = i < length and position + i <= width - 1
        result |= (bit(a, position + i) if inside else fill) << i
    return result


def mask_of_bits(a, b, clamp):
    """bmsk of the ISA."""
    mask = (1 << 32) - 1
    a1, b1 = a & 31, b & 31
    mask0, total = mask << a1 & mask, a1 + b1
    mask1 = mask << total & mask
    overflow = total >= 32
    if clamp and a >= 32:
        overflow, mask0 = True, 0
    if overflow or (clamp and b >= 32):
        mask1 = 0
    return mask0 & ~mask1


def nth_set(mask, base, n):
    """fns of the ISA."""
    if n == 0:
        return base if bit(mask, base) else 0xFFFFFFFF
    position, count, step = base, abs(n) - 1, 1 if n > 0 else -1
    while 0 <= position < 32:
        if bit(mask, position):
            if count == 0:
                return position
            count -= 1
        position += step
    return 0xFFFFFFFF


def pick(a, b, selectors):
    """prmt: bytes by number, most significant first; numbers of 8 and more ask for the sign."""
    both = (b << 32 | a).to_bytes(8, "little")
    result = 0
    for s in selectors:
        byte = both[s & 7]
        result = result << 8 | ((0xFF if byte & 0x80 else 0) if s & 8 else byte)
    return result


class BitsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernels = Kernels(list(cases()))

    def check(self, name, columns, expected):
        results = self.kernels.run(name, *columns)
        rows = zip(*results) if isinstance(results, tuple) else results
        for inputs, result in zip(zip(*columns), rows):
            self.assertEqual(result, expected(*inputs), f"{name} of {[hex(x) for x in inputs]}")

    def words(self, name, count, bits=32):
        rng = generator(name)
        return [integers(rng, bits) for _ in range(count)]

    def amounts(self, name, width):
        """Shift amounts and field positions: in range, at its end, far beyond."""
        rng = generator(name + " amounts")
        edges = [0, 1, width - 1, width, width + 1, 2 * width, 255, 256, 1 << 31, (1 << 32) - 1]
        return [rng.choice(edges) if rng.random() < 0.3 else rng.randrange(width + 2) for _ in range(224)]

    def test_logic(self):
        models = {"and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y}
        for name, model in models.items():
            for t in ("b16", "b32", "b64"):
                self.check(f"{name}_{t}", self.words(name + t, 2, BITS[t]), model)
            self.check(f"{name}_pred", [[0, 0, 1, 1], [0, 1, 0, 1]], model)
        for t in ("b16", "b32", "b64"):
            self.check(f"not_{t}", self.words("not" + t, 1, BITS[t]), lambda x, t=t: x ^ ((1 << BITS[t]) - 1))
            self.check(f"cnot_{t}", self.words("cnot" + t, 1, BITS[t]), lambda x: int(x == 0))
        self.check("not_pred", [[0, 1]], lambda x: 1 - x)

    def test_lop3(self):
        for table in TABLES:

            def model(a, b, c, table=table):
                return sum(bit(table, bit(a, i) * 4 + bit(b, i) * 2 + bit(c, i)) << i for i in range(32))

            self.check(f"lop3_{table}", self.words(f"lop3 {table}", 3), model)

    def test_shifts(self):
        for t in ("b16", "b32", "b64"):
            w = BITS[t]
            columns = [self.words("shl" + t, 1, w)[0], self.amounts("shl" + t, w)]
            self.check(f"shl_{t}", columns, lambda x, n, w=w: 0 if n >= w else (x << n) & ((1 << w) - 1))
            self.check(f"shr_u{w}", columns, lambda x, n: x >> min(n, 64))
            self.check(f"shr_s{w}", columns, lambda x, n, w=w: (signed(x, w) >> min(n, w)) & ((1 << w) - 1))

    def test_funnel_shift(self):
        for side in "lr":
            for mode in ("clamp", "wrap"):

                def model(a, b, n, side=side, mode=mode):
                    n = min(n, 32) if mode == "clamp" else n & 31
                    pair = b << 32 | a
                    return (pair << n) >> 32 & 0xFFFFFFFF if side == "l" else pair >> n & 0xFFFFFFFF

                name = f"shf_{side}_{mode}"
                self.check(name, [*self.words(name, 2), self.amounts(name, 32)], model)

    def test_fields(self):
        for t, w in INSERT.items():
            name = f"bfi_{t}"
            columns = [*self.words(name, 2, w), self.amounts(name, w), self.amounts(name + "l", w)]
            self.check(name, columns, lambda a, b, p, n, w=w: insert(a, b, p, n, w))
        for t, w in EXTRACT.items():
            name = f"bfe_{t}"
            columns = [*self.words(name, 1, w), self.amounts(name, w), self.amounts(name + "l", w)]
            self.check(name, columns, lambda a, p, n, w=w, s=t[0] == "s": extract(a, p, n, w, s))
        for mode in ("clamp", "wrap"):
            columns = [self.amounts(mode, 32), self.amounts(mode + "l", 32)]
            self.check(f"bmsk_{mode}", columns, lambda a, b, c=mode == "clamp": mask_of_bits(a, b, c))

    def test_counts(self):
        for t, w in INSERT.items():
            self.check(f"clz_{t}", self.words("clz" + t, 1, w), lambda x, w=w: w - x.bit_length())
            self.check(f"popc_{t}", self.words("popc" + t, 1, w), lambda x: bin(x).count("1"))
            self.check(f"brev_{t}", self.words("brev" + t, 1, w), lambda x, w=w: int(f"{x:0{w}b}"[::-1], 2))
        for t, w in EXTRACT.items():

            def model(x, w=w, t=t):
                if t[0] == "s" and bit(x, w - 1):
                    x ^= (1 << w) - 1
                top = x.bit_length() - 1
                return (0xFFFFFFFF, 0xFFFFFFFF) if top < 0 else (top, w - 1 - top)

            self.check(f"bfind_{t}", self.words("bfind" + t, 1, w), model)

    def test_nth_set_bit(self):
        rng = generator("fns")
        masks = integers(rng, 32)
        bases = [rng.randrange(32) for _ in masks]
        offsets = [rng.randrange(-6, 7) & 0xFFFFFFFF for _ in masks]
        self.check("fns", [masks, bases, offsets], lambda m, b, n: nth_set(m, b, signed(n, 32)))

    def test_permute(self):
        columns = self.words("prmt", 3)
        self.check("prmt", columns, lambda a, b, c: pick(a, b, [c >> s & 15 for s in (12, 8, 4, 0)]))
        for mode, rows in PERMUTE.items():
            self.check(f"prmt_{mode}", columns, lambda a, b, c, rows=rows: pick(a, b, map(int, rows[c & 3])))


if __name__ == "__main__":
    unittest.main()
