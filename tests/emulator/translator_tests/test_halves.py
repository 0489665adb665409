# SPDX-License-Identifier: Apache-2.0
"""f16, bf16 and packed pairs against exact rationals."""
import unittest

from . import softfloat as sf
from .harness import Case, Kernels, generator

TYPES = ("f16", "bf16")
OPERATIONS = {"add": 2, "sub": 2, "mul": 2, "fma": 3, "min": 2, "max": 2, "min.NaN": 2, "max.NaN": 2}
VARIANTS = {"fma.rn.relu": 3, "add.sat": 2, "fma.rn.sat": 3}


def text(op, t, count):
    rounding = ".rn" if op == "fma" else ""
    return f"{op}{rounding}.{t} %d, " + ", ".join(f"%{x}" for x in "abc"[:count]) + ";"


def identifier(op, t):
    return f"{op}_{t}".replace(".", "_")


def cases():
    for element in TYPES:
        for t, register in ((element, "b16"), (element + "x2", "b32")):
            for op, count in OPERATIONS.items():
                yield Case(identifier(op, t), text(op, t, count), (register,) * count, (register,))
            for op in ("neg", "abs"):
                yield Case(identifier(op, t), f"{op}.{t} %d, %a;", (register,), (register,))
            yield Case(identifier("fma_relu", t), f"fma.rn.relu.{t} %d, %a, %b, %c;", (register,) * 3, (register,))
    for t, register in (("f16", "b16"), ("f16x2", "b32")):
        yield Case(identifier("add_sat", t), f"add.sat.{t} %d, %a, %b;", (register,) * 2, (register,))
        yield Case(identifier("mul_ftz", t), f"mul.ftz.{t} %d, %a, %b;", (register,) * 2, (register,))


class HalvesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernels = Kernels(list(cases()))

    def columns(self, name, form, count):
        columns = list(sf.pairs(generator(name), form, 300))
        if count == 3:
            columns.append(sf.patterns(generator(name + "3"), form, len(columns[0])))
            for i in range(0, len(columns[0]), 5):  # sums that cancel
                columns[2][i] = sf.negate(sf.mul(columns[0][i], columns[1][i], form), form)
        return columns[:count]

    def check(self, op, element, count, model):
        """Single floats, then the same values as both halves of pairs (the upper half one value further)."""
        form = sf.FORMATS[element]
        columns = self.columns(op + element, form, count)
        wanted = [model(*row) for row in zip(*columns)]

        def same(result, expected):
            return result == expected or (sf.is_nan(result, form) and sf.is_nan(expected, form))

        def describe(i):
            return f"{op} {element} of {[hex(c[i]) for c in columns]}, expected {hex(wanted[i])}"

        for i, result in enumerate(self.kernels.run(identifier(op, element), *columns)):
            self.assertTrue(same(result, wanted[i]), describe(i) + f", got {hex(result)}")
        pairs = [[low | high << 16 for low, high in zip(c, c[1:] + c[:1])] for c in columns]
        for i, result in enumerate(self.kernels.run(identifier(op, element + "x2"), *pairs)):
            following = (i + 1) % len(wanted)
            self.assertTrue(same(result & 0xFFFF, wanted[i]), "lower half: " + describe(i))
            self.assertTrue(same(result >> 16, wanted[following]), "upper half: " + describe(following))

    def test_arithmetic(self):
        for t in TYPES:
            form = sf.FORMATS[t]
            self.check("add", t, 2, lambda a, b, f=form: sf.add(a, b, f))
            self.check("sub", t, 2, lambda a, b, f=form: sf.add(a, sf.negate(b, f), f))
            self.check("mul", t, 2, lambda a, b, f=form: sf.mul(a, b, f))
            self.check("fma", t, 3, lambda a, b, c, f=form: sf.fma(a, b, c, f))

    def test_minimum_maximum(self):
        for t in TYPES:
            form = sf.FORMATS[t]
            for op in ("min", "max"):
                for nan in ("", ".NaN"):
                    self.check(
                        op + nan, t, 2, lambda a, b, f=form, n=bool(nan), x=op == "max": sf.minimum(a, b, f, n, x)
                    )

    def test_signs(self):
        for t in TYPES:
            self.check("neg", t, 1, lambda a: a ^ 0x8000)
            self.check("abs", t, 1, lambda a: a & 0x7FFF)

    def test_relu_saturation_flush(self):
        for t in TYPES:
            form = sf.FORMATS[t]

            def relu(bits, f=form):
                return bits if sf.is_nan(bits, f) else 0 if sf.is_negative(bits, f) else bits

            self.check("fma_relu", t, 3, lambda a, b, c, f=form, r=relu: r(sf.fma(a, b, c, f)))
        f16 = sf.FORMATS["f16"]

        def clamp(bits):
            return 0 if sf.is_nan(bits, f16) or sf.is_negative(bits, f16) else min(bits, 0x3C00)

        self.check("add_sat", "f16", 2, lambda a, b: clamp(sf.add(a, b, f16)))
        flush = lambda x: sf.flush(x, f16)
        self.check("mul_ftz", "f16", 2, lambda a, b: flush(sf.mul(flush(a), flush(b), f16)))


if __name__ == "__main__":
    unittest.main()
