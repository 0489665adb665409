# SPDX-License-Identifier: Apache-2.0
"""Families of the PTX ISA that are not modelled: an error names each instruction, and nothing else of the kernel fails."""

import unittest

from translator.errors import TranslationError
from translator.kernel import translate_kernel
from translator.module import Module

#: family -> instructions, with operands as nvcc and CUTLASS write them. The README lists the families.
FAMILIES = {
    "wgmma": [
        "wgmma.fence.sync.aligned",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f, %f, %f, %f}, %d, %d, 1, 1, 1, 0, 0",
        "wgmma.commit_group.sync.aligned",
        "wgmma.wait_group.sync.aligned 0",
    ],
    "tcgen05": ["tcgen05.fence::before_thread_sync", "tcgen05.commit.cta_group::1.mbarrier::arrive::one.b64 [%d]"],
    "TMA and bulk copies": [
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r], [%d], 64, [%r]",
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r], [%d, {%r, %r}], [%r]",
        "cp.async.bulk.commit_group",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%d], [%r], 64",
        "prefetch.tensormap [%d]",
        "fence.proxy.async.shared::cta",
        "fence.proxy.tensormap::generic.acquire.gpu [%d], 128",
    ],
    "mbarrier": [
        "mbarrier.init.shared.b64 [%r], 1",
        "mbarrier.arrive.shared.b64 %d, [%r]",
        "mbarrier.try_wait.parity.shared.b64 %p, [%r], %r",
        "cp.async.mbarrier.arrive.noinc.shared.b64 [%r]",
        "fence.mbarrier_init.release.cluster",
    ],
    "clusters": [
        "barrier.cluster.arrive.aligned",
        "mapa.shared::cluster.u32 %r, %r, 0",
        "ld.shared::cluster.u32 %r, [%r]",
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r], %r, [%r]",
        "getctarank.shared::cluster.u32 %r, %r",
    ],
    "wmma": [
        "wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r, %r, %r, %r, %r, %r, %r, %r}, [%d], %r",
        "wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%f}, {%r}, {%r}, {%f}",
        "wmma.store.d.sync.aligned.row.m16n16k16.f32 [%d], {%f}, %r",
    ],
    "other mma shapes and types": [
        "mma.sp.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%f}, {%r}, {%r}, {%f}, %r, 0",
        "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%d}, {%d}, {%d}, {%d}",
        "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%f}, {%r}, {%r}, {%f}",
        "mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%r}, {%r}, {%r}, {%r}",
        "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {%f}, {%r}, {%r}, {%f}",
        "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r, %r}, [%r]",
    ],
    "8-bit and smaller floats": [
        "cvt.rn.satfinite.e4m3x2.f32 %h, %f, %f",
        "cvt.rn.f16x2.e5m2x2 %r, %h",
        "cvt.rn.satfinite.ue8m0x2.f32 %h, %f, %f",
    ],
    ".b128": ["ld.global.b128 %r, [%d]", "atom.global.exch.b128 %d, [%d], %d", "mov.b128 %d, {%d, %d}"],
    "textures and surfaces": [
        "tex.2d.v4.f32.f32 {%f, %f, %f, %f}, [%d, {%f, %f}]",
        "suld.b.2d.b32.trap {%r}, [%d, {%r, %r}]",
        "txq.width.b32 %r, [%d]",
    ],
    "others": [
        "multimem.ld_reduce.relaxed.sys.global.add.f32 %f, [%d]",
        "elect.sync %r|%p, -1",
        "setmaxnreg.inc.sync.aligned.u32 232",
        "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r], %r, [%r]",
        "atom.global.add.v2.f32 %r, [%d], %r",
        "redux.sync.min.f32 %f, %f, -1",
        "add.f32x2 %d, %d, %d",
        "alloca.u64 %d, 16",
        "isspacep.shared::cluster %p, %d",
        "vset4.u32.u32.eq %r, %r, %r, %r",
        "lop3.or.b32 %r|%p, %r, %r, %r, 1, %p",
        "discard.global.L2.frob [%d], 128",
    ],
}
SPECIAL_REGISTERS = ("%cluster_ctaid.x", "%cluster_nctarank", "%is_explicit_cluster", "%envreg3", "%pm0")
REGISTERS = ".reg .b32 %r; .reg .f32 %f; .reg .b64 %d; .reg .b16 %h; .reg .pred %p; "


def errors_of(body):
    source = f".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k()\n{{\n{REGISTERS}\n{body}\nret;\n}}\n"
    try:
        translate_kernel(Module(source), "k")
    except TranslationError as error:
        return error.lines()
    return []


class UnmodelledTest(unittest.TestCase):
    def test_errors_name_the_instruction(self):
        for family, instructions in FAMILIES.items():
            for text in instructions:
                with self.subTest(family, text=text):
                    lines = errors_of(text + ";")
                    self.assertEqual(len(lines), 1, lines)
                    self.assertTrue(lines[0].startswith("7: "), lines)  # the line of the PTX file
                    self.assertIn(text.split()[0], lines[0])

    def test_errors_name_the_register(self):
        for name in SPECIAL_REGISTERS:
            lines = errors_of(f"mov.u32 %r, {name};")
            self.assertEqual(len(lines), 1, name)
            self.assertIn(name.split(".")[0], lines[0])

    def test_the_frame_around_them_is_modelled(self):
        self.assertEqual(errors_of("mov.u32 %r, 1;"), [])


if __name__ == "__main__":
    unittest.main()
