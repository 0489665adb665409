# SPDX-License-Identifier: Apache-2.0
"""Form of the emulator's sources that no formatter checks: width, ASCII, licence line."""
import os
import unittest

from .harness import ROOT

WIDTH = 125
ENDINGS = (".py", ".md", ".hpp", ".cpp", ".h", ".cu", ".cuh", ".txt")


def sources():
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if not f.startswith((".", "__", "build"))]
        for name in names:
            if name.endswith(ENDINGS):
                yield os.path.join(folder, name)


class SourceTest(unittest.TestCase):
    def test_form(self):
        wrong, count = [], 0
        for path in sources():
            with open(path, encoding="utf-8") as file:
                lines = file.read().split("\n")
            count += 1
            where = os.path.relpath(path, ROOT)
            head = "".join(lines[:2])  # the second line after a #! line
            if not path.endswith(".md") and "SPDX-License-Identifier: Apache-2.0" not in head:
                wrong.append(f"{where}: no licence line")
            for number, line in enumerate(lines, 1):
                if len(line) > WIDTH or not line.isascii() or line != line.rstrip():
                    wrong.append(f"{where}:{number}: {len(line)} columns" + ("" if line.isascii() else ", not ASCII"))
        self.assertGreater(count, 50)
        self.assertFalse(wrong, "\n".join(wrong))


if __name__ == "__main__":
    unittest.main()
