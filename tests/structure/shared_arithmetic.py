# SPDX-License-Identifier: Apache-2.0
"""No inline function that both dpmp::compiled and a user's unit may emit fuses a product into a sum: a linker keeps one of
the two, and the results of the library would follow the flags of the user's unit. Asked of the objects: names that the
library defines as weak ones and that a unit with everything of the headers defines, too.

    shared_arithmetic.py COMPILER LIBRARY INCLUDE WORK
"""
import pathlib
import re
import subprocess
import sys

FUSED = re.compile(r"^vf(n?m(add|sub))")
OPTIONS = ["-std=c++20", "-O2", "-mavx2", "-mfma", "-Wno-psabi", "-DDPMP_COMPILED=1", "-fkeep-inline-functions"]


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def without_options(name):
    """A mangled name without the inline namespace that spells what a unit was compiled with."""
    def cut(match):
        rest = match.group(2)
        return "_" + without_options(rest[int(match.group(1)):])
    return re.sub(r"(\d+)(v1_c\w*)", cut, name)


def weak_functions(file):
    """The instructions of each weak function of dpmp in an object or a library, by name without options."""
    weak = {fields[2] for fields in map(str.split, output("nm", file).splitlines())
            if len(fields) == 3 and fields[1] == "W" and "4dpmp" in fields[2]}
    functions, current = {}, None
    for line in output("objdump", "-d", "--no-show-raw-insn", file).splitlines():
        if line.endswith(">:") and (start := re.match(r"^[0-9a-f]+ <(.*)>:$", line)):
            current = without_options(start.group(1)) if start.group(1) in weak else None
            if current:
                functions.setdefault(current, set())
        elif current and (instruction := re.match(r"^\s+[0-9a-f]+:\s+(\S+)", line)):
            functions[current].add(instruction.group(1))
    return functions


def main():
    compiler, library, include, work = sys.argv[1:]
    pathlib.Path(work).mkdir(parents=True, exist_ok=True)
    unit, source = work + "/unit.o", work + "/unit.cpp"
    pathlib.Path(source).write_text("#include <dpmp/dpmp.hpp>\n")
    subprocess.run([compiler, *OPTIONS, "-I" + include, "-c", source, "-o", unit], check=True)
    ours, theirs = weak_functions(library), weak_functions(unit)
    shared = ours.keys() & theirs.keys()
    if len(shared) < 20 or not any(FUSED.match(i) for f in theirs.values() for i in f):
        sys.exit(f"expected names that both define and fused products in the unit, got {len(shared)} names: nothing is tested")
    fused = sorted(n for n in shared if any(FUSED.match(i) for i in ours[n] | theirs[n]))
    if fused:
        names = subprocess.run(["c++filt"], input="\n".join(fused), capture_output=True, text=True, check=True).stdout
        sys.exit("expected functions with sums of products that only one of library and unit defines (mark them "
                 "DPMP_HOST, or put them below DPMP_BODIES), got\n" + names)
    print(f"{len(shared)} functions are shared, none of them fuses a product")


main()
