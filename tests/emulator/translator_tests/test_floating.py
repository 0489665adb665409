# SPDX-License-Identifier: Apache-2.0
"""f32 and f64 arithmetic in all rounding modes against exact rationals (softfloat.py), with .ftz, .sat, NaN, Inf."""
import unittest

from . import softfloat as sf
from .harness import Case, Kernels, generator

MODES = ("rn", "rz", "rm", "rp")
FTZ_MODES = ("", ".ftz")
ONE = {t: sf.FORMATS[t].bias << sf.FORMATS[t].mantissa_bits for t in ("f32", "f64")}
CLASSES = ("finite", "infinite", "number", "notanumber", "normal", "subnormal")


def ftz_forms(t):
    return FTZ_MODES if t == "f32" else ("",)


def identifier(*parts):
    return "_".join(p.replace(".", "") for p in parts if p)


def cases():
    # a case with .ftz runs in the CPU's flush mode; the mixed one flushes by code
    for t in ("f32", "f64"):
        for ftz in ftz_forms(t):
            for mode in MODES:
                for op in ("add", "sub", "mul", "div"):
                    yield Case(identifier(op, mode, ftz, t), f"{op}.{mode}{ftz}.{t} %d, %a, %b;", (t, t), (t,))
                yield Case(identifier("fma", mode, ftz, t), f"fma.{mode}{ftz}.{t} %d, %a, %b, %c;", (t,) * 3, (t,))
                yield Case(identifier("sqrt", mode, ftz, t), f"sqrt.{mode}{ftz}.{t} %d, %a;", (t,), (t,))
                yield Case(identifier("rcp", mode, ftz, t), f"rcp.{mode}{ftz}.{t} %d, %a;", (t,), (t,))
            for op in ("min", "max"):
                for nan in ("", ".NaN") if t == "f32" else ("",):
                    yield Case(identifier(op, ftz, nan, t), f"{op}{ftz}{nan}.{t} %d, %a, %b;", (t, t), (t,))
            for op in ("neg", "abs"):
                yield Case(identifier(op, ftz, t), f"{op}{ftz}.{t} %d, %a;", (t,), (t,))
        yield Case(f"copysign_{t}", f"copysign.{t} %d, %a, %b;", (t, t), (t,))
        for kind in CLASSES:
            yield Case(f"testp_{kind}_{t}", f"testp.{kind}.{t} %d, %a;", (t,), ("pred",))
    for op in ("add", "mul"):
        yield Case(f"{op}_sat_f32", f"{op}.sat.f32 %d, %a, %b;", ("f32", "f32"), ("f32",))
    yield Case("fma_sat_f32", "fma.rn.sat.f32 %d, %a, %b, %c;", ("f32",) * 3, ("f32",))
    yield Case("max_xorsign", "max.xorsign.abs.f32 %d, %a, %b;", ("f32", "f32"), ("f32",))
    yield Case("min_three", "min.f32 %d, %a, %b, %c;", ("f32",) * 3, ("f32",))
    mixed = "add.ftz.f32 %d, %a, %b; add.f32 %e, %a, %b;"
    yield Case("mixed_ftz", mixed, ("f32", "f32"), ("f32", "f32"))


class FloatTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernels = Kernels(list(cases()))

    def check(self, name, t, columns, expected):
        """Bit patterns must agree; any NaN stands for any other."""
        form = sf.FORMATS[t]
        for inputs, result in zip(zip(*columns), self.kernels.run(name, *columns)):
            wanted = expected(*inputs)
            if sf.is_nan(wanted, form) and sf.is_nan(result, form):
                continue
            smallest_normal = 1 << form.mantissa_bits
            if "ftz" in name and wanted & ~form.sign_bit == smallest_normal and result == wanted & form.sign_bit:
                continue  # flushed before rounding: see translator/flush_mode.py
            self.assertEqual(result, wanted, f"{name} of {[hex(x) for x in inputs]}: {hex(result)}, not {hex(wanted)}")

    def columns(self, name, t, count):
        rng, form = generator(name), sf.FORMATS[t]
        if count == 1:
            return [sf.specials(form) + sf.patterns(rng, form, 200)]
        columns = list(sf.pairs(rng, form, 200))
        if count == 3:
            columns.append(sf.patterns(rng, form, len(columns[0])))
            # products that cancel with the sum: where fused and separate rounding differ
            for i in range(0, len(columns[0]), 7):
                columns[2][i] = sf.negate(sf.mul(columns[0][i], columns[1][i], form), form)
        return columns

    def test_rounded_arithmetic(self):
        models = {
            "add": lambda a, b, f, m: sf.add(a, b, f, m),
            "sub": lambda a, b, f, m: sf.add(a, sf.negate(b, f), f, m),
            "mul": lambda a, b, f, m: sf.mul(a, b, f, m),
            "div": lambda a, b, f, m: sf.div(a, b, f, m),
            "fma": lambda a, b, c, f, m: sf.fma(a, b, c, f, m),
            "sqrt": lambda a, f, m: sf.sqrt(a, f, m),
            "rcp": None,
        }
        counts = {"fma": 3, "sqrt": 1, "rcp": 1}
        for t in ("f32", "f64"):
            form = sf.FORMATS[t]
            models["rcp"] = lambda a, f, m, t=t: sf.div(ONE[t], a, f, m)
            for ftz in ftz_forms(t):
                flush = (lambda x, form=form: sf.flush(x, form)) if ftz else (lambda x: x)
                for op, model in models.items():
                    for mode in MODES:
                        name = identifier(op, mode, ftz, t)
                        with self.subTest(name):
                            self.check(
                                name,
                                t,
                                self.columns(name, t, counts.get(op, 2)),
                                lambda *v, fl=flush, f=form, m=mode, op=model: fl(op(*map(fl, v), f, m)),
                            )

    def test_minimum_maximum(self):
        for t in ("f32", "f64"):
            form = sf.FORMATS[t]
            for ftz in ftz_forms(t):
                flush = (lambda x, form=form: sf.flush(x, form)) if ftz else (lambda x: x)
                for op in ("min", "max"):
                    for nan in ("", ".NaN") if t == "f32" else ("",):

                        def model(a, b, fl=flush, f=form, n=bool(nan), largest=op == "max"):
                            return sf.minimum(fl(a), fl(b), f, n, largest)

                        name = identifier(op, ftz, nan, t)
                        self.check(name, t, self.columns(name, t, 2), model)
        f32 = sf.FORMATS["f32"]

        def xorsign(a, b):
            size = sf.minimum(a & 0x7FFFFFFF, b & 0x7FFFFFFF, f32, False, True)
            return size & 0x7FFFFFFF | (a ^ b) & 0x80000000

        self.check("max_xorsign", "f32", self.columns("xorsign", "f32", 2), xorsign)
        three = self.columns("three", "f32", 3)
        self.check("min_three", "f32", three, lambda a, b, c: sf.minimum(sf.minimum(a, b, f32), c, f32))

    def test_signs(self):
        for t in ("f32", "f64"):
            form = sf.FORMATS[t]
            sign = form.sign_bit
            for ftz in ftz_forms(t):
                flush = (lambda x, form=form: sf.flush(x, form)) if ftz else (lambda x: x)
                self.check(identifier("neg", ftz, t), t, self.columns("neg", t, 1), lambda a, fl=flush, s=sign: fl(a) ^ s)
                self.check(identifier("abs", ftz, t), t, self.columns("abs", t, 1), lambda a, fl=flush, s=sign: fl(a) & ~s)
            self.check(f"copysign_{t}", t, self.columns("cs", t, 2), lambda a, b, s=sign: a & s | b & ~s)

    def test_classes(self):
        for t in ("f32", "f64"):
            form = sf.FORMATS[t]
            models = {
                "notanumber": lambda x, f=form: sf.is_nan(x, f),
                "number": lambda x, f=form: not sf.is_nan(x, f),
                "infinite": lambda x, f=form: x & ~f.sign_bit == f.infinity,
                "finite": lambda x, f=form: x & ~f.sign_bit < f.infinity,
                "subnormal": lambda x, f=form: sf.is_subnormal(x, f),
                "normal": lambda x, f=form: 1 << f.mantissa_bits <= x & ~f.sign_bit < f.infinity,
            }
            values = self.columns("testp", t, 1)
            for kind, model in models.items():
                self.assertEqual(self.kernels.run(f"testp_{kind}_{t}", *values), [int(model(x)) for x in values[0]], kind)

    def test_saturation(self):
        form = sf.FORMATS["f32"]

        def clamp(bits):
            if sf.is_nan(bits, form) or sf.is_negative(bits, form):
                return 0
            return min(bits, ONE["f32"])

        self.check("add_sat_f32", "f32", self.columns("as", "f32", 2), lambda a, b: clamp(sf.add(a, b, form)))
        self.check("mul_sat_f32", "f32", self.columns("ms", "f32", 2), lambda a, b: clamp(sf.mul(a, b, form)))
        self.check("fma_sat_f32", "f32", self.columns("fs", "f32", 3), lambda a, b, c: clamp(sf.fma(a, b, c, form)))

    def test_kernel_with_and_without_flushing(self):
        form = sf.FORMATS["f32"]
        left, right = self.columns("mixed", "f32", 2)
        flushed, kept = self.kernels.run("mixed_ftz", left, right)
        for a, b, with_ftz, plain in zip(left, right, flushed, kept):
            wanted = sf.add(a, b, form), sf.flush(sf.add(sf.flush(a, form), sf.flush(b, form), form), form)
            if not sf.is_nan(wanted[0], form):
                self.assertEqual((plain, with_ftz), wanted)


if __name__ == "__main__":
    unittest.main()
