# SPDX-License-Identifier: Apache-2.0
"""The instructions, one file per family of the PTX ISA. Importing the package registers all handlers.

A new instruction: write a handler in the file of its family with the `handles` decorator, take each modifier it models
off the instruction, return C++ made of a helper in device/, and add a test in translator_tests/.
"""
from . import (  # noqa: F401
    approximate,
    async_copy,
    atomics,
    barrier,
    bits,
    calls,
    carry,
    compare,
    control,
    convert,
    data,
    floating,
    halves,
    integer,
    matrix,
    memory,
    simd,
    warp,
)
