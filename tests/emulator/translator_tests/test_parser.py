# SPDX-License-Identifier: Apache-2.0
"""Text level, modules, and that everything unknown is an error with its name and line."""

import os
import unittest

from translator.errors import TranslationError
from translator.flush_mode import flush_mode
from translator.instruction import Instruction, known_instructions
from translator.kernel import translate_kernel
from translator.lexer import cpp_register, split_list, statements, without_comments
from translator.locations import Locations
from translator.module import Module, parse_parameters
from translator.ptx_types import BITS
from translator.variables import parse_variable

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"


def kernel(body, before=""):
    """Module with one kernel `k`; the body starts on line 6 of its text when `before` is empty."""
    return Module(f"{HEADER}{before}.visible .entry k(.param .u64 p0)\n{{\n{body}\nret;\n}}\n")


class LexerTest(unittest.TestCase):
    def test_comments_keep_lines_and_strings(self):
        text = without_comments('a // x; y\n/* b\nc */ d "//not" e')
        self.assertEqual(text.count("\n"), 2)
        self.assertEqual(text.split(), ["a", "d", '"//not"', "e"])

    def test_lists(self):
        self.assertEqual(split_list("{%a, %b}, [%c+4], (x, y), 3"), ["{%a, %b}", "[%c+4]", "(x, y)", "3"])
        self.assertEqual(split_list("  "), [])

    def test_statements(self):
        body = "\n.loc 1 5 2\nmov.b32 %a, 1;\nL1:\n{ // scope\nmov.b64 {%a, %b},\n  %c;\n}\n@%p bra L1;"
        found = list(statements(without_comments(body), 10))
        self.assertEqual(
            found,
            [
                (11, ".loc 1 5 2"),
                (12, "mov.b32 %a, 1"),
                (13, "L1:"),
                (14, "{"),
                (15, "mov.b64 {%a, %b},\n  %c"),
                (17, "}"),
                (18, "@%p bra L1"),
            ],
        )

    def test_names(self):
        self.assertEqual(cpp_register("%rd1"), "_rd1")
        self.assertEqual(cpp_register("int"), "u_int")
        self.assertNotEqual(cpp_register("a$b"), cpp_register("a_b"))

    def test_type_widths(self):
        self.assertEqual([BITS[t] for t in ("pred", "u8", "bf16", "f16x2", "tf32", "s64")], [1, 8, 16, 32, 32, 64])


class ModuleTest(unittest.TestCase):
    def test_parameters_are_laid_out_in_order(self):
        params = parse_parameters(".param .u8 a, .param .align 16 .b8 b[20], .param .u64 .ptr .global .align 4 c")
        self.assertEqual(
            [(p.name, p.offset, p.size, p.align) for p in params], [("a", 0, 1, 1), ("b", 16, 20, 16), ("c", 40, 8, 8)]
        )

    def test_variables(self):
        table = parse_variable(".global .align 4 .b32 t[2][2] = {{1, -1}, {0f3F800000, 4}}")
        self.assertEqual((table.size, table.align), (16, 4))
        self.assertEqual(table.data.hex(), "01000000ffffffff0000803f04000000")
        pointers = parse_variable(".global .align 8 .u64 q[2] = {generic(t)+8, f}")
        self.assertEqual(pointers.relocations, [(0, "t", 8), (8, "f", 0)])
        self.assertTrue(parse_variable(".extern .shared .align 16 .b8 s[]").open_length)
        self.assertTrue(parse_variable(".visible .global .attribute(.managed) .align 4 .u32 m").managed)
        self.assertEqual(parse_variable(".shared .align 16 .v4 .f32 v[2]").size, 32)

    def test_info(self):
        text = (
            HEADER
            + ".global .align 4 .u32 g = 7;\n.const .align 8 .u64 c[1] = {g};\n.func (.param .b32 r) f(.param .b32 x)"
            "\n{\nret;\n}\n.entry k(.param .u32 a, .param .u64 b)\n.maxntid 64, 2, 1\n{\nret;\n}\n"
        )
        self.assertEqual(
            Module(text).info().splitlines(),
            [
                "kernel k 2 0:4 8:8 128",
                "global g 4 4 07000000 0",
                "global c 8 8 0000000000000000 0",
                "func f 0",
                "reloc c 0 g 0",
            ],
        )

    def test_broken_modules_name_the_line(self):
        for text, line in ((HEADER + "\n.global .b128 x;", 5), (HEADER + ".entry k(.reg .u32 a)\n{\n}", 4)):
            with self.assertRaises(TranslationError) as caught:
                Module(text)
            self.assertEqual(caught.exception.line, line, text)


class UnknownTest(unittest.TestCase):
    def errors(self, body, before=""):
        with self.assertRaises(TranslationError) as caught:
            translate_kernel(kernel(body, before), "k")
        return caught.exception.lines()

    def test_unknown_instruction(self):
        self.assertEqual(
            self.errors(".reg .b32 %a;\nfrobnicate.u32 %a, 1;"), ["7: unknown instruction 'frobnicate.u32'"]
        )

    def test_unknown_modifier_is_never_skipped(self):
        """A modifier that does not exist must be refused by every instruction, whatever else it carries."""
        samples = {
            "add.rn.f32": "%f, %f, %f", "add.s32": "%r, %r, %r", "mul.lo.u32": "%r, %r, %r", "fma.rn.f32": "%f, %f, %f, %f",
            "cvt.rn.f32.u32": "%f, %r", "cvt.rzi.s32.f32": "%r, %f", "ld.global.u32": "%r, [%d]",
            "st.shared.u32": "[%d], %r", "prefetch.global.L2": "[%d]",
            "createpolicy.fractional.L2::evict_last.b64": "%d, 1.0",
            "setp.lt.f32": "%p, %f, %f", "selp.b32": "%r, %r, %r, %p", "shfl.sync.idx.b32": "%r, %r, 0, 31, -1",
            "atom.global.add.u32": "%r, [%d], %r", "bar.sync": "0", "mov.u32": "%r, 1", "shl.b32": "%r, %r, 1",
            "prmt.b32": "%r, %r, %r, %r", "lop3.b32": "%r, %r, %r, %r, 3", "add.f16x2": "%r, %r, %r",
            "ex2.approx.f32": "%f, %f", "stmatrix.sync.aligned.m8n8.x1.shared.b16": "[%d], {%r}",
            "movmatrix.sync.aligned.m8n8.trans.b16": "%r, %r", "red.global.v2.f32.add": "[%d], {%f, %f}",
            "cp.async.ca.shared.global": "[%d], [%d], 4", "membar.gl": "", "vote.sync.any.pred": "%p, %p, -1",
            "min.f32": "%f, %f, %f", "div.approx.f32": "%f, %f, %f", "cvta.to.global.u64": "%d, %d", "bra": "L",
            "ldmatrix.sync.aligned.m8n8.x1.shared.b16": "{%r}, [%d]", "redux.sync.add.u32": "%r, %r, -1", "ret": "",
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32": "{%r,%r,%r,%r}, {%r,%r,%r,%r}, {%r,%r}, {%r,%r,%r,%r}",
        }  # fmt: skip
        registers = ".reg .b32 %r;\n.reg .f32 %f;\n.reg .b64 %d;\n.reg .pred %p;\nL:\n"
        for op, operands in samples.items():
            with self.subTest(op):
                translate_kernel(kernel(f"{registers}{op} {operands};"), "k")  # known without the modifier
                name, *rest = op.split(".")
                # right after the name, so that the types stay last (setp reads its comparison there and refuses it too)
                (error,) = self.errors(f"{registers}{'.'.join([name, 'frob', *rest])} {operands};")
                self.assertTrue(error.startswith("11: "), error)
                self.assertIn(name + ".frob", error)

    def test_all_errors_of_a_kernel_are_reported(self):
        lines = self.errors(".reg .b32 %a;\nfrob %a;\nadd.s32 %a, %a, %missing;\nwgmma.fence.sync.aligned;")
        self.assertEqual([line.split(":")[0] for line in lines], ["7", "8", "9"])
        self.assertIn("%missing", lines[1])

    def test_wrong_operands(self):
        registers = ".reg .b32 %r;\n.reg .b64 %d;\n"
        for body in (
            "mov.u32 %nothere, 1;",
            "bra NOWHERE;",
            "ld.global.v2.u32 {%r}, [%d];",
            "add.s32 %r, %r;",
            "ld.global.u32 %r, [nosuch];",
        ):
            self.assertEqual(len(self.errors(registers + body)), 1, body)

    def test_not_modelled_forms_are_refused(self):
        registers = ".reg .b32 %r;\n.reg .b64 %d;\n.reg .b16 %h;\n.reg .f32 %f;\n.reg .pred %p;\n"
        for body in (
            "cvt.rn.satfinite.e4m3x2.f32 %h, %f, %f;",
            "cp.async.bulk.commit_group;",
            "fence.proxy.async;",
            "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%r}, {%r}, {%r}, {%r};",
            "atom.global.add.v2.f32 %r, [%d], %r;",
            "ld.shared::cluster.u32 %r, [%d];",
            ".reg .b128 %q;",
            "exit.frob;",
        ):
            self.assertEqual(len(self.errors(registers + body)), 1, body)

    def test_unknown_kernel_and_function(self):
        with self.assertRaises(TranslationError):
            translate_kernel(kernel(""), "other")
        self.assertIn("nosuch", self.errors("call.uni nosuch, ();")[0])

    def test_every_instruction_is_tested(self):
        """Each known instruction occurs in some test file of this folder."""
        folder = os.path.dirname(os.path.abspath(__file__))
        text = ""
        for name in os.listdir(folder):
            if name.startswith("test_") and name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    text += file.read()
        # names like vadd4 are put together in the tests
        missing = [name for name in known_instructions() if name not in text and name.rstrip("24") not in text]
        self.assertEqual(missing, [])


class FlushModeTest(unittest.TestCase):
    def test_modes(self):
        cases = {
            "add.f32 %f, %f, %f;": (False, False),
            "add.ftz.f32 %f, %f, %f; neg.f32 %f, %f;": (True, False),
            "add.ftz.f32 %f, %f, %f; mul.f32 %f, %f, %f;": (False, True),
            "add.ftz.f32 %f, %f, %f; add.f64 %d, %d, %d;": (False, True),
            "add.ftz.f32 %f, %f, %f; setp.lt.f32 %p, %f, %f;": (False, True),
            "add.ftz.f32 %f, %f, %f; cvt.rn.f32.s32 %f, %r;": (True, False),
            "add.ftz.f32 %f, %f, %f; cvt.rn.bf16x2.f32 %r, %f, %f;": (True, False),
            "add.ftz.f32 %f, %f, %f; fma.rn.bf16 %h, %h, %h, %h;": (False, True),
            "add.ftz.f32 %f, %f, %f; fma.rn.f16 %h, %h, %h, %h;": (True, False),
            "add.ftz.f32 %f, %f, %f; cvt.rpi.s32.f32 %r, %f;": (False, True),
        }
        for body, wanted in cases.items():
            self.assertEqual(flush_mode(kernel(body), "k"), wanted, body)

    def test_called_functions_count(self):
        before = ".func f()\n{\nmul.f32 %f, %f, %f;\nret;\n}\n"
        self.assertEqual(flush_mode(kernel("add.ftz.f32 %f, %f, %f; call.uni f, ();", before), "k"), (False, True))


class InstructionTest(unittest.TestCase):
    def test_parts(self):
        ins = Instruction("@!%p1 ld.global.nc.L1::no_allocate.v2.f32 {%f1, %f2}, [%rd1+8]")
        self.assertEqual((ins.guard, ins.guard_negated, ins.name, ins.last_type), ("%p1", True, "ld", "f32"))
        self.assertEqual(ins.operands, ["{%f1, %f2}", "[%rd1+8]"])

    def test_source_lines_reach_the_sites(self):
        module = Module(
            HEADER
            + '.file 1 "/a/b/net.cu"\n.entry k(.param .u64 p0)\n{\n.reg .b64 %d;\n.reg .b32 %r;\n.loc 1 42 3\n'
            'ld.global.u32 %r, [%d];\nret;\n}\n'
        )
        self.assertIn('"net.cu:42 ld.global.u32 %r, [%d]"', translate_kernel(module, "k"))

    def test_inlined_code_is_reported_at_the_users_lines(self):
        files = (
            '.file 1 "/a/net.cu"\n.file 2 "/a/load.cuh"\n.file 3'
            ' "/opt/cuda/bin/../targets/x86_64-linux/include/x.hpp"\n'
        )
        locations = Locations(Module(HEADER + files))
        steps = [
            (".loc 1 9 3", "net.cu:9"),
            (".loc\t2 5 3, function_name $L__info_string0, inlined_at 1 9 3", "load.cuh:5 (from net.cu:9)"),
            (".loc 3 112 3, function_name $L__info_string1+4, inlined_at 2 5 3", "load.cuh:5 (from net.cu:9)"),
            (".loc 1 20 1, function_name $L__info_string2, inlined_at 1 21 1", "net.cu:20 (from net.cu:21)"),
            (".loc 3 40 1", "x.hpp:40"),
            (".loc 3 112 3, function_name $L__info_string1, inlined_at 1 30 3", "net.cu:30"),
        ]
        for directive, wanted in steps:
            self.assertTrue(locations.read(directive))
            self.assertEqual(locations.here, wanted)
        self.assertFalse(locations.read("mov.b32 %a, 1"))
        self.assertEqual(locations.here, "net.cu:30")


if __name__ == "__main__":
    unittest.main()
