# SPDX-License-Identifier: Apache-2.0
"""Source lines for reports, from .loc ("Debugging Directives: .loc").

Code of an inlined function says where it was inlined: `.loc 2 449 9, function_name L, inlined_at 1 7 3`. The position of
the call has such a directive of its own if it lies in an inlined function too, which makes a chain out to the kernel.
"""
import re

_LOC = re.compile(r"\.loc\s+(\d+)\s+(\d+)\s+(\d+)(?:.*\binlined_at\s+(\d+)\s+(\d+)\s+(\d+))?", re.S)


class Locations:
    """The positions of one function, as its .loc directives come."""

    def __init__(self, module):
        self._module = module
        self._callers = {}  # position -> position where the function around it was inlined
        self.here = ""  # for a report: "FILE:LINE", or "FILE:LINE (from FILE:LINE)" in inlined code

    def read(self, directive):
        """Takes in a .loc directive; any other text changes nothing and gives False."""
        match = _LOC.match(directive)
        if not match:
            return False
        position = match.groups()[:3]
        self._callers[position] = match.groups()[3:] if match[4] else None
        chain = self._chain(position)
        # the user's innermost line: one in the toolkit's headers says nothing about the program
        own = [p for p in chain if p[0] not in self._module.toolkit_files] or chain
        self.here = self._name(own[0])
        if self._name(own[-1]) != self.here:
            self.here += f" (from {self._name(own[-1])})"
        return True

    def _chain(self, position):
        chain = []
        while position is not None and position not in chain:
            chain.append(position)
            position = self._callers.get(position)
        return chain

    def _name(self, position):
        return f"{self._module.files.get(position[0], position[0])}:{position[1]}"
