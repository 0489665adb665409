# SPDX-License-Identifier: Apache-2.0
"""Command line of the translator.

usage: translator --info in.ptx out.info [out.parsed]    kernels, parameters, variables and functions of a module, one a line
       translator --kernel NAME in out.cpp               C++ of one kernel and of everything it calls

in: PTX, or a file .parsed that --info wrote. A program has megabytes of PTX and hundreds of kernels: reading it once saves
nine tenths of the time of translating them.
"""
import pickle
import sys

from .errors import TranslationError
from .kernel import translate_kernel
from .module import Module


def main(argv):
    """Runs one command; returns the exit status. Errors go to stderr, one a line, as file:line: message."""
    parsed = None
    if len(argv) in (4, 5) and argv[1] == "--info":
        source, target, parsed = argv[2], argv[3], argv[4] if len(argv) == 5 else None
        work = lambda module: module.info()
    elif len(argv) == 5 and argv[1] == "--kernel":
        source, target = argv[3], argv[4]
        work = lambda module: translate_kernel(module, argv[2])
    else:
        sys.stderr.write(__doc__)
        return 2
    try:
        module, source = read_module(source)
        text = work(module)
    except TranslationError as error:
        for line in error.lines():
            sys.stderr.write(f"{source}:{line}\n")
        return 1
    if parsed:
        with open(parsed, "wb") as file:
            pickle.dump((module, source), file, protocol=pickle.HIGHEST_PROTOCOL)
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


def read_module(path):
    """(module, path of its PTX) of a file of PTX or of a parsed module."""
    if path.endswith(".parsed"):
        with open(path, "rb") as file:
            return pickle.load(file)
    with open(path, encoding="utf-8") as file:
        return Module(file.read()), path
