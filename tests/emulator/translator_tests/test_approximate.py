# SPDX-License-Identifier: Apache-2.0
"""Approximate functions: within the error the ISA allows, in the plain model and with EMU_APPROX_ERROR."""
import math
import struct
import unittest

from . import softfloat as sf
from .harness import Case, Kernels, generator

F32 = sf.FORMATS["f32"]
FUNCTIONS = ("ex2", "lg2", "sin", "cos", "tanh", "rsqrt", "sqrt", "rcp")


def cases():
    for name in FUNCTIONS:
        yield Case(name, f"{name}.approx.f32 %d, %a;", ("f32",), ("f32",))
        if name != "tanh":
            yield Case(f"{name}_ftz", f"{name}.approx.ftz.f32 %d, %a;", ("f32",), ("f32",))
    for kind in ("approx", "full"):
        yield Case(f"div_{kind}", f"div.{kind}.f32 %d, %a, %b;", ("f32", "f32"), ("f32",))
    yield Case("rcp_f64", "rcp.approx.ftz.f64 %d, %a;", ("f64",), ("f64",))
    yield Case("rsqrt_f64", "rsqrt.approx.f64 %d, %a; rsqrt.approx.ftz.f64 %e, %a;", ("f64",), ("f64", "f64"))
    for t, register in (("f16", "b16"), ("bf16", "b16"), ("bf16x2", "b32")):
        yield Case(f"tanh_{t}", f"tanh.approx.{t} %d, %a;", (register,), (register,))
    yield Case("ex2_f16", "ex2.approx.f16 %d, %a;", ("b16",), ("b16",))
    yield Case("ex2_bf16", "ex2.approx.ftz.bf16 %d, %a;", ("b16",), ("b16",))


def value(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def pattern(number):
    return struct.unpack("<I", struct.pack("<f", number))[0]


def double(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


#: bounds of the ISA on the rounded result: (function, ulps, relative error, absolute error, range of inputs)
BOUNDS = [
    ("ex2", lambda x: 2.0**x, 2, 0, 0, (-100, 100)),
    ("lg2", math.log2, 0, 0, 2.0**-22, (0.501, 1.999)),
    ("lg2", math.log2, 0, 2.0**-22, 0, (2, 1e6)),
    ("sin", math.sin, 0, 0, 2.0**-20.5, (-2 * math.pi, 2 * math.pi)),
    ("cos", math.cos, 0, 0, 2.0**-20.5, (-2 * math.pi, 2 * math.pi)),
    ("sin", math.sin, 0, 0, 2.0**-14.7, (2 * math.pi + 0.1, 100 * math.pi)),
    ("cos", math.cos, 0, 0, 2.0**-14.7, (2 * math.pi + 0.1, 100 * math.pi)),
    ("tanh", math.tanh, 0, 2.0**-11, 0, (-8, 8)),
    ("rsqrt", lambda x: x**-0.5, 0, 2.0**-22.9, 0, (1e-6, 1e6)),
    ("sqrt", math.sqrt, 0, 2.0**-23, 0, (1e-6, 1e6)),
    ("rcp", lambda x: 1 / x, 1, 0, 0, (0.01, 1e6)),
]
#: of the half precision functions: (case, format, function, relative error, absolute error)
HALF_BOUNDS = [
    ("tanh_f16", "f16", math.tanh, 0, 2.0**-10.987),
    ("ex2_f16", "f16", lambda x: 2.0**x, 2.0**-9.9, 0),
    ("ex2_bf16", "bf16", lambda x: 2.0**x, 2.0**-7, 0),
    ("tanh_bf16", "bf16", math.tanh, 0, 2.0**-8),
]


def ulps_apart(bits, wanted):
    """Distance in units in the last place from the correctly rounded value; both of one sign."""
    return abs(bits - pattern(wanted))


class ApproximateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.exact = Kernels(list(cases()))
        cls.worst = Kernels(list(cases()), ["-DEMU_APPROX_ERROR"])

    def test_error_bounds(self):
        for name, function, ulps, relative, absolute, (low, high) in BOUNDS:
            rng = generator(name)
            inputs = [pattern(rng.uniform(low, high)) for _ in range(512)]
            for kernels, moved in ((self.exact, False), (self.worst, True)):
                largest = 0
                for bits, result in zip(inputs, kernels.run(name, inputs)):
                    wanted = function(value(bits))
                    if ulps:
                        error, allowed = ulps_apart(result, wanted), ulps
                        plain = 1  # the host's function is within 0.51 ulp
                    else:
                        error, allowed = abs(value(result) - wanted), abs(wanted) * relative + absolute
                        plain = abs(wanted) * 2.0**-23.9 + 2.0**-149
                    self.assertLessEqual(error, allowed if moved else plain, f"{name}({value(bits)})")
                    largest = max(largest, error / allowed)
                if moved:
                    self.assertGreater(largest, 0.7, f"{name}: the error is not used")

    def test_division(self):
        rng = generator("div")
        a, b = ([pattern(rng.uniform(-100, 100)) for _ in range(256)] for _ in range(2))
        for kernels, allowed in ((self.exact, 0), (self.worst, 2)):
            for kind in ("approx", "full"):
                results = kernels.run(f"div_{kind}", a, b)
                errors = [ulps_apart(r, value(x) / value(y)) for x, y, r in zip(a, b, results)]
                self.assertEqual(max(errors), allowed)
        large = pattern(2.0**127)
        approx = self.exact.run("div_approx", [large, large | 1 << 31, F32.infinity, large], [large, large, large, 0])
        self.assertEqual([approx[0], approx[1]], [0, 1 << 31])
        self.assertTrue(sf.is_nan(approx[2], F32))
        self.assertEqual(approx[3], F32.infinity)
        self.assertEqual(self.exact.run("div_full", [large], [large]), [pattern(1.0)])

    def test_special_values(self):
        infinity, negative, one = F32.infinity, 1 << 31, pattern(1.0)
        table = {
            "ex2": [(0, one), (negative | infinity, 0), (infinity, infinity), (1, one)],
            "lg2": [(one, 0), (0, negative | infinity), (infinity, infinity), (1, pattern(-149.0))],
            "rsqrt": [(0, infinity), (negative, negative | infinity), (infinity, 0)],
            "sqrt": [(0, 0), (negative, negative), (infinity, infinity)],
            "rcp": [(0, infinity), (negative, negative | infinity), (infinity, 0)],
            "tanh": [(0, 0), (infinity, one), (negative | infinity, negative | one)],
            "sin": [(0, 0), (negative, negative)],
            "cos": [(0, one)],
            "lg2_ftz": [(1, negative | infinity)],
            "rsqrt_ftz": [(1, infinity)],
            "rcp_ftz": [(1, infinity), (pattern(2.0**127), 0)],
            "sqrt_ftz": [(1, 0)],
            "sin_ftz": [(1, 0)],
            "ex2_ftz": [(pattern(-130.0), 0)],
        }
        for name, rows in table.items():
            for kernels in (self.exact, self.worst):
                if kernels is self.worst and name in ("ex2", "lg2", "cos", "tanh"):
                    rows = [r for r in rows if value(r[0]) in (0, math.inf, -math.inf) and name != "cos"]
                    rows = [r for r in rows if value(r[1]) in (0, math.inf, -math.inf)]
                if rows:
                    self.assertEqual(kernels.run(name, [r[0] for r in rows]), [r[1] for r in rows], name)
        for name in ("lg2", "rsqrt", "sqrt"):
            self.assertTrue(sf.is_nan(self.exact.run(name, [negative | one])[0], F32), name)

    def test_f64(self):
        rng = generator("f64")
        inputs = [struct.unpack("<Q", struct.pack("<d", rng.uniform(0.1, 1e9)))[0] for _ in range(64)]
        for bits, result in zip(inputs, self.exact.run("rcp_f64", inputs)):
            self.assertEqual(result & 0xFFFFFFFF, 0)
            self.assertLess(abs(double(result) * double(bits) - 1), 2.0**-18)
        full, gross = self.exact.run("rsqrt_f64", inputs)
        for bits, fine, coarse in zip(inputs, full, gross):
            self.assertLess(abs(double(fine) ** 2 * double(bits) - 1), 2.0**-50)
            self.assertEqual(coarse & 0xFFFFFFFF, 0)
            self.assertLess(abs(double(coarse) ** 2 * double(bits) - 1), 2.0**-17)

        special = [0x7FF0000000000001, 0xFFF0 << 48, 0xBFF0 << 48, 1, 1 << 63, 0x7FF0 << 48]  # NaN -Inf -1 +subnormal -0 Inf
        nan, infinity = 0x7FFFFFFF00000000, 0x7FF0 << 48
        minus = 1 << 63
        self.assertEqual(self.exact.run("rcp_f64", special), [nan, minus, 0xBFF0 << 48, infinity, minus | infinity, 0])
        self.assertEqual(self.exact.run("rsqrt_f64", special)[1], [nan, nan, nan, infinity, minus | infinity, 0])

    def test_halves(self):
        for name, t, function, relative, absolute in HALF_BOUNDS:
            form = sf.FORMATS[t]
            inputs = [b for b in sf.patterns(generator(name), form, 600) if not sf.is_nan(b, form)]
            inputs = [b for b in inputs if abs(float(sf.decode(b, form))) < 10 and not sf.is_subnormal(b, form)]
            for kernels, moved in ((self.exact, False), (self.worst, True)):
                largest = 0
                for bits, result in zip(inputs, kernels.run(name, inputs)):
                    wanted = function(float(sf.decode(bits, form)))
                    error = abs(float(sf.decode(result, form)) - wanted)
                    allowed = abs(wanted) * relative + absolute
                    plain = abs(wanted) * 2.0 ** -(form.mantissa_bits + 1) + 2.0**-25
                    self.assertLessEqual(error, allowed if moved else plain, f"{name} {bits:#x}")
                    largest = max(largest, error / allowed)
                if moved:
                    self.assertGreater(largest, 0.7, f"{name}: the error is not used")
        one = 0x3F80
        self.assertEqual(self.exact.run("tanh_bf16x2", [one << 16, 0x7F80FF80]), [0x3F43 << 16, one << 16 | 0xBF80])
        # ex2.approx.ftz.bf16 flushes subnormals, ex2.approx.f16 takes them
        corners = [0xFF80, 0x8001, 0x8000, 0, 1, 0x7F80, 0xC300]
        self.assertEqual(self.exact.run("ex2_bf16", corners), [0, one, one, one, one, 0x7F80, 0])
        self.assertEqual(self.exact.run("ex2_f16", [0xFC00, 0x8000, 0, 1, 0x7C00]), [0, 0x3C00, 0x3C00, 0x3C00, 0x7C00])


if __name__ == "__main__":
    unittest.main()
