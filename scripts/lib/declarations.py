# SPDX-License-Identifier: Apache-2.0
"""Reads the public declarations of a C++ header, with their /// comments: as much of the language as the headers here use.

What stands above `#if DPMP_BODIES` is public, but for namespaces called `detail` or `rules` and private members.
"""
import re


def skip_literal(text, i):
    """The end of the string or character literal, or comment, that starts at i; i where there is none."""
    if text.startswith("//", i):
        end = text.find("\n", i)
        return len(text) if end < 0 else end
    if text.startswith("/*", i):
        return text.index("*/", i) + 2
    raw = re.compile(r'R"([^ ()\\]{0,16})\(').match(text, i)
    if raw and not (i and (text[i - 1].isalnum() or text[i - 1] == "_")):
        return text.index(")" + raw[1] + '"', raw.end()) + len(raw[1]) + 2
    if text[i] == '"' or (text[i] == "'" and not (i and text[i - 1].isalnum())):  # 1'000 is a number
        j = i + 1
        while text[j] != text[i]:
            j += 2 if text[j] == "\\" else 1
        return j + 1
    return i


def skip_brackets(text, i):
    """The end of the brackets ( [ { that open at i."""
    depth = 0
    while i < len(text):
        j = skip_literal(text, i)
        if j > i:
            i = j
            continue
        depth += text[i] in "([{"
        depth -= text[i] in ")]}"
        i += 1
        if depth == 0:
            return i
    raise ValueError("unbalanced brackets")


def skip_angles(text, i):
    """The end of the template arguments that open at i, or i + 1 where a < is no bracket."""
    start, depth = i, 0
    while i < len(text):
        j = skip_literal(text, i)
        if j > i:
            i = j
        elif text.startswith("->", i):
            i += 2
        elif text[i] in "([{":
            i = skip_brackets(text, i)
        elif text[i] in ";)]}":
            return start + 1
        else:
            depth += text[i] == "<"
            depth -= text[i] == ">"
            i += 1
            if depth == 0:
                return i
    return start + 1


def without_comments(code):
    result, i = "", 0
    while i < len(code):
        j = skip_literal(code, i)
        if j > i and code[i] == "/":
            result += " "
        elif j > i:
            result += code[i:j]
        else:
            result += code[i]
            j = i + 1
        i = j
    return result


def preprocessed(text):
    """Of conditions the first branch, without what stands under `#if DPMP_BODIES`; documented macros as `\\x01 NAME(..)`."""
    kept, branches, documented = [], [], False
    lines = iter(text.split("\n"))
    for line in lines:
        directive = re.match(r"\s*#\s*(\w+)\s*(.*)", line)
        if not directive:
            if all(branches):
                # A macro alone on a line says something to the compiler only.
                kept.append("" if re.fullmatch(r"\s*DPMP_[A-Z_]+(\(.*\))?\s*", line) else line)
                documented = line.lstrip().startswith("///")
            continue
        while line.endswith("\\"):
            line = next(lines, "")
        word, rest = directive[1], directive[2]
        if word in ("if", "ifdef", "ifndef"):
            branches.append(not re.match(r"DPMP_BODIES\b", rest))
        elif word in ("else", "elif"):
            branches[-1] = branches[-1] is False and word == "else"
            if not branches[-1]:
                branches[-1] = None  # no further branch
        elif word == "endif":
            branches.pop()
        elif word == "define" and documented and all(branches):
            kept.append("\x01" + re.match(r"\w+(\([^)]*\))?", rest)[0])
            documented = False
    return "\n".join(kept)


class Item:
    """A declaration: kind is class, enum, function, variable, alias, concept or macro."""

    def __init__(self, kind, name, code, doc, members=()):
        self.kind, self.name, self.code, self.doc, self.members = kind, name, code, doc, list(members)
        self.trailing = ""  # a comment on the same line
        self.apart = True   # after a blank line
        self.scope = ""     # namespaces inside of the folder's


def strip_noise(head):
    """A declaration without what only compilers read."""
    head = without_comments(head)
    while (at := re.search(r"\b(__attribute__|alignas)\s*(?=\()", head)) is not None:
        head = head[:at.start()] + head[skip_brackets(head, at.end()):]
    head = re.sub(r"\[\[[^\]]*\]\]", " ", head)
    head = re.sub(r"\b(DPMP_HD|DPMP_HOST|DPMP_KEPT_BODY|DPMP_KEPT|DPMP_ANY_TEAM|__forceinline__|inline)\b", " ", head)
    head = re.sub(r"\s+", " ", head).strip()
    return re.sub(r"([(]) |\s+(?=[,;)])", r"\1", head)


REQUIREMENTS = re.compile(r"requires\s*(\([^()]*\)\s*)?(?=\{)")  # an expression, after another requires


def split_template(head):
    """(template <..> and requires clauses, the rest) of a declaration without noise."""
    i = 0
    while True:
        at = re.compile(r"\s*template\s*(?=<)").match(head, i)
        if at:
            i = skip_angles(head, at.end())
            continue
        at = re.compile(r"\s*requires\s*").match(head, i)
        if not at:
            return head[:i].strip(), head[i:].strip()
        i = at.end()
        while True:
            if (expression := REQUIREMENTS.match(head, i)) is not None:
                i = skip_brackets(head, expression.end())
            else:
                i = skip_brackets(head, i) if head[i] == "(" else re.compile(r"!?[\w:]+").match(head, i).end()
            if i < len(head) and head[i] == "<":
                i = skip_angles(head, i)
            more = re.compile(r"\s*(&&|\|\|)\s*").match(head, i)
            if not more:
                break
            i = more.end()


OPERATOR = re.compile(r"operator\s*(\(\)|\[\]|\"\"\s*\w+|new|delete|co_await|[^\s\w(]+|(const\s+)?[\w:<>]+[\s*&]*)\s*(?=\()")


def scan(text, i):
    """(end of the head, what ended it: ';', '{' or '', whether it has parameters) of the declaration that starts at i."""
    parameters = initialisers = value = False
    while i < len(text):
        j = skip_literal(text, i)
        if j > i:
            i = j
            continue
        c = text[i]
        if text.startswith("operator", i) and not text[i - 1:i].isidentifier() and (name := OPERATOR.match(text, i)):
            i = name.end()
        elif (clause := re.compile(r"(\brequires|&&|\|\|)\s*(?=requires\b)").match(text, i)):
            expression = REQUIREMENTS.match(text, clause.end())
            i = skip_brackets(text, expression.end()) if expression else clause.end()
        elif re.compile(r"\btemplate\s*<").match(text, i):
            i = skip_angles(text, text.index("<", i))
        elif c == "<" and not value:
            i = skip_angles(text, i)
        elif c in "([":
            parameters = parameters or (c == "(" and not value and not is_specifier(text, i))
            i = skip_brackets(text, i)
        elif c == ";":
            return i, ";", parameters
        elif c == "{":
            before = text[:i].rstrip()[-1:]
            if value or (initialisers and (before.isalnum() or before in "_>")):
                i = skip_brackets(text, i)
            else:
                return i, "{", parameters
        elif c == "}":
            return i, "", parameters
        elif c == "=" and text[i + 1] != "=":
            value, i = True, i + 1
        elif text.startswith("::", i):
            i += 2
        else:
            initialisers = initialisers or (c == ":" and parameters)
            i += 1
    return i, "", parameters


def is_specifier(text, i):
    """Whether the ( at i belongs to an attribute, a condition or an alignment: not to parameters."""
    return re.search(r"(\b(__attribute__|alignas|explicit|requires|decltype|noexcept)|&&|\|\|)\s*$", text[max(0, i - 40):i])


class Parser:
    def __init__(self, text):
        self.text = text

    def items(self, i=0, default_public=True, inside=""):
        """The public declarations of the scope that starts at i, up to its }; and where that is."""
        text, items, doc, public, apart = self.text, [], [], default_public, True
        while True:
            space = re.compile(r"\s*").match(text, i)
            apart, i = apart or space[0].count("\n") > 1, space.end()
            if i >= len(text) or text[i] == "}":
                return items, i
            if text.startswith("///<", i):
                end = skip_literal(text, i)
                if items:
                    items[-1].trailing = text[i + 4:end].strip()
                i = end
            elif text.startswith("///", i):
                end = skip_literal(text, i)
                doc.append(text[i + 3:end].rstrip())
                i = end
            elif text.startswith(("//", "/*"), i):
                i = skip_literal(text, i)
            elif text[i] == ";":
                i += 1
            elif text[i] == "\x01":
                end = text.find("\n", i)
                end = len(text) if end < 0 else end
                name = text[i + 1:end]
                items.append(Item("macro", re.match(r"\w+", name)[0], name, doc))
                doc, i, apart = [], end, False
            elif inside and (access := re.compile(r"(public|private|protected)\s*:(?!:)").match(text, i)):
                public, i, doc = access[1] == "public", access.end(), []
            else:
                found, i = self.declaration(i, doc, inside)
                if public and found:
                    found[0].apart = found[0].apart and apart
                    items += found
                doc, apart = [], False

    def declaration(self, i, doc, inside):
        text = self.text
        end, stop, parameters = scan(text, i)
        head = strip_noise(text[i:end])
        if stop == "":
            raise ValueError(f"no declaration ends here: {head[:80]!r}")
        if re.fullmatch(r'extern "C(\+\+)?"', head):
            items, at = self.items(end + 1)
            return items, at + 1
        if head.startswith("namespace"):
            if stop == ";":
                return [], end + 1  # an alias
            items, at = self.items(end + 1)
            name = re.sub(r"\bDPMP_ABI\b|\s", "", head[len("namespace"):]).strip(":")
            for item in items:
                item.scope = name + ("::" if name and item.scope else "") + item.scope
            return ([] if re.search(r"\b(detail|rules)\b", name) or not head[len("namespace"):].strip() else items), at + 1
        prefix, rest = split_template(head)
        type_ = re.match(r"(enum class|enum struct|enum|class|struct|union)\b\s*", rest)
        if type_ and stop == "{" and not parameters:
            return self.type(type_, prefix, rest, end, doc)
        if stop == "{" and not parameters:  # a variable with its value in braces
            end, stop = skip_brackets(text, end), ";"
            if not re.compile(r"\s*[;,]").match(text, end):
                raise ValueError(f"expected a declaration, got {head[:80]!r}")
            while text[end] != ";":  # more variables
                end = skip_brackets(text, end) if text[end] in "([{" else end + 1
            prefix, rest = split_template(strip_noise(text[i:end]))
        after = skip_brackets(text, end) if stop == "{" else end + 1
        item = self.plain(prefix, rest, parameters, doc, inside)
        if item and stop == ";":
            comment = re.compile(r"[ \t]*//(?!/)([^\n]*)").match(text, after)
            if comment:
                item.trailing = comment[1].strip()
        return ([item] if item else []), after

    def type(self, type_, prefix, rest, brace, doc):
        name = re.match(r"[\w:]+(<.*>)?", rest[type_.end():])
        name = name[0].split("<")[0] if name else ""
        if type_[1].startswith("enum"):
            after = skip_brackets(self.text, brace)
            item = Item("enum", name, rest, doc, enumerators(self.text[brace + 1:after - 1]))
        else:
            members, at = self.items(brace + 1, type_[1] != "class", name or "anonymous")
            after = at + 1
            item = Item("class", name, (prefix + "\n" if prefix else "") + rest, doc, members)
        tail = re.compile(r"\s*([^;{}()]*);").match(self.text, after)  # what is declared of it at once
        if tail:
            after = tail.end()
        special = re.search(r"template\s*<\s*>", prefix) or "::" in name or not name
        return ([] if special else [item]), after

    def plain(self, prefix, rest, parameters, doc, inside):
        if re.match(r"(static_assert|extern|using namespace|friend (class|struct)|namespace)\b", rest):
            return None
        if re.search(r"template\s*<\s*>", prefix) or re.match(r"template\b", rest) or not rest:
            return None
        template = prefix + "\n" if prefix else ""
        alias = re.match(r"using\s+(\w+)\s*=|typedef\b.*?(\w+)(?=$|\)\s*\()", rest)
        if alias:
            return Item("alias", alias[1] or alias[2], template + rest, doc)
        if (concept := re.match(r"concept\s+(\w+)", rest)) is not None:
            return Item("concept", concept[1], template + rest, doc)
        pointer = re.match(r"[\w:<>,\s*&]+\(\s*[*&]+\s*(\w+)\s*\)\s*\(", rest)
        if pointer:
            return Item("variable", pointer[1], template + rest, doc)
        if not parameters:
            if re.match(r"(class|struct|union|enum)\b[\w\s:]*$", rest) or rest.startswith("using "):
                return None
            declarator = cut_value(rest)
            first = re.sub(r"(?<!:):(?!:).*", "", declarator.split(",")[0])  # without the width of a bit field
            name = re.search(r"(\w+)\s*(\[[^\]]*\]\s*)*$", first)
            return Item("variable", name[1] if name else declarator, template + short_value(rest, declarator), doc)
        if re.search(r"=\s*delete$", rest) or rest.startswith("~") or re.match(r"virtual\s+~", rest):
            return None
        operator = OPERATOR.search(rest)
        if operator:
            name, at = operator[0].strip(), operator.end()
        else:
            at = opening(rest)
            called = re.search(r"([\w~]+)\s*$", rest[:at])
            if not called:
                return None
            name = called[1]
            if re.search(r"::\s*$", rest[:called.start()]):
                return None  # a member, defined outside of its class
        if operator and re.search(r"::\s*$", rest[:operator.start()]):
            return None
        code = re.sub(r"\s*=\s*default$", "", cut_initialisers(rest, at))
        if name == inside and re.fullmatch(r"\w+\(((const )?\w+&{1,2}( \w+)?)\)( noexcept)?", code) and inside in code[at:]:
            return None  # copies and moves
        if name == "operator=" or (name == inside and code == name + "()" and not doc):
            return None
        return Item("function", name, template + code, doc)


def opening(rest):
    """Where the parameters of a function open."""
    i = 0
    while i < len(rest):
        if rest[i] == "<":
            i = skip_angles(rest, i)
        elif rest[i] == "(" and not is_specifier(rest, i):
            return i
        elif rest[i] in "([{":
            i = skip_brackets(rest, i)
        else:
            i += 1
    return i


def cut_initialisers(rest, at):
    """A constructor without `: member(value) ..`."""
    i = skip_brackets(rest, at)
    while i < len(rest):
        if rest[i] in "([{":
            i = skip_brackets(rest, i)
        elif rest.startswith("::", i):
            i += 2
        elif rest[i] == ":":
            return rest[:i].strip()
        else:
            i += 1
    return rest


def cut_value(rest):
    """A variable without its value."""
    i = 0
    while i < len(rest):
        if rest[i] == "<":
            i = skip_angles(rest, i)
        elif rest[i] in "([":
            i = skip_brackets(rest, i)
        elif rest[i] in "={":
            return rest[:i].strip()
        else:
            i += 1
    return rest


def short_value(rest, declarator):
    """The declaration without a value that takes many words; several variables are left as they are."""
    value = re.sub(r"\([^()]*\)|\{[^{}]*\}|<[^<>]*>", "", rest[len(declarator):])
    return rest if len(rest) - len(declarator) <= 60 or "," in value else declarator + " = .."


def enumerators(body):
    """The lines between the braces of an enum, comments included."""
    lines = [re.sub(r"///<?", "//", line.strip()) for line in body.strip().split("\n")]
    return [line for line in lines if line]


def merged(items):
    """Without repeated declarations; a comment of either one stays."""
    seen, result = {}, []
    for item in items:
        key = (item.kind, item.code)
        if key in seen:
            seen[key].doc = seen[key].doc or item.doc
        else:
            seen[key] = item
            result.append(item)
    return result


def introduction(text):
    """The comment at the top of a header."""
    lines = []
    for line in text.split("\n")[1:]:
        if not line.startswith("//"):
            break
        lines.append(line[2:].rstrip())
    return lines


def declarations(text):
    """The public declarations of a header."""
    items, end = (parser := Parser(preprocessed(text))).items()
    if end < len(parser.text):
        raise ValueError("a } too many")
    return merged(items)
