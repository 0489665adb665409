# SPDX-License-Identifier: Apache-2.0
"""Text level of PTX ("Syntax" in the PTX ISA): comments, statements with their lines, comma lists, C++ names."""
import re

from .errors import TranslationError

_COMMENT = re.compile(r'"[^"\n]*"|/\*.*?\*/|//[^\n]*', re.S)
_LABEL = re.compile(r"\s*[\w$%]+\s*")
_LINE_DIRECTIVE = re.compile(r"\s*\.(loc|file)\b")
_INTERESTING = re.compile(r'[{};:"\n]')
_OPENING, _CLOSING = "{[(", "}])"


def blank(text):
    """`text` with everything but line ends replaced by spaces, so that positions and lines stay as in the file."""
    return re.sub(r"[^\n]", " ", text)


def without_comments(source):
    """PTX source with its comments blanked out. Strings keep what looks like a comment in them."""
    return _COMMENT.sub(lambda m: m[0] if m[0].startswith('"') else blank(m[0]), source)


def split_list(text):
    """Items of a comma list; commas inside {}, [] and () do not separate."""
    items, depth, current = [], 0, ""
    for char in text:
        if char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth -= 1
        if char == "," and depth == 0:
            items.append(current.strip())
            current = ""
        else:
            current += char
    if current.strip():
        items.append(current.strip())
    return items


def end_of_block(source, position):
    """Position after the } that closes the block whose { ends just before `position`."""
    depth = 1
    for match in re.compile(r"[{}]").finditer(source, position):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.end()
    raise TranslationError("block is not closed", source.count("\n", 0, position) + 1)


def statements(body, first_line=1):
    """Yields (line, text) of each statement of a function body.

    text is "{" or "}" for a scope, "name:" for a label, a .loc/.file directive without its end of line, and else a
    directive or instruction without its semicolon. A brace inside an instruction (vector operands) opens no scope.
    """
    start, position, depth, line = 0, 0, 0, first_line
    statement_line = first_line

    def current():
        return body[start:position]

    while True:
        match = _INTERESTING.search(body, position)
        if match is None:
            if body[start:].strip():
                raise TranslationError("statement without an end: " + body[start:].strip()[:80], line)
            return
        position, char = match.start(), match[0]
        if not current().strip():
            # the statement starts on the line of its first visible character
            statement_line = line
        else:
            statement_line = line - current().lstrip().count("\n")
        if char in "{}" and depth == 0 and not current().strip():
            yield line, char
            start = position + 1
        elif char == '"':
            position = body.index('"', position + 1)
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
        elif char == ";" and depth == 0:
            if current().strip():
                yield statement_line, current().strip()
            start = position + 1
        elif char == ":" and depth == 0 and _LABEL.fullmatch(current()) and body[position + 1 : position + 2] != ":":
            yield statement_line, current().strip() + ":"
            start = position + 1
        elif char == "\n":
            if _LINE_DIRECTIVE.match(current()):
                yield statement_line, current().strip()
                start = position + 1
            line += 1
        position += 1


def cpp_name(name):
    """A PTX identifier as C++ identifier; % and $ have no place in one."""
    return re.sub(r"[^A-Za-z0-9_]", lambda m: "_" if m[0] == "%" else "_x%x_" % ord(m[0]), name)


def cpp_register(name):
    """C++ variable of a register. Names without % come from inline assembly and get a prefix: they may be C++ words."""
    return cpp_name(name) if name.startswith("%") else "u_" + cpp_name(name)
