# SPDX-License-Identifier: Apache-2.0
"""cvt and comparisons: saturation, NaN, rounding modes, against exact rationals and Python's integers."""
import math
import unittest
from fractions import Fraction

from translator.ptx_types import BITS

from . import softfloat as sf
from .harness import Case, Kernels, generator, integers, signed

MODES = ("rn", "rz", "rm", "rp")
INTS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
FLOATS = ("f16", "bf16", "f32", "f64")
NARROWING = (("f32", "f64"), ("f16", "f32"), ("bf16", "f32"), ("f16", "f64"), ("bf16", "f64"))
ORDERED = ("eq", "ne", "lt", "le", "gt", "ge")
UNORDERED = tuple(x + "u" for x in ORDERED)
COMPARED_INTS = {"u32": ORDERED + ("lo", "ls", "hi", "hs"), "s32": ORDERED, "u16": ORDERED, "s64": ORDERED}


def cases():
    for source in INTS:
        for result in INTS:
            for sat in ("", ".sat"):
                yield Case(f"i_{result}_{source}{sat[1:]}", f"cvt{sat}.{result}.{source} %d, %a;", (source,), (result,))
        for result in FLOATS:
            for mode in MODES:
                yield Case(f"if_{mode}_{result}_{source}", f"cvt.{mode}.{result}.{source} %d, %a;", (source,), (result,))
    for source in FLOATS:
        for result in INTS:
            for mode in MODES:
                yield Case(f"fi_{mode}_{result}_{source}", f"cvt.{mode}i.{result}.{source} %d, %a;", (source,), (result,))
    for result, source in NARROWING:
        for mode in MODES:
            yield Case(f"ff_{mode}_{result}_{source}", f"cvt.{mode}.{result}.{source} %d, %a;", (source,), (result,))
    for result, source in (("f64", "f32"), ("f32", "f16"), ("f32", "bf16"), ("f64", "f16")):
        yield Case(f"wide_{result}_{source}", f"cvt.{result}.{source} %d, %a;", (source,), (result,))
    for mode in MODES:
        for t in ("f32", "f64", "f16"):
            yield Case(f"integral_{mode}_{t}", f"cvt.{mode}i.{t}.{t} %d, %a;", (t,), (t,))
    for t in ("f16", "bf16"):
        yield Case(f"pack_{t}", f"cvt.rn.{t}x2.f32 %d, %a, %b;", ("f32", "f32"), ("b32",))
        yield Case(f"pack_relu_{t}", f"cvt.rn.relu.{t}x2.f32 %d, %a, %b;", ("f32", "f32"), ("b32",))
    for mode in ("rna", "rn", "rz"):
        yield Case(f"tf32_{mode}", f"cvt.{mode}.tf32.f32 %d, %a;", ("f32",), ("b32",))
    yield Case("saturated", "cvt.sat.f32.f32 %d, %a;", ("f32",), ("f32",))
    yield Case("flushed", "cvt.ftz.f64.f32 %d, %a; cvt.ftz.sat.f32.f32 %e, %a;", ("f32",), ("f64", "f32"))
    for t in FLOATS:
        for c in ORDERED + UNORDERED + ("num", "nan"):
            yield Case(f"p_{c}_{t}", f"setp.{c}.{t} %d, %a, %b;", (t, t), ("pred",))
    for t, comparisons in COMPARED_INTS.items():
        for c in comparisons:
            yield Case(f"p_{c}_{t}", f"setp.{c}.{t} %d, %a, %b;", (t, t), ("pred",))
    for combine in ("and", "or", "xor"):
        text = f"setp.lt.{combine}.f32 %d|%e, %a, %b, !%c;"
        yield Case(f"p_{combine}", text, ("f32", "f32", "pred"), ("pred", "pred"))
    yield Case("p_ftz", "setp.gt.ftz.f32 %d, %a, %b;", ("f32", "f32"), ("pred",))
    for result in ("f32", "u32", "s32"):
        yield Case(f"set_{result}", f"set.geu.{result}.f32 %d, %a, %b;", ("f32", "f32"), (result,))
    yield Case("set_pair", "set.lt.f16x2.f16x2 %d, %a, %b;", ("b32", "b32"), ("b32",))
    yield Case("selp", "selp.f32 %d, %a, %b, %c;", ("f32", "f32", "pred"), ("f32",))
    yield Case("slct", "slct.b32.f32 %d, %a, %b, %c;", ("b32", "b32", "f32"), ("b32",))
    yield Case("slct_int", "slct.b32.s32 %d, %a, %b, %c;", ("b32",) * 3, ("b32",))


def integral(value, mode):
    """A Fraction rounded to an integer."""
    return {"rn": round, "rz": math.trunc, "rm": math.floor, "rp": math.ceil}[mode](value)


def bounds(t):
    bits = BITS[t]
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if t[0] == "s" else (0, (1 << bits) - 1)


def pattern(value, t):
    return value & ((1 << BITS[t]) - 1)


class ConvertTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernels = Kernels(list(cases()))

    def check(self, name, columns, expected, form=None):
        results = self.kernels.run(name, *columns)
        rows = zip(*results) if isinstance(results, tuple) else results
        for inputs, result in zip(zip(*columns), rows):
            wanted = expected(*inputs)
            if form and sf.is_nan(wanted, form) and sf.is_nan(result, form):
                continue
            self.assertEqual(result, wanted, f"{name} of {[hex(x) for x in inputs]}")

    def floats(self, t, count=150):
        form = sf.FORMATS[t]
        values = sf.specials(form) + sf.patterns(generator("cvt" + t), form, count)
        for v in (Fraction(1, 2), Fraction(3, 2), Fraction(5, 2), Fraction(255, 2), 127, 128, 255, 256, 32767, 65535):
            values += [sf.encode(Fraction(v), form), sf.encode(-Fraction(v), form)]
        for power in (31, 32, 63, 64):
            values += [sf.encode(Fraction(2) ** power, form), sf.encode(-(Fraction(2) ** power), form)]
        return values

    def ints(self, t):
        values = integers(generator("cvt" + t), BITS[t], 120)
        return values + [x for k in range(BITS[t]) for x in (1 << k, (1 << BITS[t]) - 1 >> k)]

    def test_between_integers(self):
        for source in INTS:
            number = (lambda x, s=source: signed(x, BITS[s])) if source[0] == "s" else (lambda x: x)
            for result in INTS:
                low, high = bounds(result)
                self.check(f"i_{result}_{source}", [self.ints(source)], lambda x, n=number, r=result: pattern(n(x), r))
                self.check(
                    f"i_{result}_{source}sat",
                    [self.ints(source)],
                    lambda x, n=number, r=result, lo=low, hi=high: pattern(min(max(n(x), lo), hi), r),
                )

    def test_integer_to_float(self):
        for source in INTS:
            number = (lambda x, s=source: signed(x, BITS[s])) if source[0] == "s" else (lambda x: x)
            for result in FLOATS:
                form = sf.FORMATS[result]
                for mode in MODES:
                    self.check(
                        f"if_{mode}_{result}_{source}",
                        [self.ints(source)],
                        lambda x, n=number, f=form, m=mode: sf.encode(Fraction(n(x)), f, m),
                    )

    def test_float_to_integer(self):
        for source in FLOATS:
            form, values = sf.FORMATS[source], self.floats(source)
            for result in INTS:
                low, high = bounds(result)
                # "cvt": NaN gives 0, except from f64 or to 64 bits, where only the top bit is set
                nan = 1 << BITS[result] - 1 if source == "f64" or BITS[result] == 64 else 0
                for mode in MODES:

                    def model(bits, f=form, lo=low, hi=high, n=nan, m=mode, r=result):
                        value = sf.decode(bits, f)
                        if value is sf.NAN:
                            return n
                        if value in (math.inf, -math.inf):
                            return pattern(hi if value > 0 else lo, r)
                        return pattern(min(max(integral(value, m), lo), hi), r)

                    self.check(f"fi_{mode}_{result}_{source}", [values], model)

    def test_between_floats(self):
        def narrowed(bits, source, result, mode):
            value = sf.decode(bits, source)
            return sf.encode(value, result, mode, sf.is_negative(bits, source))

        for result, source in NARROWING:
            f, g = sf.FORMATS[source], sf.FORMATS[result]
            # halfway cases of the result's format
            rng = generator("halfway" + source + result)
            values = self.floats(source, 300)
            for bits in sf.patterns(rng, g, 150):
                value = sf.decode(bits, g)
                above = sf.decode(bits + 1, g) if bits & ~g.sign_bit < g.infinity - 1 else None
                if above is not None and value is not sf.NAN:
                    values.append(sf.encode((value + above) / 2, f))
            for mode in MODES:
                self.check(
                    f"ff_{mode}_{result}_{source}", [values], lambda x, f=f, g=g, m=mode: narrowed(x, f, g, m), g
                )
        for result, source in (("f64", "f32"), ("f32", "f16"), ("f32", "bf16"), ("f64", "f16")):
            f, g = sf.FORMATS[source], sf.FORMATS[result]
            self.check(f"wide_{result}_{source}", [self.floats(source)], lambda x, f=f, g=g: narrowed(x, f, g, "rn"), g)
        for t in ("f32", "f64", "f16"):
            form = sf.FORMATS[t]
            for mode in MODES:

                def model(bits, f=form, m=mode):
                    value = sf.decode(bits, f)
                    if isinstance(value, Fraction):
                        value = Fraction(integral(value, m))
                    return sf.encode(value, f, "rn", sf.is_negative(bits, f))

                self.check(f"integral_{mode}_{t}", [self.floats(t)], model, form)

    def test_packing(self):
        f32 = sf.FORMATS["f32"]
        values = self.floats("f32")
        others = values[::-1]
        for t in ("f16", "bf16"):
            form = sf.FORMATS[t]

            def half(bits, relu, form=form):
                if sf.is_nan(bits, f32):
                    return 0x7FFF
                if relu and sf.is_negative(bits, f32):
                    return 0
                return sf.encode(sf.decode(bits, f32), form, "rn", sf.is_negative(bits, f32))

            for name, relu in ((f"pack_{t}", False), (f"pack_relu_{t}", True)):
                self.check(name, [values, others], lambda a, b, r=relu, h=half: h(a, r) << 16 | h(b, r))

    def test_tf32(self):
        f32, tf32 = sf.FORMATS["f32"], sf.Format(8, 10)
        values = self.floats("f32", 300) + [0x3F801000, 0x3F803000, 0xBF801000]

        def model(bits, mode):
            if sf.is_nan(bits, f32):
                return 0x7FFFFFFF
            if mode == "rna":
                value, down = sf.decode(bits, f32), bits & ~0x1FFF
                if value in (math.inf, -math.inf):
                    return bits
                up = down + 0x2000
                return up if (bits & 0x1FFF) >= 0x1000 else down
            return sf.encode(sf.decode(bits, f32), tf32, mode, sf.is_negative(bits, f32)) << 13

        for mode in ("rna", "rn", "rz"):
            self.check(f"tf32_{mode}", [values], lambda x, m=mode: model(x, m))

    def test_saturation_and_flushing(self):
        f32, f64 = sf.FORMATS["f32"], sf.FORMATS["f64"]

        def clamp(bits):
            return 0 if sf.is_nan(bits, f32) or sf.is_negative(bits, f32) else min(bits, 0x3F800000)

        values = self.floats("f32")
        self.check("saturated", [values], clamp)
        numbers = [v for v in values if not sf.is_nan(v, f32)]

        def flushed(bits):
            bits = sf.flush(bits, f32)
            return sf.encode(sf.decode(bits, f32), f64, "rn", sf.is_negative(bits, f32)), clamp(bits)

        self.check("flushed", [numbers], flushed)


    @staticmethod
    def holds(comparison, x, y):
        name = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}.get(comparison, comparison)[:2]
        return {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}[name]

    def float_holds(self, comparison, a, b, form):
        nan = sf.is_nan(a, form) or sf.is_nan(b, form)
        if comparison in ("num", "nan"):
            return nan == (comparison == "nan")
        if nan:
            return comparison in UNORDERED
        return self.holds(comparison, sf.decode(a, form), sf.decode(b, form))

    def test_setp(self):
        for t in FLOATS:
            form = sf.FORMATS[t]
            columns = sf.pairs(generator("setp" + t), form, 60)
            for c in ORDERED + UNORDERED + ("num", "nan"):
                self.check(f"p_{c}_{t}", columns, lambda a, b, c=c, f=form: int(self.float_holds(c, a, b, f)))
        for t, comparisons in COMPARED_INTS.items():
            number = (lambda x, t=t: signed(x, BITS[t])) if t[0] == "s" else (lambda x: x)
            rng = generator("setp" + t)
            left, right = integers(rng, BITS[t]), integers(rng, BITS[t])
            right[::3] = left[::3]
            for c in comparisons:
                self.check(f"p_{c}_{t}", [left, right], lambda a, b, c=c, n=number: int(self.holds(c, n(a), n(b))))

    def test_combined_and_set(self):
        form = sf.FORMATS["f32"]
        left, right = sf.pairs(generator("combined"), form, 60)
        other = [generator(str(i)).randrange(2) for i in range(len(left))]
        operators = {"and": lambda p, q: p & q, "or": lambda p, q: p | q, "xor": lambda p, q: p ^ q}
        for name, operator in operators.items():

            def model(a, b, c, operator=operator):
                first = int(self.float_holds("lt", a, b, form))
                return operator(first, 1 - c), operator(1 - first, 1 - c)

            self.check(f"p_{name}", [left, right, other], model)

        def flushed(a, b):
            return int(self.float_holds("gt", sf.flush(a, form), sf.flush(b, form), form))

        self.check("p_ftz", [left, right], flushed)
        for result, true in (("f32", 0x3F800000), ("u32", 0xFFFFFFFF), ("s32", 0xFFFFFFFF)):
            wanted = lambda a, b, true=true: true if self.float_holds("geu", a, b, form) else 0
            self.check(f"set_{result}", [left, right], wanted)
        half = sf.FORMATS["f16"]
        rng = generator("pairs")
        left, right = ([sf.patterns(rng, half, 2) for _ in range(200)] for _ in range(2))

        def pair(a, b):
            parts = [0x3C00 if self.float_holds("lt", a >> s & 0xFFFF, b >> s & 0xFFFF, half) else 0 for s in (0, 16)]
            return parts[0] | parts[1] << 16

        self.check("set_pair", [[x | y << 16 for x, y in left], [x | y << 16 for x, y in right]], pair)

    def test_selection(self):
        f32 = sf.FORMATS["f32"]
        columns = [sf.patterns(generator(x), f32, 128) for x in "ab"]
        self.check("selp", [*columns, [i & 1 for i in range(128)]], lambda a, b, p: a if p else b)
        selectors = (sf.specials(f32) * 5)[:128]
        self.check("slct", [*columns, selectors], lambda a, b, c: a if self.float_holds("ge", c, 0, f32) else b)
        words = integers(generator("slct"), 32, 128)
        self.check("slct_int", [*columns, words], lambda a, b, c: a if signed(c, 32) >= 0 else b)


if __name__ == "__main__":
    unittest.main()
