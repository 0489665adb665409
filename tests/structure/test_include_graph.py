# SPDX-License-Identifier: Apache-2.0
"""scripts/include_graph: what it counts, the order of folders, and that nothing covers anything. python3 test_include_graph.py"""
import contextlib
import io
import re
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parents[2]
loader = SourceFileLoader("include_graph", str(REPOSITORY / "scripts" / "include_graph"))
graph = module_from_spec(spec_from_loader("include_graph", loader))
loader.exec_module(graph)


def rectangles(svg, kind):
    """(left, top, right, bottom) of the boxes or chips of a picture."""
    found = []
    for r in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect"):
        if r.get("class") == kind:
            x, y = float(r.get("x")), float(r.get("y"))
            found.append((x, y, x + float(r.get("width")), y + float(r.get("height"))))
    return found


def lines(svg):
    """The horizontal and vertical lines of a picture as rectangles without an area."""
    found = []
    for x, y, way, to in re.findall(r'class="line" d="M(\d+) (\d+)([HV])(\d+)"', svg):
        x, y, to = float(x), float(y), float(to)
        found.append((min(x, to), y, max(x, to), y) if way == "H" else (x, min(y, to), x, max(y, to)))
    return found


def meet(p, q):
    return p[0] < q[2] and q[0] < p[2] and p[1] < q[3] and q[1] < p[3]


class IncludeGraph(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.add("core/a.hpp", "")
        self.add("core/b.hpp", '#include "dpmp/core/a.hpp"\n')
        self.add("runtime/c.cuh", '#include "dpmp/core/a.hpp"\n#  include "dpmp/core/b.hpp"\n// #include "dpmp/nn/x.hpp"\n')
        self.add("other/d.hpp", '#include "dpmp/runtime/c.cuh"\n#include <vector>\n')

    def add(self, name, text):
        path = self.root / "dpmp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def test_counts_and_order(self):
        headers, includes = graph.read(self.root)
        self.assertEqual(headers, {"core": 2, "runtime": 1, "other": 1})
        self.assertEqual(includes, {("runtime", "core"): 2, ("other", "runtime"): 1})
        self.assertEqual(graph.ordered(headers, includes), ["other", "runtime", "core"])

    def test_folders_that_include_each_other_are_named(self):
        self.add("core/e.hpp", '#include "dpmp/runtime/c.cuh"\n')
        with self.assertRaisesRegex(ValueError, "include each other: core, runtime"):
            graph.picture(self.root)

    def test_a_missing_folder_is_named(self):
        self.add("core/e.hpp", '#include "dpmp/missing/c.cuh"\n')
        with self.assertRaisesRegex(ValueError, "no headers in missing"):
            graph.picture(self.root)

    def test_check_says_whether_the_picture_is_current(self):
        arguments = ["--include", str(self.root), "--output", str(self.root / "picture.svg")]
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(graph.main(arguments + ["--check"]), 1)
            self.assertEqual(graph.main(arguments), 0)
            self.assertEqual(graph.main(arguments + ["--check"]), 0)
            self.add("other/f.hpp", '#include "dpmp/core/a.hpp"\n')
            self.assertEqual(graph.main(arguments + ["--check"]), 1)

    def test_nothing_covers_anything(self):
        svg = graph.picture(REPOSITORY / "include")
        boxes, chips = rectangles(svg, "box"), rectangles(svg, "chip")
        _, includes = graph.read(REPOSITORY / "include")
        self.assertEqual(len(chips), len(includes))
        everything = boxes + chips
        for k, p in enumerate(everything):
            for q in everything[:k]:
                self.assertFalse(meet(p, q), (p, q))
        for box in boxes:
            for line in lines(svg):
                self.assertFalse(meet(box, line), (box, line))


if __name__ == "__main__":
    unittest.main()
