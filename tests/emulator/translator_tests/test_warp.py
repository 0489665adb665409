# SPDX-License-Identifier: Apache-2.0
"""Warp collectives and barriers against the ISA's definitions."""

import unittest

from .harness import Case, Kernels, generator, integers, signed

WORD = ("b32",)
FULL = (1 << 32) - 1
HALF = (1 << 16) - 1
SHUFFLES = ("idx", "up", "down", "bfly")
REDUCTIONS = {
    "add.u32": lambda v: sum(v),
    "min.s32": lambda v: min(signed(x, 32) for x in v),
    "max.s32": lambda v: max(signed(x, 32) for x in v),
    "min.u32": min,
    "max.u32": max,
}


def cases():
    for mode in SHUFFLES:
        for clamp in ("0x1f", "0x0", "0x1807", "0x101f"):
            name = f"shfl_{mode}_{clamp}"
            yield Case(
                name,
                f".reg .pred %p; shfl.sync.{mode}.b32 %d|%p, %a, %b, {clamp}, -1; selp.u32 %e, 1, 0, %p;",
                WORD * 2,
                WORD * 2,
            )
    # two halves of the warp shuffle on their own, in different branches
    split = (
        ".reg .pred %p; setp.lt.u32 %p, %tid, 16; @%p bra LOW; shfl.sync.bfly.b32 %d, %a, 1, 0x1f, 0xffff0000; bra"
        " JOIN; LOW: shfl.sync.bfly.b32 %d, %a, 2, 0x1f, 0xffff; JOIN: bar.warp.sync -1;"
    )
    yield Case("shfl_split", split, WORD, WORD)
    for mode in ("all", "any", "uni"):
        yield Case(f"vote_{mode}", f"vote.sync.{mode}.pred %d, %a, -1;", ("pred",), ("pred",))
    yield Case("vote_ballot", "vote.sync.ballot.b32 %d, !%a, -1;", ("pred",), WORD)
    yield Case("activemask", "activemask.b32 %d;", WORD, WORD)
    for t in ("b32", "b64"):
        yield Case(f"match_any_{t}", f"match.any.sync.{t} %d, %a, -1;", (t,), WORD)
        yield Case(
            f"match_all_{t}", f".reg .pred %p; match.all.sync.{t} %d|%p, %a, -1; selp.u32 %e, 1, 0, %p;", (t,), WORD * 2
        )
    for op in REDUCTIONS:
        yield Case(f"redux_{op.replace('.', '_')}", f"redux.sync.{op} %d, %a, -1;", WORD, WORD)
    for op in ("and", "or", "xor"):
        yield Case(f"redux_{op}", f"redux.sync.{op}.b32 %d, %a, -1;", WORD, WORD)
    barrier = (
        ".shared .align 4 .b8 s[128]; .reg .b32 %o, %x; shl.b32 %o, %tid, 2; mov.u32 %x, s; add.u32 %o, %o, %x;"
        " st.shared.u32 [%o], %a; SYNC membar.cta; fence.acq_rel.gpu; xor.b32 %o, %tid, 31; shl.b32 %o, %o, 2; add.u32"
        " %o, %o, %x; ld.shared.u32 %d, [%o];"
    )
    for name, sync in (("bar", "bar.sync 0;"), ("barrier", "barrier.cta.sync.aligned 1, 32;")):
        yield Case(f"sync_{name}", barrier.replace("SYNC", sync), WORD, WORD)
    yield Case("bar_popc", "bar.red.popc.u32 %d, 0, %a;", ("pred",), WORD)
    yield Case("bar_and", "bar.red.and.pred %d, 0, %a; bar.red.or.pred %e, 0, %a;", ("pred",), ("pred", "pred"))
    masks = "mov.u32 %d, %lanemask_lt; mov.u32 %e, %lanemask_ge;"
    yield Case("lanemasks", masks, WORD, WORD * 2)
    yield Case(
        "specials",
        ".reg .b32 %x; mov.u32 %d, %laneid; mov.u32 %e, %ctaid.x; mov.u32 %x, %ntid.x; mad.lo.u32 %e, %e, %x, WARP_SZ;",
        WORD,
        WORD * 2,
    )


def shuffled(values, mode, b, clamp, lane):
    """shfl.sync of the ISA: (value, predicate)."""
    limit, segment = clamp & 31, clamp >> 8 & 31
    highest = lane & segment | limit & ~segment & 31
    lowest = lane & segment
    b &= 31
    if mode == "up":
        source, valid = lane - b, lane - b >= highest
    elif mode == "down":
        source, valid = lane + b, lane + b <= highest
    elif mode == "bfly":
        source, valid = lane ^ b, lane ^ b <= highest
    else:
        source = lowest | b & ~segment & 31
        valid = source <= highest
    return (values[source], 1) if valid else (values[lane], 0)


class WarpTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernels = Kernels(list(cases()))

    def warps(self, name, bits=32, different=None):
        """224 values; `different` limits how many distinct ones there are."""
        rng = generator(name)
        values = integers(rng, bits)
        return [rng.choice(values[:different]) for _ in values] if different else values

    def each_warp(self, column):
        return [column[i : i + 32] for i in range(0, len(column), 32)]

    def check_warps(self, name, column, model):
        results = self.kernels.run(name, column)
        for warp, result in zip(self.each_warp(column), self.each_warp(results)):
            self.assertEqual(result, model(warp), name)

    def test_shuffles(self):
        for mode in SHUFFLES:
            for clamp in ("0x1f", "0x0", "0x1807", "0x101f"):
                name = f"shfl_{mode}_{clamp}"
                values = self.warps(name)
                rng = generator(name + "lanes")
                # down and bfly may point beyond the warp; the clamp says what is read then
                lanes = [rng.randrange(32) for _ in values]
                found, valid = self.kernels.run(name, values, lanes)
                for start in range(0, len(values), 32):
                    warp = values[start : start + 32]
                    for lane in range(32):
                        wanted = shuffled(warp, mode, lanes[start + lane], int(clamp, 0), lane)
                        self.assertEqual((found[start + lane], valid[start + lane]), wanted, f"{name} lane {lane}")
        self.check_warps("shfl_split", self.warps("split"), lambda w: [w[i ^ (2 if i < 16 else 1)] for i in range(32)])

    def test_votes(self):
        for pattern in (0, FULL, 1, HALF, 0x80000000, 0x12345678):
            lanes = [pattern >> i & 1 for i in range(32)]
            self.assertEqual(self.kernels.run("vote_all", lanes), [int(all(lanes))] * 32)
            self.assertEqual(self.kernels.run("vote_any", lanes), [int(any(lanes))] * 32)
            self.assertEqual(self.kernels.run("vote_uni", lanes), [int(all(lanes) or not any(lanes))] * 32)
            self.assertEqual(self.kernels.run("vote_ballot", lanes), [pattern ^ FULL] * 32)
            self.assertEqual(self.kernels.run("bar_popc", lanes), [sum(lanes)] * 32)
            self.assertEqual(self.kernels.run("bar_and", lanes), ([int(all(lanes))] * 32, [int(any(lanes))] * 32))
        self.assertEqual(self.kernels.run("activemask", [0] * 32), [1 << i for i in range(32)])

    def test_matches(self):
        for t, bits in (("b32", 32), ("b64", 64)):
            same = lambda w: [sum(1 << j for j in range(32) if w[j] == x) for x in w]
            self.check_warps(f"match_any_{t}", self.warps("match" + t, bits, 4), same)
            equal = [(1 << bits) - 3] * 32
            self.assertEqual(self.kernels.run(f"match_all_{t}", equal), ([FULL] * 32, [1] * 32))
            equal[5] ^= 1 << (bits - 1)
            self.assertEqual(self.kernels.run(f"match_all_{t}", equal), ([0] * 32, [0] * 32))

    def test_reductions(self):
        for op, model in REDUCTIONS.items():
            name = f"redux_{op.replace('.', '_')}"
            self.check_warps(name, self.warps(name), lambda w, m=model: [m(w) & FULL] * 32)

        def folded(operator):
            def model(warp):
                total = warp[0]
                for x in warp[1:]:
                    total = operator(total, x)
                return [total] * 32

            return model

        self.check_warps("redux_and", [x | 0xFFF0FF for x in self.warps("and")], folded(lambda a, b: a & b))
        self.check_warps("redux_or", [x & 0xF0F00 for x in self.warps("or")], folded(lambda a, b: a | b))
        self.check_warps("redux_xor", self.warps("xor"), folded(lambda a, b: a ^ b))

    def test_barriers(self):
        for name in ("bar", "barrier"):
            self.check_warps(f"sync_{name}", self.warps(name), lambda w: w[::-1])

    def test_special_registers(self):
        below, from_here = self.kernels.run("lanemasks", [0] * 32)
        self.assertEqual(below, [(1 << i) - 1 for i in range(32)])
        self.assertEqual(from_here, [FULL & ~((1 << i) - 1) for i in range(32)])
        lanes, blocks = self.kernels.run("specials", [0] * 64)
        self.assertEqual(lanes, list(range(32)) * 2)
        self.assertEqual(blocks, [32] * 32 + [64] * 32)


if __name__ == "__main__":
    unittest.main()
