# SPDX-License-Identifier: Apache-2.0
"""`python3 -m translator ...` and `python3 <folder of the package> ...`: the runtime uses the second form."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from translator.cli import main  # noqa: E402  (the path above must be set first)

sys.exit(main(sys.argv))
