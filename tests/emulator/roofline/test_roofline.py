# SPDX-License-Identifier: Apache-2.0
"""Examples worked by hand. python3 -m unittest test_roofline"""
import contextlib
import io
import os
import tempfile
import unittest

import roofline
from gpus import GPUS, SOURCES, Gpu

COLUMNS = (
    ["launches", "graph_launches", "blocks", "entered", "shared_wavefronts"]
    + [f"flops_{unit}" for unit in roofline.TENSOR + roofline.SIMD + ("special",)]
    + [f"{kind}_sectors" for kind in ("load", "store", "atomic")]
    + ["unique_read_bytes", "unique_written_bytes"]
)

# Round figures: 10 SMs of 50 lanes at 1 GHz are 1 TFLOPS.
TOY = Gpu(
    name="toy",
    tensor_f16=8e12,
    tensor_bf16=8e12,
    tensor_tf32=4e12,
    tensor_i8=16e12,
    fp32=1e12,
    fp64=0.5e12,
    fp16=2e12,
    bandwidth=100e9,
    sms=10,
    fp32_lanes=50,
    l2_bytes=1 << 20,
)
PERFECT = roofline.Assumptions(dram=1, tensor=1, simd=1, shared=1, launch_us=0, graph_launch_us=0)


def counts(**values):
    """A row of the counts: zeros but for the values given."""
    row = {"range": "", "kind": "kernel", "name": "k"}
    row.update({column: "0" for column in COLUMNS}, launches="1")
    row.update({k: str(v) for k, v in values.items()})
    return row


class Roofs(unittest.TestCase):
    """Each roof by itself, on the toy."""

    def check(self, bound, seconds, assumptions=PERFECT, **values):
        """The row's predicted time and what bounds it."""
        p = roofline.predict(counts(**values), TOY, assumptions)
        self.assertEqual(p.bound, bound)
        self.assertAlmostEqual(p.seconds, seconds, delta=1e-9 * seconds)

    def test_each_unit(self):
        self.check("tensor_bf16", 2.0, flops_tensor_bf16=16e12)
        self.check("tensor_f16", 2.0, flops_tensor_f16=16e12)
        self.check("tensor_tf32", 4.0, flops_tensor_tf32=16e12)
        self.check("tensor_i8", 1.0, flops_tensor_i8=16e12)
        self.check("fp32", 3.0, flops_fp32=3e12)
        self.check("fp64", 6.0, flops_fp64=3e12)
        self.check("fp16", 1.5, flops_fp16=3e12)
        self.check("special", 1.0, flops_special=160e9)  # 16 per cycle, 10 SMs, 1 GHz
        self.check("shared", 2.0, shared_wavefronts=20e9)  # one per cycle and SM

    def test_memory(self):
        self.check("dram", 1.0, unique_read_bytes=60e9, unique_written_bytes=40e9)
        # 96 GB in sectors: once from DRAM each under "sectors", 0.15 s between SMs and L2 at 640 GB/s.
        self.check("sm_path", 0.15, load_sectors=1e9, store_sectors=1.5e9, atomic_sectors=0.5e9)
        every = roofline.Assumptions(**{**vars(PERFECT), "memory": "sectors"})
        self.check("dram", 0.96, every, load_sectors=1e9, store_sectors=1.5e9, atomic_sectors=0.5e9)

    def test_the_longest_roof_counts_not_the_sum(self):
        self.check("fp32", 3.0, flops_fp32=3e12, flops_tensor_bf16=16e12, unique_read_bytes=60e9)

    def test_efficiencies_and_overheads(self):
        self.check("tensor_bf16", 4.0, roofline.Assumptions(tensor=0.5, launch_us=0), flops_tensor_bf16=16e12)
        self.check("dram", 2.0, roofline.Assumptions(dram=0.5, launch_us=0), unique_read_bytes=100e9)
        self.check("fp32", 2.0, roofline.Assumptions(simd=0.5, launch_us=0), flops_fp32=1e12)
        self.check("shared", 4.0, roofline.Assumptions(shared=0.25, launch_us=0), shared_wavefronts=10e9)
        self.check("launch", 5 * 3e-6 + 2 * 1.5e-6, roofline.Assumptions(), launches=7, graph_launches=2)

    def test_small_grids_leave_sms_idle(self):
        self.check("fp32", 10.0, flops_fp32=1e12, blocks=1)
        self.check("fp32", 2.0, flops_fp32=1e12, blocks=10, launches=2)  # 5 blocks a launch
        self.check("fp32", 1.0, flops_fp32=1e12, blocks=1000)
        self.check("fp32", 1.0, flops_fp32=1e12, blocks=0)  # a library's product


class WorkedExample(unittest.TestCase):
    """axpy of 2^24 floats on an A100, by hand."""

    def test_axpy(self):
        n = 2**24
        row = counts(blocks=n // 256, flops_fp32=2 * n, load_sectors=n // 4, store_sectors=n // 8,
                     unique_read_bytes=8 * n, unique_written_bytes=4 * n)  # fmt: skip
        p = roofline.predict(row, GPUS["A100-SXM4-80GB"], roofline.Assumptions())
        self.assertEqual(p.bound, "dram")
        # 201,326,592 bytes / (0.8 * 2,039 GB/s) = 123.42 us, + 3 us
        self.assertAlmostEqual(1e6 * p.seconds, 126.42, delta=0.01)
        # 33,554,432 operations / (0.7 * 19.5 TFLOPS) = 2.458 us
        self.assertAlmostEqual(1e6 * p.times["fp32"], 2.458, delta=0.001)

    def test_bf16_product(self):
        # 4096^3: 137.44 Gflop / (0.7 * 989.4 TFLOPS) = 198.4 us; 100.7 MB / (0.8 * 3.35 TB/s) = 37.6 us
        n = 4096
        row = counts(flops_tensor_bf16=2 * n**3, unique_read_bytes=4 * n * n, unique_written_bytes=2 * n * n)
        p = roofline.predict(row, GPUS["H100-SXM5-80GB"], roofline.Assumptions())
        self.assertEqual(p.bound, "tensor_bf16")
        self.assertAlmostEqual(1e6 * p.seconds, 198.45 + 3, delta=0.02)
        self.assertAlmostEqual(1e6 * p.times["dram"], 37.56, delta=0.02)


class Table(unittest.TestCase):
    """Figures of the GPUs against each other."""

    def test_sources_and_clocks(self):
        self.assertEqual(set(GPUS), set(SOURCES))
        for gpu in GPUS.values():
            with self.subTest(gpu.name):
                self.assertTrue(1.3e9 < gpu.clock < 2.1e9)
                self.assertAlmostEqual(gpu.tensor_bf16 / gpu.tensor_tf32, 2, delta=0.1)
                self.assertAlmostEqual(gpu.fp32 / gpu.fp64, 2, delta=0.1)


class Program(unittest.TestCase):
    """The command line."""

    def run_on(self, text, *arguments):
        """Output for a file with this text."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "counts.csv")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                roofline.main([path, *arguments])
            return out.getvalue().splitlines()

    @staticmethod
    def csv_of(*rows):
        """Text of the rows as the emulator writes it."""
        names = list(rows[0])
        quoted = lambda row: ",".join(f'"{row[n]}"' if n in ("range", "kind", "name") else row[n] for n in names)
        return "\n".join([",".join(names)] + [quoted(row) for row in rows]) + "\n"

    def test_every_line_says_predicted_and_sums_are_by_range(self):
        rows = [
            counts(name="set_up", launches=10),
            counts(range="step", entered=4, name="k<1, 2>", launches=4, flops_fp32=0),
            counts(range="step", entered=4, name="other", launches=8, graph_launches=8),
            counts(range="step/inner", entered=8, name="nested", launches=2),
            counts(range="steps", entered=1, name="not nested", launches=1000),
        ]
        lines = self.run_on(self.csv_of(*rows), "--gpu", "B200")
        self.assertTrue(all(line.startswith("predicted B200 ") for line in lines))
        self.assertTrue(any("dram=0.8" in line for line in lines))
        self.assertTrue(any(line.endswith("k<1, 2>") and "bound launch" in line for line in lines))
        total = next(line for line in lines if "range 'step'" in line)
        self.assertIn("30.00 us  in all of range 'step', 7.50 us for each of 4; 30.00 us of it launches", total)
        self.assertTrue(any("30.00 us  in all of the work outside ranges; 30.00" in line for line in lines))
        self.assertEqual(sum("in all of" in line for line in lines), 4)

    def test_options(self):
        rows = [counts(range="step", entered=1, name=name) for name in ("a", "b")] + [counts(name="c")]
        lines = self.run_on(self.csv_of(*rows), "--gpu", "B200", "--range", "st", "--top", "1", "--launch-us", "10")
        self.assertTrue(any("20.00 us  in all of range 'step'" in line and "(1 rows not shown)" in line for line in lines))
        self.assertFalse(any(line.endswith(" c") for line in lines))
        self.assertEqual(len({line.split()[1] for line in self.run_on(self.csv_of(*rows))}), len(GPUS))

    def test_a_file_of_another_kind_is_refused(self):
        with self.assertRaises(SystemExit) as caught:
            self.run_on("a,b\n1,2\n")
        self.assertIn("expected the columns of EMU_COUNT_FILE, missing: entered", str(caught.exception))
        with self.assertRaises(SystemExit):
            roofline.main([os.path.join(tempfile.gettempdir(), "there", "is", "none.csv")])


if __name__ == "__main__":
    unittest.main()
