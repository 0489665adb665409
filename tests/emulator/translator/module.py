# SPDX-License-Identifier: Apache-2.0
"""A PTX module: its functions, parameters and variables ("PTX Module Directives", "Specifying Kernel Entry Points and
Functions")."""
import re
from dataclasses import dataclass

from .errors import TranslationError
from .lexer import blank, end_of_block, without_comments
from .ptx_types import BITS
from .variables import parse_variable

_FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', re.M)
_HEADER = re.compile(r"^\s*\.(version|target|address_size|file)\b[^\n]*$", re.M)
_SECTION = re.compile(r"^\s*\.section\s+[^{]*\{[^}]*\}", re.M)
_FUNCTION = re.compile(r"\.(?P<kind>entry|func)\s*(\((?P<returns>[^)]*)\))?\s*(?P<name>[\w$]+)\s*(\((?P<params>[^)]*)\))?")
_PARAMETER = re.compile(
    r"\.(?P<space>param|reg)\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)\s+"
    r"(?:\.ptr\s*(?:\.(?:global|shared|local|const)\s*)?(?:\.align\s+\d+\s+)?)?(?P<name>[\w$%]+)(?:\[(?P<count>\d*)\])?$"
)
_MAXNTID = re.compile(r"\.maxntid\s+([\d,\s]+)")
#: headers of the CUDA toolkit, as nvcc writes their paths
_TOOLKIT = re.compile(r"/targets/[^/]+/include/|/cuda(-[\d.]+)?/include/|/nvidia/[^/]+/include/")
_WITHOUT_MEANING_HERE = (".pragma", ".alias")


@dataclass
class Parameter:
    """One parameter: where it lies in the parameter block of the launch (bytes)."""

    name: str
    offset: int
    size: int
    align: int


@dataclass
class Function:
    """A function with a body. first_line is the line of the { that opens it."""

    name: str
    is_entry: bool
    returns: list
    params: list
    max_threads: list
    body: str
    first_line: int


class Module:
    """A parsed PTX file. Bodies of functions stay text: they are translated only when a kernel needs them."""

    def __init__(self, source):
        source = without_comments(source)
        self.variables = {}  # name -> Variable
        self.functions = {}  # name -> Function, or None for one that is only declared
        paths = dict(_FILE.findall(source))
        self.files = {number: path.rsplit("/", 1)[-1] for number, path in paths.items()}
        self.toolkit_files = {number for number, path in paths.items() if _TOOLKIT.search(path)}
        source = _HEADER.sub(lambda m: blank(m[0]), source)
        source = _SECTION.sub(lambda m: blank(m[0]), source)
        self._parse(source)
        device = [name for name, function in self.functions.items() if function and not function.is_entry]
        #: numbers that stand for device functions (function pointers) and for variables in global memory
        self.function_index = {name: number for number, name in enumerate(device)}
        placed = [v.name for v in self.variables.values() if v.space in ("global", "const")]
        self.global_index = {name: number for number, name in enumerate(placed)}

    def _parse(self, source):
        line, counted, position = 1, 0, 0  # line: of the position `counted`
        while True:
            start = re.compile(r"[^\s;]").search(source, position)
            if start is None:
                return
            start = start.start()
            line, counted = line + source.count("\n", counted, start), start
            stop = re.compile(r"[;{=]").search(source, start)
            if stop is None:
                raise TranslationError("statement without an end", line)
            stop = stop.start()
            head = source[start:stop]
            try:
                if re.search(r"\.(entry|func)\b", head):
                    position = self._function(source, head, stop, line + head.count("\n"))
                    continue
                if source[stop] == "{":
                    raise TranslationError("unexpected { after " + " ".join(head.split())[:80])
                position = source.index(";", stop) + 1
                statement = source[start : position - 1]
                if not statement.strip().startswith(_WITHOUT_MEANING_HERE):
                    variable = parse_variable(statement)
                    self.variables[variable.name] = variable
            except TranslationError as error:
                raise error.at(line)

    def _function(self, source, head, stop, line):
        """Reads a function declaration or definition whose head ends at `stop`, in this line; returns the position after
        it."""
        match = _FUNCTION.search(head)
        if not match:
            raise TranslationError("function header: " + " ".join(head.split())[:120])
        if source[stop] != "{":
            self.functions.setdefault(match["name"], None)
            return stop + 1
        limit = _MAXNTID.search(head[match.end() :])
        end = end_of_block(source, stop + 1)
        self.functions[match["name"]] = Function(
            name=match["name"],
            is_entry=match["kind"] == "entry",
            returns=parse_parameters(match["returns"] or ""),
            params=parse_parameters(match["params"] or ""),
            max_threads=[int(x) for x in limit[1].split(",") if x.strip()] if limit else [],
            body=source[stop + 1 : end - 1],
            first_line=line,
        )
        return end

    def info(self):
        """What the runtime must know before any kernel is translated, one item a line:

        kernel NAME COUNT OFFSET:SIZE... MAX_THREADS | global NAME ALIGN SIZE HEX_OR_- MANAGED | func NAME NUMBER |
        reloc GLOBAL OFFSET SYMBOL ADDEND
        """
        lines = []
        for function in self.functions.values():
            if function and function.is_entry:
                limit = 1
                for extent in function.max_threads or [1024]:
                    limit *= extent
                places = " ".join(f"{p.offset}:{p.size}" for p in function.params)
                lines.append(f"kernel {function.name} {len(function.params)} {places} {limit}")
        for name in self.global_index:
            v = self.variables[name]
            lines.append(f"global {name} {v.align} {v.size} {v.data.hex() or '-'} {int(v.managed)}")
        lines += [f"func {name} {number}" for name, number in self.function_index.items()]
        for name in self.global_index:
            for offset, symbol, addend in self.variables[name].relocations:
                lines.append(f"reloc {name} {offset} {symbol} {addend}")
        return "\n".join(lines) + "\n"


def parse_parameters(text):
    """Parameters of a parameter list, laid out as the ISA says: in order, each at its natural or given alignment."""
    params, offset = [], 0
    for item in filter(None, (x.strip() for x in text.split(","))):
        match = _PARAMETER.match(item)
        if not match or match["space"] == "reg" or match["type"] not in BITS:
            raise TranslationError("parameter: " + item)
        element = BITS[match["type"]] // 8
        size = element * int(match["count"] or 1)
        align = int(match["align"] or element)
        offset = (offset + align - 1) // align * align
        params.append(Parameter(match["name"], offset, size, align))
        offset += size
    return params
