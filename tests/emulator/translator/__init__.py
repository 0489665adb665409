# SPDX-License-Identifier: Apache-2.0
"""PTX text -> C++ that runs on the emulated device.

One kernel of a PTX module becomes one C++ file: a function that runs one CUDA thread, written against the helpers in
`device/` and the interface to the runtime in `runtime/emu_abi.h`.

    lexer         comments, statements, comma lists          types         PTX scalar types and the C++ types that hold them
    variables     module and function variables, data        module        functions, parameters, variables of a PTX file
    instruction   one instruction; who handles which          emitter       operands -> C++ expressions
    function      body of one function                        kernel        one kernel and all it needs -> C++ file
    locations     source lines for reports                  counting      classes of instructions for the counts
    families/     the instructions, one file per family of the PTX ISA

Rule of the package: what is not modelled is an error that names the instruction, the modifier and the line. Nothing is
skipped silently, since a test that passes on a skipped instruction proves nothing.
"""
