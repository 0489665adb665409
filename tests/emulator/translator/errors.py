# SPDX-License-Identifier: Apache-2.0
"""The one error of the translator."""


class TranslationError(Exception):
    """Something in the PTX is not modelled or not understood.

    Handlers raise it without a line; whoever knows the line calls `at`. Several errors of one kernel are joined, so that
    one run names everything that is missing.
    """

    def __init__(self, message, line=None):
        super().__init__(message)
        self.message = message
        self.line = line
        self.others = []

    def at(self, line):
        """The same error with its PTX line, unless it has one already."""
        if self.line is None:
            self.line = line
        return self

    def naming(self, name):
        """The same error with the instruction's name before it, unless it has that already."""
        if name not in self.message:
            self.message = f"{name}: {self.message}"
        return self

    def lines(self):
        """All messages as `line: message`."""
        own = f"{self.line or 0}: {self.message}"
        return [own] + [text for other in self.others for text in other.lines()]

    def __str__(self):
        return "\n".join(self.lines())

    @staticmethod
    def joined(errors):
        """One error that carries all of `errors` (at least one)."""
        first = errors[0]
        first.others = list(errors[1:])
        return first
