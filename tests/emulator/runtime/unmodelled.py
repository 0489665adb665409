# SPDX-License-Identifier: Apache-2.0
"""Writes C stubs for the API functions that a stand-in library does not define, so that calling one fails with its name.

usage: unmodelled.py OUT.c PREFIX HANDLER STATUS_TYPE HEADER... -- OBJECT...
A stub takes no arguments, calls HANDLER(name) and returns its value: on x86-64 unread arguments do no harm.
"""
import re
import subprocess
import sys


def declared(headers, prefix, status):
    names = set()
    for path in headers:
        text = open(path, encoding='latin-1').read()
        names |= set(re.findall(r'\b' + status + r'\b[\w\s]*?\b(' + prefix + r'\w+)\s*\(', text))
    return names


def defined(objects):
    text = subprocess.run(['nm', '--defined-only', *objects], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r' [TW] (\w+)$', text, re.M))


def main():
    out, prefix, handler, status = sys.argv[1:5]
    split = sys.argv.index('--')
    missing = sorted(declared(sys.argv[5:split], prefix, status) - defined(sys.argv[split + 1:]))
    with open(out, 'w', encoding='ascii') as f:
        f.write(f'int {handler}(const char*);\n')
        f.writelines(f'int {name}(void) {{ return {handler}("{name}"); }}\n' for name in missing)


main()
