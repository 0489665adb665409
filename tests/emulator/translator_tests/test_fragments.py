# SPDX-License-Identifier: Apache-2.0
"""mma and ldmatrix fragments: two separate computations, held against the tables of the PTX ISA.

The device headers compute a row and a column from a lane and an element number. Here the figures are written the other
way round: for each register, the corner of the 8-row block it covers and how far lanes and elements step in it. Both
must agree place by place (a product alone would not show the same permutation of k in A and B) and with ISA_TABLES, the
ISA's own expressions; and a product of matrices spread by the figures must come back right through translated PTX.
"""
import ctypes
import os
import subprocess
import tempfile
import unittest
from fractions import Fraction

from . import softfloat as sf
from .harness import HERE, ROOT, Case, Kernels, generator, signed

#: (element bits, k) -> (section of the ISA, row of A, column of A, row of B). g is groupID, t threadID_in_group, i the
#: number of the element; the column of B is g in all.
ISA_TABLES = {
    (32, 4): ("Matrix Fragments for mma.m16n8k4 (.tf32)", "g if i == 0 else g + 8", "t", "t"),
    (16, 8): (
        "Matrix Fragments for mma.m16n8k8 (.f16, .bf16)",
        "g if i in (0, 1) else g + 8",
        "t * 2 + (i & 1)",
        "t * 2 + i",
    ),
    (32, 8): (
        "Matrix Fragments for mma.m16n8k8 (.tf32)",
        "g if i in (0, 2) else g + 8",
        "t if i in (0, 1) else t + 4",
        "t if i == 0 else t + 4",
    ),
    (16, 16): (
        "Matrix Fragments for mma.m16n8k16 with floating point type (.f16, .bf16)",
        "g if 0 <= i < 2 or 4 <= i < 6 else g + 8",
        "t * 2 + (i & 1) if i < 4 else t * 2 + (i & 1) + 8",
        "t * 2 + (i & 1) if i < 2 else t * 2 + (i & 1) + 8",
    ),
    (8, 16): (
        "Matrix Fragments for mma.m16n8k16 with integer type",
        "g if i < 4 else g + 8",
        "t * 4 + (i & 3)",
        "t * 4 + i",
    ),
    (8, 32): (
        "Matrix Fragments for mma.m16n8k32 (.s8, .u8)",
        "g if 0 <= i < 4 or 8 <= i < 12 else g + 8",
        "t * 4 + (i & 3) if i < 8 else t * 4 + (i & 3) + 16",
        "t * 4 + (i & 3) if i < 4 else t * 4 + (i & 3) + 16",
    ),
}
#: rows and columns of C and D, the same in all of these sections
ISA_ACCUMULATORS = ("g if i < 2 else g + 8", "t * 2 + (i & 1)")


def isa_place(row, column, lane, i):
    """Row and column that expressions of ISA_TABLES give."""
    names = {"g": lane >> 2, "t": lane % 4, "i": i}
    return eval(row, {}, names), eval(column, {}, names)  # the tables above are the only input


#: (element bits, k) -> per register the (row, column) of the block of A it covers. A block has 8 rows, one for each group
#: of four lanes; in a row, each lane of the group holds one register's worth of adjacent elements.
A_BLOCKS = {
    (16, 8): [(0, 0), (8, 0)],
    (16, 16): [(0, 0), (8, 0), (0, 8), (8, 8)],
    (32, 4): [(0, 0), (8, 0)],
    (32, 8): [(0, 0), (8, 0), (0, 4), (8, 4)],
    (8, 16): [(0, 0), (8, 0)],
    (8, 32): [(0, 0), (8, 0), (0, 16), (8, 16)],
}
#: the same for B: rows of k at which the register's block starts. Here a group of four lanes holds a column.
B_BLOCKS = {(16, 8): [0], (16, 16): [0, 8], (32, 4): [0], (32, 8): [0, 4], (8, 16): [0], (8, 32): [0, 16]}
#: C and D: two adjacent elements a lane, rows 0..7 then 8..15
C_BLOCKS = [(0, 0), (8, 0)]


def figure_a(bits, k):
    """(lane, element) -> (row, column) of A, 16 x k."""
    per_register = 32 // bits
    places = {}
    for register, (top, left) in enumerate(A_BLOCKS[bits, k]):
        for row in range(8):
            for column in range(4 * per_register):
                lane = 4 * row + column // per_register
                places[lane, register * per_register + column % per_register] = top + row, left + column
    return places


def figure_b(bits, k):
    """(lane, element) -> (row, column) of B, k x 8."""
    per_register = 32 // bits
    places = {}
    for register, top in enumerate(B_BLOCKS[bits, k]):
        for column in range(8):
            for row in range(4 * per_register):
                lane = 4 * column + row // per_register
                places[lane, register * per_register + row % per_register] = top + row, column
    return places


def figure_c():
    """(lane, element) -> (row, column) of C and D, 16 x 8."""
    places = {}
    for block, (top, _) in enumerate(C_BLOCKS):
        for row in range(8):
            for column in range(8):
                places[4 * row + column // 2, 2 * block + column % 2] = top + row, column
    return places


SHAPES = [
    ("f16", "f32", 8), ("f16", "f32", 16), ("f16", "f16", 8), ("f16", "f16", 16), ("bf16", "f32", 8), ("bf16", "f32", 16),
    ("tf32", "f32", 4), ("tf32", "f32", 8), ("s8", "s32", 16), ("s8", "s32", 32), ("u8", "s32", 16), ("u8", "s32", 32),
    ("s8/u8", "s32", 16), ("u8/s8", "s32", 32),
]  # fmt: skip
WIDTH = {"f16": 16, "bf16": 16, "tf32": 32, "s8": 8, "u8": 8}


def names(prefix, count):
    return "{" + ", ".join(f"%{prefix}{i}" for i in range(count)) + "}"


def types_of(t):
    """Types of A and B: one of SHAPES names both, or A/B."""
    return (t.split("/") * 2)[:2]


def mma_name(t, sum_type, k):
    return f"mma_{t.replace('/', '_')}_{sum_type}_{k}"


def mma_case(t, sum_type, k):
    a_type, b_type = types_of(t)
    bits = WIDTH[a_type]
    a, b = 16 * k * bits // 1024, 8 * k * bits // 1024
    c = 2 if sum_type == "f16" else 4
    op = f"mma.sync.aligned.m16n8k{k}.row.col.{sum_type}.{a_type}.{b_type}.{sum_type}"
    body = (
        ".reg .b32 %x<4>; .reg .b32 %y<2>; .reg .b32 %z<4>; .reg .b32 %w<4>; "
        "mov.b64 {%x0, %x1}, %a; mov.b64 {%x2, %x3}, %b; "
        "mov.b64 {%y0, %y1}, %c; mov.b64 {%z0, %z1}, %f; mov.b64 {%z2, %z3}, %g; mov.b32 %w2, 0; mov.b32 %w3, 0; "
        f"{op} {names('w', c)}, {names('x', a)}, {names('y', b)}, {names('z', c)}; "
        "mov.b64 %d, {%w0, %w1}; mov.b64 %e, {%w2, %w3};"
    )
    return Case(mma_name(t, sum_type, k), body, ("b64",) * 5, ("b64",) * 2)


def ldmatrix_case(count, transposed):
    body = (
        ".shared .align 16 .b8 s[512]; .reg .b32 %o, %q; .reg .b32 %w<4>; mov.u32 %q, s; mad.lo.u32 %o, %tid, 16, %q; "
        "st.shared.v2.b64 [%o], {%a, %b}; bar.warp.sync -1; mov.b32 %w0, 0; mov.b32 %w1, 0; mov.b32 %w2, 0; mov.b32 %w3, 0; "
        f"ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.shared.b16 {names('w', count)}, [%o]; "
        "mov.b64 %d, {%w0, %w1}; mov.b64 %e, {%w2, %w3};"
    )
    return Case(f"ldmatrix_{count}_{int(transposed)}", body, ("b64",) * 2, ("b64",) * 2)


def stmatrix_case(count, transposed):
    """The 512 bytes of shared memory that stmatrix leaves, 16 per thread; unwritten rows are zero."""
    body = (
        ".shared .align 16 .b8 s[512]; .reg .b32 %o, %q; .reg .b32 %w<4>; mov.u32 %q, s; mad.lo.u32 %o, %tid, 16, %q; "
        "mov.b64 {%w0, %w1}, %a; mov.b64 {%w2, %w3}, %b; st.shared.v2.b64 [%o], {0, 0}; bar.warp.sync -1; "
        f"stmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.shared.b16 [%o], {names('w', count)}; "
        "bar.warp.sync -1; ld.shared.v2.b64 {%d, %e}, [%o];"
    )
    return Case(f"stmatrix_{count}_{int(transposed)}", body, ("b64",) * 2, ("b64",) * 2)


MOVMATRIX = Case("movmatrix", "movmatrix.sync.aligned.m8n8.trans.b16 %d, %a;", ("b32",), ("b32",))


def spread(matrix, places, bits, registers):
    """Registers of 32 lanes that hold a matrix of bit patterns."""
    per_register = 32 // bits
    words = [[0] * registers for _ in range(32)]
    for (lane, i), (row, column) in places.items():
        words[lane][i // per_register] |= matrix[row][column] << bits * (i % per_register)
    return words


def as_doubles(words, first):
    """Two words of each lane as one 64-bit column."""
    pairs = [(w + [0, 0, 0, 0])[first : first + 2] for w in words]
    return [low | high << 32 for low, high in pairs]


class FragmentTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        matrices = [ldmatrix_case(n, t) for n in (1, 2, 4) for t in (False, True)]
        matrices += [stmatrix_case(n, t) for n in (1, 2, 4) for t in (False, True)]
        cls.kernels = Kernels([mma_case(*shape) for shape in SHAPES] + matrices + [MOVMATRIX])
        with tempfile.TemporaryDirectory(prefix="emu_fragments_") as folder:
            library = os.path.join(folder, "probe.so")
            command = [os.environ.get("CXX", "g++"), "-std=c++17", "-shared", "-fPIC", f"-I{ROOT}/device"]
            subprocess.run([*command, os.path.join(HERE, "fragments_probe.cpp"), "-o", library], check=True)
            cls.probe = ctypes.CDLL(library)

    def test_figures_cover_each_element_once(self):
        for bits, k in A_BLOCKS:
            self.assertEqual(sorted(figure_a(bits, k).values()), [(r, c) for r in range(16) for c in range(k)])
            self.assertEqual(sorted(figure_b(bits, k).values()), [(r, c) for r in range(k) for c in range(8)])
        self.assertEqual(sorted(figure_c().values()), [(r, c) for r in range(16) for c in range(8)])

    def test_figures_agree_with_the_isa(self):
        self.assertEqual(ISA_TABLES.keys(), A_BLOCKS.keys())
        for (bits, k), (section, a_row, a_column, b_row) in ISA_TABLES.items():
            tables = [(figure_a(bits, k), a_row, a_column), (figure_b(bits, k), b_row, "g"), (figure_c(), *ISA_ACCUMULATORS)]
            for figure, row, column in tables:
                for (lane, i), place in figure.items():
                    self.assertEqual(place, isa_place(row, column, lane, i), f"{section}: lane {lane}, element {i}")

    def test_formulas_agree_with_figures(self):
        for bits, k in A_BLOCKS:
            for matrix, figure in ((b"a", figure_a(bits, k)), (b"b", figure_b(bits, k)), (b"c", figure_c())):
                for (lane, i), (row, column) in figure.items():
                    place = self.probe.fragment_place(bits, k, ctypes.c_char(matrix), lane, i)
                    self.assertEqual(divmod(place, 64), (row, column), f"{matrix} of {bits} bits, k {k}, lane {lane}, {i}")
        for lane in range(32):
            for e in (0, 1):
                row, column = lane // 4, 2 * (lane % 4) + e
                self.assertEqual(divmod(self.probe.matrix_8x8_place(lane, e, 0), 64), (row, column))
                self.assertEqual(divmod(self.probe.matrix_8x8_place(lane, e, 1), 64), (column, row))

    def value(self, bits, t):
        """Number that a bit pattern of an element stands for; tf32 reads the upper 19 bits of its word."""
        if t in ("s8", "u8", "s32"):
            return signed(bits, 8 if t == "s8" else 32) if t[0] == "s" else bits
        if t == "tf32":
            return sf.decode(bits & ~0x1FFF, sf.FORMATS["f32"])
        return sf.decode(bits, sf.FORMATS[t])

    def random_element(self, rng, t):
        if t in ("s8", "u8"):
            return rng.getrandbits(8)
        if t == "s32":
            return rng.getrandbits(32)
        # numbers whose products and sums double holds exactly, so that the model rounds once
        form = sf.FORMATS["f32" if t == "tf32" else t]
        bits = sf.encode(Fraction(rng.randrange(-127, 128), 1 << rng.randrange(6)), form)
        return bits | rng.getrandbits(13) if t == "tf32" else bits

    def test_products(self):
        for t, sum_type, k in SHAPES:
            a_type, b_type = types_of(t)
            rng, bits = generator(f"mma {t} {sum_type} {k}"), WIDTH[a_type]
            sum_bits = 16 if sum_type == "f16" else 32
            for _ in range(4):
                a = [[self.random_element(rng, a_type) for _ in range(k)] for _ in range(16)]
                b = [[self.random_element(rng, b_type) for _ in range(8)] for _ in range(k)]
                c = [[self.random_element(rng, sum_type) for _ in range(8)] for _ in range(16)]
                x = spread(a, figure_a(bits, k), bits, 4)
                y = spread(b, figure_b(bits, k), bits, 2)
                z = spread(c, figure_c(), sum_bits, 4)
                columns = [as_doubles(x, 0), as_doubles(x, 2), as_doubles(y, 0), as_doubles(z, 0), as_doubles(z, 2)]
                low, high = self.kernels.run(mma_name(t, sum_type, k), *columns)
                words = [[lo & 0xFFFFFFFF, lo >> 32, hi & 0xFFFFFFFF, hi >> 32] for lo, hi in zip(low, high)]
                for (lane, i), (row, column) in figure_c().items():
                    exact = self.value(c[row][column], sum_type)
                    exact += sum(self.value(a[row][n], a_type) * self.value(b[n][column], b_type) for n in range(k))
                    wanted = exact & 0xFFFFFFFF if sum_type == "s32" else sf.encode(exact, sf.FORMATS[sum_type])
                    position = i * sum_bits
                    got = words[lane][position // 32] >> position % 32 & ((1 << sum_bits) - 1)
                    self.assertEqual(got, wanted, f"{t} {sum_type} k {k}: row {row}, column {column}")

    def test_ldmatrix(self):
        rng = generator("ldmatrix")
        rows = [[rng.getrandbits(16) for _ in range(8)] for _ in range(32)]  # lane 8m + r holds row r of matrix m

        def packed(items):
            return sum(x << 16 * i for i, x in enumerate(items))

        columns = [[packed(r[:4]) for r in rows], [packed(r[4:]) for r in rows]]
        for count in (1, 2, 4):
            for transposed in (False, True):
                low, high = self.kernels.run(f"ldmatrix_{count}_{int(transposed)}", *columns)
                for lane, (lo, hi) in enumerate(zip(low, high)):
                    words = [lo & 0xFFFFFFFF, lo >> 32, hi & 0xFFFFFFFF, hi >> 32]
                    for m in range(4):
                        block = rows[8 * m : 8 * m + 8]
                        if transposed:
                            block = [list(column) for column in zip(*block)]
                        pair = block[lane // 4][2 * (lane % 4) : 2 * (lane % 4) + 2]
                        self.assertEqual(words[m], packed(pair) if m < count else 0, f"x{count} {transposed} lane {lane}")

    def test_stmatrix(self):
        rng = generator("stmatrix")
        words = [[rng.getrandbits(32) for _ in range(4)] for _ in range(32)]
        columns = as_doubles(words, 0), as_doubles(words, 2)
        for count in (1, 2, 4):
            for transposed in (False, True):
                low, high = self.kernels.run(f"stmatrix_{count}_{int(transposed)}", *columns)
                for address, (lo, hi) in enumerate(zip(low, high)):
                    m, row = divmod(address, 8)
                    stored = lo | hi << 64
                    for column in range(8):
                        first, second = (column, row) if transposed else (row, column)
                        word = words[4 * first + second // 2][m]
                        wanted = word >> 16 * (second % 2) & 0xFFFF if m < count else 0
                        self.assertEqual(stored >> 16 * column & 0xFFFF, wanted, f"x{count} {transposed} {m} {row} {column}")

    def test_movmatrix(self):
        rng = generator("movmatrix")
        matrix = [[rng.getrandbits(16) for _ in range(8)] for _ in range(8)]

        def held(rows):
            return [rows[lane // 4][lane % 4 * 2] | rows[lane // 4][lane % 4 * 2 + 1] << 16 for lane in range(32)]

        self.assertEqual(self.kernels.run("movmatrix", held(matrix)), held(list(zip(*matrix))))


if __name__ == "__main__":
    unittest.main()
