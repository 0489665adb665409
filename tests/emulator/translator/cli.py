# SPDX-License-Identifier: Apache-2.0
"""Command line of the translator.

usage: translator --info in.ptx out.info          kernels, parameters, variables and functions of a module, one a line
       translator --kernel NAME in.ptx out.cpp    C++ of one kernel and of everything it calls
"""
import sys

from .errors import TranslationError
from .kernel import translate_kernel
from .module import Module


def main(argv):
    """Runs one command; returns the exit status. Errors go to stderr, one a line, as file:line: message."""
    if len(argv) == 4 and argv[1] == "--info":
        source, target = argv[2], argv[3]
        work = lambda module: module.info()
    elif len(argv) == 5 and argv[1] == "--kernel":
        source, target = argv[3], argv[4]
        work = lambda module: translate_kernel(module, argv[2])
    else:
        sys.stderr.write(__doc__)
        return 2
    try:
        with open(source, encoding="utf-8") as file:
            text = work(Module(file.read()))
    except TranslationError as error:
        for line in error.lines():
            sys.stderr.write(f"{source}:{line}\n")
        return 1
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)
    return 0
