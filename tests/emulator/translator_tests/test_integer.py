# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic, carries and packed small integers against Python's integers."""
import unittest

from translator.ptx_types import BITS

from .harness import Case, Kernels, generator, integers, signed

INTS = ("u16", "s16", "u32", "s32", "u64", "s64")
WIDE = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}


def number(pattern, t):
    return signed(pattern, BITS[t]) if t[0] == "s" else pattern


def truncated_quotient(x, y):
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def divide(x, y):
    return -1 if y == 0 else truncated_quotient(x, y)


def remainder(x, y):
    return x if y == 0 else x - y * truncated_quotient(x, y)


def clamp(value, low, high):
    return min(max(value, low), high)


#: name -> (types, number of inputs, result from numbers and the width)
SAME_WIDTH = {
    "add": (INTS, 2, lambda x, y, bits: x + y),
    "sub": (INTS, 2, lambda x, y, bits: x - y),
    "mul.lo": (INTS, 2, lambda x, y, bits: x * y),
    "mul.hi": (INTS, 2, lambda x, y, bits: x * y >> bits),
    "mad.lo": (INTS, 3, lambda x, y, z, bits: x * y + z),
    "mad.hi": (INTS, 3, lambda x, y, z, bits: (x * y >> bits) + z),
    "div": (INTS, 2, lambda x, y, bits: divide(x, y)),
    "rem": (INTS, 2, lambda x, y, bits: remainder(x, y)),
    "min": (INTS, 2, lambda x, y, bits: min(x, y)),
    "max": (INTS, 2, lambda x, y, bits: max(x, y)),
    "sad": (INTS, 3, lambda x, y, z, bits: z + abs(x - y)),
    "neg": (("s16", "s32", "s64"), 1, lambda x, bits: -x),
    "abs": (("s16", "s32", "s64"), 1, lambda x, bits: abs(x)),
    "min.relu": (("s32",), 2, lambda x, y, bits: max(min(x, y), 0)),
    "max.relu": (("s32",), 2, lambda x, y, bits: max(x, y, 0)),
    "add.sat": (("s32",), 2, lambda x, y, bits: clamp(x + y, -(1 << 31), (1 << 31) - 1)),
    "sub.sat": (("s32",), 2, lambda x, y, bits: clamp(x - y, -(1 << 31), (1 << 31) - 1)),
    "mad.hi.sat": (("s32",), 3, lambda x, y, z, bits: clamp((x * y >> 32) + z, -(1 << 31), (1 << 31) - 1)),
    "mul24.lo": (("u32", "s32"), 2, None),
    "mul24.hi": (("u32", "s32"), 2, None),
    "mad24.lo": (("u32", "s32"), 3, None),
}
LETTERS = "abc"


def identifier(op, t):
    return f"{op}_{t}".replace(".", "_")


def split_word(word, width, is_signed):
    parts = [word >> s & ((1 << width) - 1) for s in range(0, 32, width)]
    return [signed(p, width) for p in parts] if is_signed else parts


VIDEO = {
    "vabsdiff": lambda x, y: abs(x - y),
    "vadd": lambda x, y: x + y,
    "vsub": lambda x, y: x - y,
    "vavrg": lambda x, y: (x + y + 1) >> 1,
    "vmin": min,
    "vmax": max,
}


def cases():
    for op, (types, count, _) in SAME_WIDTH.items():
        for t in types:
            operands = ", ".join(f"%{x}" for x in LETTERS[:count])
            yield Case(identifier(op, t), f"{op}.{t} %d, {operands};", (t,) * count, (t,))
    for t, wide in WIDE.items():
        yield Case(f"mul_wide_{t}", f"mul.wide.{t} %d, %a, %b;", (t, t), (wide,))
        yield Case(f"mad_wide_{t}", f"mad.wide.{t} %d, %a, %b, %c;", (t, t, wide), (wide,))
    for t in ("u32", "s32", "u64", "s64"):
        yield Case(f"add_cc_{t}", f"add.cc.{t} %d, %a, %b; addc.{t} %e, %c, %c;", (t, t, t), (t, t))
        yield Case(f"sub_cc_{t}", f"sub.cc.{t} %d, %a, %b; subc.{t} %e, %c, %a;", (t, t, t), (t, t))
        chain = f"add.cc.{t} %d, %a, %b; addc.cc.{t} %d, %c, %b; addc.{t} %e, %a, %c;"
        yield Case(f"chain_{t}", chain, (t, t, t), (t, t))
        product = f"mad.lo.cc.{t} %d, %a, %b, %c; madc.hi.{t} %e, %a, %b, %c;"
        yield Case(f"mad_cc_{t}", product, (t, t, t), (t, t))
    for a in ("u32", "s32"):
        for b in ("u32", "s32"):
            yield Case(f"dp4a_{a}_{b}", f"dp4a.{a}.{b} %d, %a, %b, %c;", ("b32",) * 3, ("b32",))
            for half in ("lo", "hi"):
                yield Case(f"dp2a_{half}_{a}_{b}", f"dp2a.{half}.{a}.{b} %d, %a, %b, %c;", ("b32",) * 3, ("b32",))
    for name in VIDEO:
        for lanes in (2, 4):
            for add in ("", ".add"):
                text = f"{name}{lanes}.u32.u32.u32{add} %d, %a, %b, %c;"
                yield Case(f"{name}{lanes}{add[1:]}", text, ("b32",) * 3, ("b32",))


class IntegerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernels = Kernels(list(cases()))

    def columns(self, name, types):
        rng = generator(name)
        columns = [integers(rng, BITS[t]) for t in types]
        columns[1:] = [c if rng.random() < 0.95 else columns[0] for c in columns[1:]]
        return columns

    def check(self, name, types, expected):
        """expected(patterns...) -> pattern or tuple of patterns, before reduction to the width."""
        columns = self.columns(name, types)
        out = self.kernels.cases[name].outputs
        results = self.kernels.run(name, *columns)
        results = list(zip(*results)) if len(out) > 1 else [(r,) for r in results]
        for inputs, result in zip(zip(*columns), results):
            wanted = expected(*inputs)
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
            wanted = tuple(w & ((1 << BITS[t]) - 1) for w, t in zip(wanted, out))
            self.assertEqual(result, wanted, f"{name} of {[hex(x) for x in inputs]}")

    def test_same_width(self):
        for op, (types, count, model) in SAME_WIDTH.items():
            if model is None:
                continue
            for t in types:
                with self.subTest(op=op, type=t):
                    self.check(
                        identifier(op, t),
                        (t,) * count,
                        lambda *p, t=t, model=model: model(*(number(x, t) for x in p), BITS[t]),
                    )

    def test_24_bits(self):
        for t in ("u32", "s32"):
            low = (lambda p: signed(p & 0xFFFFFF, 24)) if t == "s32" else (lambda p: p & 0xFFFFFF)
            self.check(f"mul24_lo_{t}", (t, t), lambda x, y, low=low: low(x) * low(y))
            self.check(f"mul24_hi_{t}", (t, t), lambda x, y, low=low: low(x) * low(y) >> 16)
            self.check(f"mad24_lo_{t}", (t, t, t), lambda x, y, z, low=low: low(x) * low(y) + z)

    def test_wide(self):
        for t, wide in WIDE.items():
            self.check(f"mul_wide_{t}", (t, t), lambda x, y, t=t: number(x, t) * number(y, t))
            self.check(f"mad_wide_{t}", (t, t, wide), lambda x, y, z, t=t: number(x, t) * number(y, t) + z)

    def test_carry(self):
        for t in ("u32", "s32", "u64", "s64"):
            bits, name = BITS[t], t
            self.check(f"add_cc_{t}", (t,) * 3, lambda x, y, z, b=bits: (x + y, z + z + (x + y >> b)))
            self.check(f"sub_cc_{t}", (t,) * 3, lambda x, y, z: (x - y, z - x - (y > x)))

            def chain(x, y, z, b=bits):
                second = z + y + (x + y >> b)
                return second, x + z + (second >> b)

            self.check(f"chain_{t}", (t,) * 3, chain)

            def product(x, y, z, b=bits, t=name):
                p, mask = number(x, t) * number(y, t), (1 << b) - 1
                low = (p & mask) + z
                return low, (p >> b) + z + (low >> b)

            self.check(f"mad_cc_{t}", (t,) * 3, product)

    def test_dot_products(self):
        for a in ("u32", "s32"):
            for b in ("u32", "s32"):

                def dot4(x, y, z, a=a, b=b):
                    return z + sum(p * q for p, q in zip(split_word(x, 8, a == "s32"), split_word(y, 8, b == "s32")))

                self.check(f"dp4a_{a}_{b}", ("b32",) * 3, dot4)
                for half in ("lo", "hi"):

                    def dot2(x, y, z, a=a, b=b, start=2 * (half == "hi")):
                        bytes_of_y = split_word(y, 8, b == "s32")[start : start + 2]
                        return z + sum(p * q for p, q in zip(split_word(x, 16, a == "s32"), bytes_of_y))

                    self.check(f"dp2a_{half}_{a}_{b}", ("b32",) * 3, dot2)

    def test_video(self):
        for name, model in VIDEO.items():
            for lanes in (2, 4):
                width = 32 // lanes

                def each(x, y, width=width, model=model):
                    return [model(p, q) for p, q in zip(split_word(x, width, False), split_word(y, width, False))]

                def packed(x, y, z, width=width, each=each):
                    return sum((v & ((1 << width) - 1)) << width * i for i, v in enumerate(each(x, y)))

                self.check(f"{name}{lanes}", ("b32",) * 3, packed)
                self.check(f"{name}{lanes}add", ("b32",) * 3, lambda x, y, z, each=each: z + sum(each(x, y)))


if __name__ == "__main__":
    unittest.main()
