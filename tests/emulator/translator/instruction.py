# SPDX-License-Identifier: Apache-2.0
"""One PTX instruction and the table of who translates which.

A handler takes the modifiers it knows off the instruction; `translate` then checks that none is left. That makes an
unknown modifier an error without a list of all modifiers of the ISA.
"""
import re

from .errors import TranslationError
from .lexer import split_list
from .ptx_types import BITS

_SHAPE = re.compile(r"(?:@(?P<negated>!?)(?P<guard>[%\w$]+)\s+)?(?P<op>[\w.:]+)\s*(?P<operands>.*)$", re.S)
_ROUNDING = {"rn": "RN", "rz": "RZ", "rm": "RM", "rp": "RP"}
#: Hints to caches and prefetchers. They change no value, only time ("Cache Operators", "Cache Eviction Priority Hints").
CACHE_HINTS = re.compile(
    r"(ca|cg|cs|lu|cv|wb|wt|nc)|(L1|L2)::(evict_\w+|no_allocate|cache_hint|\d+B)|level::eviction_priority"
)
SCOPES = ("cta", "cluster", "gpu", "sys")


class Instruction:
    """name, modifiers (in order, without dots), operands (text), guard predicate; `op` is the text with all modifiers."""

    def __init__(self, text):
        match = _SHAPE.match(text)
        if not match:
            raise TranslationError("syntax: " + " ".join(text.split())[:120])
        self.text = text
        self.guard, self.guard_negated = match["guard"], bool(match["negated"])
        self.op = match["op"]
        self.name, *self.modifiers = self.op.split(".")
        self.operands = split_list(match["operands"].strip())
        self.last_type = self.modifiers[-1] if self.modifiers and self.modifiers[-1] in BITS else None

    def error(self, reason):
        """Error that names this instruction."""
        return TranslationError(f"{self.op}: {reason}")

    def take(self, *names):
        """Removes the first modifier that is one of `names` and returns it, or None."""
        for index, modifier in enumerate(self.modifiers):
            if modifier in names:
                return self.modifiers.pop(index)
        return None

    def has(self, name):
        """Whether the modifier is there; removes it."""
        return self.take(name) is not None

    def need(self, *names):
        """Like `take`, but one of the names must be there."""
        found = self.take(*names)
        if found is None:
            raise self.error("expected one of ." + ", .".join(names))
        return found

    def take_matching(self, pattern):
        """Removes all modifiers that match the compiled pattern as a whole; returns them."""
        found = [m for m in self.modifiers if pattern.fullmatch(m)]
        self.modifiers = [m for m in self.modifiers if not pattern.fullmatch(m)]
        return found

    def take_type(self, allowed=None):
        """Removes the last modifier, which must be a type (one of `allowed`), and returns it."""
        if not self.modifiers or self.modifiers[-1] not in BITS:
            raise self.error("expected a type as last modifier")
        if allowed is not None and self.modifiers[-1] not in allowed:
            raise self.error(f"type .{self.modifiers[-1]} is not modelled")
        return self.modifiers.pop()

    def take_rounding(self):
        """Rounding mode as the helpers name it; nearest even where none is written."""
        return _ROUNDING[self.take(*_ROUNDING) or "rn"]

    def take_space(self, *spaces):
        """State space without its sub-qualifier (shared::cta is shared), "generic" where none is written."""
        for index, modifier in enumerate(self.modifiers):
            base, _, sub = modifier.partition("::")
            if base in spaces:
                if sub not in ("", "cta", "entry", "func"):
                    raise self.error(f"state space .{modifier} is not modelled")
                del self.modifiers[index]
                return base
        return "generic"

    def operand(self, index):
        """Text of an operand; a missing one is an error."""
        if index >= len(self.operands):
            raise self.error(f"operand {index + 1} is missing")
        return self.operands[index]


_HANDLERS = {}  # name -> list of (types or None, handler)


def handles(*names, types=None):
    """Decorator: the function translates the instructions `names`, for those whose last modifier is one of `types`.

    A handler gets (instruction, emitter) and returns C++ text.
    """

    def register(handler):
        for name in names:
            _HANDLERS.setdefault(name, []).append((types, handler))
        return handler

    return register


def translate(instruction, emitter):
    """C++ of the instruction without its guard. Raises TranslationError for what is not modelled."""
    candidates = _HANDLERS.get(instruction.name)
    if candidates is None:
        raise TranslationError(f"unknown instruction '{instruction.op}'")
    for types, handler in candidates:
        if types is None or instruction.last_type in types:
            try:
                code = handler(instruction, emitter)
            except TranslationError as error:
                raise error.naming(instruction.op)
            if instruction.modifiers:
                raise TranslationError(f"unknown modifier '.{instruction.modifiers[0]}' in '{instruction.op}'")
            return code
    raise instruction.error(f"type .{instruction.last_type or '?'} is not modelled")


def known_instructions():
    """Names of all instructions that some family handles."""
    return sorted(_HANDLERS)
