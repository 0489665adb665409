# SPDX-License-Identifier: Apache-2.0
"""Moves, memory, control flow, calls, atomics and asynchronous copies: small kernels with known results."""

import unittest
from fractions import Fraction

from . import softfloat as sf
from .harness import Case, Kernels, generator, integers, signed

F32 = sf.FORMATS["f32"]
WORD = ("b32",)

#: operation -> (type, new value of the word in memory from the old one and the operand)
ATOMICS = {
    "add_u32": ("add.u32", lambda o, x: o + x),
    "min_s32": ("min.s32", lambda o, x: min(signed(o, 32), signed(x, 32))),
    "max_u32": ("max.u32", max),
    "and_b32": ("and.b32", lambda o, x: o & x),
    "or_b32": ("or.b32", lambda o, x: o | x),
    "xor_b32": ("xor.b32", lambda o, x: o ^ x),
    "exch_b32": ("exch.b32", lambda o, x: x),
    "inc_u32": ("inc.u32", lambda o, x: 0 if o >= x else o + 1),
    "dec_u32": ("dec.u32", lambda o, x: x if o == 0 or o > x else o - 1),
}

FUNCTION = """
.func (.param .b32 result) twice(.param .b32 x)
{
.reg .b32 %v;
.local .align 4 .b8 frame[8];
ld.param.u32 %v, [x];
st.local.u32 [frame+4], %v;
ld.local.u32 %v, [frame+4];
add.u32 %v, %v, %v;
st.param.u32 [result], %v;
ret;
}
.func (.param .b32 result) factorial(.param .b32 x)
{
.reg .b32 %n, %m, %r;
.reg .pred %p;
ld.param.u32 %n, [x];
setp.lt.u32 %p, %n, 2;
@%p bra DONE;
sub.u32 %m, %n, 1;
{
.param .b32 argument;
.param .b32 value;
st.param.b32 [argument], %m;
call.uni (value), factorial, (argument);
ld.param.b32 %r, [value];
}
mul.lo.u32 %n, %n, %r;
st.param.u32 [result], %n;
ret;
DONE:
st.param.u32 [result], 1;
ret;
}
.global .align 8 .u64 table[1] = {twice};
"""
CALL = "{ .param .b32 p; .param .b32 r; st.param.b32 [p], %a; call.uni (r), NAME, (p); ld.param.b32 %d, [r]; }"
INDIRECT = (
    ".reg .b64 %f1; mov.u64 %f1, twice; { .param .b32 p; .param .b32 r; st.param.b32 [p], %a; prototype_0:"
    " .callprototype (.param .b32 _) _ (.param .b32 _); call (r), %f1, (p), prototype_0; ld.param.b32 %d, [r]; }"
)

#: element type and operation of the vector forms
VECTOR_ATOMICS = (("f32", "add"), ("f16", "max.noftz"), ("bf16x2", "add.noftz"))


def cases():
    yield Case(
        "pack",
        "mov.b64 %d, {%a, %b}; { .reg .b32 %x, %y; mov.b64 {%x, %y}, %d; sub.u32 %e, %x, %y; }",
        WORD * 2,
        ("b64", "b32"),
    )
    yield Case(
        "unpack_halves",
        "{ .reg .b16 %x, %y; mov.b32 {%x, %y}, %a; mov.b32 %d, {%y, %x}; mov.b32 {_, %x}, %a; cvt.u32.u16 %e, %x; }",
        WORD,
        WORD * 2,
    )
    yield Case("literals", "mov.b32 %d, -0x10; mov.b64 %e, 0d3FF8000000000000;", WORD, ("b32", "b64"))
    yield Case("octal", "mov.b32 %d, 017; mov.b32 %e, 0f3FC00000;", WORD, WORD * 2)
    for t, width in (("s8", 1), ("u8", 1), ("s16", 2), ("u16", 2), ("s32", 4)):
        body = (
            f".shared .align 8 .b8 s_{t}[512]; .reg .b32 %o; .reg .b64 %x, %g; mul.lo.u32 %o, %tid, 16; mov.u32 %x1,"
            f" s_{t}; add.u32 %o, %o, %x1; st.shared.b{8 * width} [%o+8], %a; ld.shared.{t} %x, [%o+8];"
            f" cvt.{'s' if t[0] == 's' else 'u'}64.{t} %d, %x; cvt.u64.u32 %g, %o; cvta.shared.u64 %g, %g; ld.{t} %e,"
            " [%g+8];"
        )
        yield Case(f"load_{t}", ".reg .b32 %x1; " + body, ("b32",), ("b64", "b32"))
    vector = (
        ".local .align 16 .b8 l[32]; .reg .b32 %x, %y; .reg .b64 %g; st.local.v4.u32 [l+16], {%a, %b, 3, %a}; "
        "ld.local.v2.u32 {_, %x}, [l+16]; mov.u64 %g, l; cvta.local.u64 %g, %g; ld.u32 %y, [%g+24]; add.u32 %d, %x, %y;"
    )
    yield Case("vector_local", vector, WORD * 2, WORD)
    space = (
        ".shared .align 4 .b32 s; .reg .b64 %s1; .reg .pred %p, %q; mov.u64 %s1, s; cvta.shared.u64 %s1, %s1; "
        "isspacep.shared %p, %s1; isspacep.global %q, %s1; selp.u32 %d, 1, 0, %p; selp.u32 %e, 1, 0, %q;"
    )
    yield Case("spaces", space, WORD, WORD * 2)
    hints = (
        ".reg .b64 %pol; createpolicy.fractional.L2::evict_last.b64 %pol, 1.0; prefetch.global.L2 [%address];"
        " prefetchu.L1 [%address]; applypriority.global.L2::evict_normal [%address], 128; discard.global.L2 [%address],"
        " 128; ldu.global.b32 %d, [%address]; ld.global.nc.L1::no_allocate.L2::128B.b32 %d, [%address];"
    )
    yield Case("hints", hints, WORD, WORD)
    yield Case(
        "volatile", "st.volatile.global.u32 [%address], %a; ld.relaxed.gpu.global.u32 %d, [%address];", WORD, WORD
    )
    yield Case(
        "guarded",
        ".reg .pred %p; setp.gt.s32 %p, %a, 0; mov.u32 %d, 0; @%p mov.u32 %d, 1; @!%p mov.u32 %d, 2;",
        WORD,
        WORD,
    )
    loop = (
        ".reg .pred %p; mov.u32 %d, 0; AGAIN: add.u32 %d, %d, %a; sub.u32 %a, %a, 1; setp.gt.u32 %p, %a, 0; @%p bra"
        " AGAIN;"
    )
    yield Case("loop", loop, WORD, WORD)
    switch = (
        "TABLE: .branchtargets T0, T1, T2; brx.idx %a, TABLE; T0: mov.u32 %d, 10; bra.uni END; T1: mov.u32 %d, 20; bra"
        " END; T2: mov.u32 %d, 30; END: nanosleep.u32 10; griddepcontrol.wait;"
    )
    yield Case("switch", switch, WORD, WORD)
    scopes = (
        "mov.u32 %d, %a; { bra IN; IN: add.u32 %d, %d, 1; } { .reg .b32 %d2; bra IN; trap; IN: add.u32 %d, %d, 2; } bra"
        " OUT; brkpt; OUT:"
    )
    yield Case("same_label_twice", scopes, WORD, WORD)
    yield Case("early_exit", ".reg .pred %p; setp.eq.u32 %p, %a, 7; @%p exit; mov.u32 %d, 1;", WORD, WORD)
    yield Case("call_direct", CALL.replace("NAME", "twice"), WORD, WORD, FUNCTION)
    yield Case("call_recursive", CALL.replace("NAME", "factorial"), WORD, WORD, FUNCTION)
    yield Case("call_pointer", INDIRECT, WORD, WORD, FUNCTION)
    printf = (
        ".local .align 8 .b8 arguments[8]; .reg .b64 %g; st.local.u32 [arguments], %a; mov.u64 %g, arguments;"
        " cvta.local.u64 %g, %g; { .param .b64 f; .param .b64 v; .param .b32 r; st.param.b64 [f], 4096; st.param.b64"
        " [v], %g; call.uni (r), vprintf, (f, v); ld.param.b32 %d, [r]; }"
    )
    yield Case(
        "call_vprintf", printf, WORD, WORD, ".extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 v);"
    )
    heap = (
        ".reg .b64 %p; { .param .b64 n; .param .b64 r; st.param.b64 [n], 16; call.uni (r), malloc, (n); ld.param.b64"
        " %p, [r]; } st.u32 [%p+12], %a; ld.u32 %d, [%p+12]; { .param .b64 q; st.param.b64 [q], %p; call.uni free,"
        " (q); }"
    )
    declared = ".extern .func (.param .b64 r) malloc(.param .b64 n);\n.extern .func free(.param .b64 q);"
    yield Case("call_heap", heap, WORD, WORD, declared)
    for name, (op, _) in ATOMICS.items():
        yield Case(
            f"atom_{name}", f"atom.global.{op} %d, [%address], %b; ld.global.b32 %e, [%address];", WORD * 2, WORD * 2
        )
        yield Case(
            f"red_{name}", f"red.relaxed.gpu.global.{op} [%address], %b; ld.global.b32 %d, [%address];", WORD * 2, WORD
        )
    for t, operation in VECTOR_ATOMICS:
        count = 4 if t == "f16" else 2
        x, u = ("{" + ", ".join(f"%{letter}{i}" for i in range(count)) + "}" for letter in "xu")
        form = f"global.v{count}.{t}.{operation}"
        body = (
            f".reg .b{64 // count} %x<4>; .reg .b{64 // count} %u<4>; mov.b64 {x}, %b; atom.{form} {u}, [%address], {x}; "
            f"mov.b64 %d, {u}; red.relaxed.gpu.{form} [%address], {x}; ld.global.b64 %e, [%address];"
        )
        yield Case(f"atom_vector_{t}", body, ("b64",) * 2, ("b64",) * 2)
    yield Case(
        "atom_cas",
        "atom.acq_rel.gpu.global.cas.b32 %d, [%address], %b, %c; ld.global.b32 %e, [%address];",
        WORD * 3,
        WORD * 2,
    )
    yield Case(
        "atom_f32", "atom.global.add.f32 %d, [%address], %b; ld.global.f32 %e, [%address];", ("f32",) * 2, ("f32",) * 2
    )
    shared = ".shared .align 4 .b32 s; .reg .b64 %g; st.shared.f32 [s], %a; "
    yield Case(
        "atom_f32_shared",
        shared + "atom.shared.add.f32 %d, [s], %b; ld.shared.f32 %e, [s];",
        ("f32",) * 2,
        ("f32",) * 2,
    )
    generic = "mov.u64 %g, s; cvta.shared.u64 %g, %g; atom.add.f32 %d, [%g], %b; ld.shared.f32 %e, [s];"
    yield Case("atom_f32_generic", shared + generic, ("f32",) * 2, ("f32",) * 2)
    yield Case(
        "atom_f16x2",
        "atom.global.add.noftz.f16x2 %d, [%address], %b; ld.global.b32 %e, [%address];",
        WORD * 2,
        WORD * 2,
    )
    yield Case(
        "atom_f64", "atom.global.add.f64 %d, [%address], %b; ld.global.f64 %e, [%address];", ("f64",) * 2, ("f64",) * 2
    )
    for size in (4, 8, 16):
        mode = "cg" if size == 16 else "ca"
        body = (
            ".shared .align 16 .b8 s[512]; .reg .b32 %o; mul.lo.u32 %o, %tid, 16; mov.u32 %x, s; add.u32 %o, %o, %x;"
            f" and.b64 %address, %address, -16; cp.async.{mode}.shared.global [%o], [%address], {size}, %b;"
            " cp.async.commit_group; cp.async.wait_group 0; cp.async.wait_all; ld.shared.u32 %d, [%o]; ld.shared.u32"
            f" %e, [%o+{size - 4}];"
        )
        yield Case(f"cp_async_{size}", ".reg .b32 %x; " + body, WORD * 2, WORD * 2)


class MemoryTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # the bodies find the address of the last input in %address; put the first one back
        cls.kernels = Kernels([_with_first_address(case) for case in cases()])

    def run_words(self, name, *columns):
        return self.kernels.run(name, *columns)

    def test_moves(self):
        a, b = (integers(generator(x), 32) for x in "ab")
        packed, difference = self.run_words("pack", a, b)
        self.assertEqual(packed, [y << 32 | x for x, y in zip(a, b)])
        self.assertEqual(difference, [(x - y) & 0xFFFFFFFF for x, y in zip(a, b)])
        swapped, upper = self.run_words("unpack_halves", a)
        self.assertEqual(swapped, [x >> 16 | (x & 0xFFFF) << 16 for x in a])
        self.assertEqual(upper, [x >> 16 for x in a])
        self.assertEqual(self.run_words("literals", [0]), ([0xFFFFFFF0], [0x3FF8000000000000]))
        self.assertEqual(self.run_words("octal", [0]), ([15], [0x3FC00000]))

    def test_loads_extend(self):
        values = integers(generator("loads"), 32)
        for t, bits in (("s8", 8), ("u8", 8), ("s16", 16), ("u16", 16), ("s32", 32)):
            wide, word = self.run_words(f"load_{t}", values)
            for x, d, e in zip(values, wide, word):
                low = x & ((1 << bits) - 1)
                value = signed(low, bits) if t[0] == "s" else low
                self.assertEqual((d, e), (value & (1 << 64) - 1, value & 0xFFFFFFFF), t)

    def test_spaces(self):
        self.assertEqual(self.run_words("vector_local", [5, 6], [100, 200]), [103, 203])
        self.assertEqual(self.run_words("spaces", [0]), ([1], [0]))
        self.assertEqual(self.run_words("hints", [3, 4]), [3, 4])
        self.assertEqual(self.run_words("volatile", [3, 4]), [3, 4])

    def test_control_flow(self):
        self.assertEqual(self.run_words("guarded", [5, 0, 0xFFFFFFFF]), [1, 2, 2])
        self.assertEqual(self.run_words("loop", [1, 2, 10]), [1, 3, 55])
        self.assertEqual(self.run_words("switch", [0, 1, 2, 1]), [10, 20, 30, 20])
        self.assertEqual(self.run_words("same_label_twice", [0, 5]), [3, 8])
        self.assertEqual(self.run_words("early_exit", [7, 8, 7, 9]), [0, 1, 0, 1])

    def test_calls(self):
        self.assertEqual(self.run_words("call_direct", [1, 21]), [2, 42])
        self.assertEqual(self.run_words("call_recursive", [0, 1, 5, 10]), [1, 1, 120, 3628800])
        self.assertEqual(self.run_words("call_pointer", [4, 8]), [8, 16])
        self.assertEqual(self.run_words("call_vprintf", [4, 8]), [5, 9])
        self.assertEqual(self.run_words("call_heap", [4, 8]), [4, 8])

    def test_atomics(self):
        old, operand = (integers(generator(x + "atom"), 32) for x in "ab")
        old[:8], operand[:8] = [0, 1, 5, 6, 7, 0xFFFFFFFF, 9, 0], [5, 5, 5, 5, 5, 5, 0, 0]
        for name, (_, model) in ATOMICS.items():
            wanted = [model(o, x) & 0xFFFFFFFF for o, x in zip(old, operand)]
            self.assertEqual(self.run_words(f"atom_{name}", old, operand), (old, wanted), name)
            self.assertEqual(self.run_words(f"red_{name}", old, operand), wanted, name)
        compared = [o if i % 2 else o ^ 1 for i, o in enumerate(old)]
        wanted = [x if i % 2 else o for i, (o, x) in enumerate(zip(old, operand))]
        self.assertEqual(self.run_words("atom_cas", old, compared, operand), (old, wanted))

    def test_float_atomics(self):
        left, right = sf.pairs(generator("atom f32"), F32, 60)
        flushing = lambda a, b: sf.flush(sf.add(sf.flush(a, F32), sf.flush(b, F32), F32), F32)
        keeping = lambda a, b: sf.add(a, b, F32)
        for name, model in (("atom_f32", flushing), ("atom_f32_shared", keeping), ("atom_f32_generic", keeping)):
            if name != "atom_f32":  # one word of shared memory: one lane at a time
                left, right = left[::32], right[::32]
                columns = [[x for v in c for x in [v] * 32] for c in (left, right)]
                columns[1] = [x if i % 32 == 0 else 1 << 31 for i, x in enumerate(columns[1])]
            else:
                columns = [left, right]
            old, new = self.run_words(name, *columns)
            step = 1 if name == "atom_f32" else 32
            for a, b, o, n in zip(left, right, old[::step], new[::step]):
                wanted = model(a, b)
                self.assertEqual(o, a)
                self.assertTrue(
                    n == wanted or (sf.is_nan(n, F32) and sf.is_nan(wanted, F32)), f"{name} {hex(a)} {hex(b)} {hex(n)}"
                )
        f64, f16 = sf.FORMATS["f64"], sf.FORMATS["f16"]
        a, b = sf.patterns(generator("x"), f64, 64), sf.patterns(generator("y"), f64, 64)
        for x, y, n in zip(a, b, self.run_words("atom_f64", a, b)[1]):
            self.assertTrue(sf.is_nan(n, f64) or n == sf.add(x, y, f64))
        one, two = 0x3C00, 0x4000
        self.assertEqual(
            self.run_words("atom_f16x2", [one << 16 | two], [one << 16 | 1]), ([one << 16 | two], [two << 16 | two])
        )
        self.assertEqual(sf.add(two, 1, f16), two)

    def test_vector_atomics(self):
        """Each element by itself: the old values, and the sum (or maximum) of old + x + x."""
        rng = generator("vector atomics")
        for t, operation in VECTOR_ATOMICS:
            form = sf.FORMATS[t.removesuffix("x2")]
            elements = 64 // form.bits
            numbers = [sf.encode(Fraction(rng.randrange(-64, 64), 4), form) for _ in range(2 * 32 * elements)]

            def packed(values):
                words = [values[elements * k : elements * (k + 1)] for k in range(32)]
                return [sum(x << form.bits * i for i, x in enumerate(word)) for word in words]

            old, x = numbers[: 32 * elements], numbers[32 * elements :]
            if operation == "add" or t == "bf16x2":
                new = [sf.add(sf.add(o, v, form), v, form) for o, v in zip(old, x)]
            else:
                new = [max(o, v, key=lambda bits: sf.decode(bits, form)) for o, v in zip(old, x)]
            self.assertEqual(self.run_words(f"atom_vector_{t}", packed(old), packed(x)), (packed(old), packed(new)), t)

    def test_asynchronous_copies(self):
        values = list(range(1000, 1032))
        for size in (4, 8, 16):
            for kept in (size, size - 4, 0):
                first, last = self.run_words(f"cp_async_{size}", values, [kept] * 32)
                # 16-byte blocks: each lane copies the block that its own word is in
                starts = [values[i // 4 * 4] for i in range(32)]
                self.assertEqual(first, [x if kept >= 4 else 0 for x in starts], (size, kept))
                self.assertEqual(last, [x + size // 4 - 1 if kept == size else 0 for x in starts], (size, kept))


def _with_first_address(case):
    locate = "ld.param.u64 %base, [p0]; mul.wide.u32 %wide, %index, {}; add.u64 %address, %base, %wide; ".format(
        8 if case.inputs[0] in ("b64", "f64") else 4
    )
    return Case(case.name, locate + case.body, case.inputs, case.outputs, case.before, case.declarations)


if __name__ == "__main__":
    unittest.main()
