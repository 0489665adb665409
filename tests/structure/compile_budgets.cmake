# SPDX-License-Identifier: Apache-2.0
# What examples/quickstart.cpp costs a compiler, in numbers that do not depend on a machine's load: lines behind the
# preprocessor, functions and bytes of code in its object. Budgets are a tenth above what g++ 12 counted when they were set;
# other compilers count differently, so that theirs are only told.
set(source ${SOURCES}/../../examples/quickstart.cpp)
execute_process(COMMAND ${COMPILER} --version OUTPUT_VARIABLE kind)
execute_process(COMMAND ${COMPILER} -dumpversion OUTPUT_VARIABLE version OUTPUT_STRIP_TRAILING_WHITESPACE)
file(MAKE_DIRECTORY ${WORK})

function(count variable pattern)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "${pattern}" found "${text}")
  list(LENGTH found number)
  set(${variable} ${number} PARENT_SCOPE)
endfunction()

# measure(NAME LINES FUNCTIONS BYTES FLAGS...): compiles and compares.
function(measure name most_lines most_functions most_bytes)
  set(compile ${COMPILER} -std=c++20 -O2 -Wno-psabi -I${INCLUDE} ${ARGN} ${source})
  execute_process(COMMAND ${compile} -E -P -o ${WORK}/${name}.ii COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${compile} -c -o ${WORK}/${name}.o COMMAND_ERROR_IS_FATAL ANY)
  count(lines "\n" ${CMAKE_COMMAND} -E cat ${WORK}/${name}.ii)
  count(functions " [TtWw] " ${NM} ${WORK}/${name}.o)
  file(SIZE ${WORK}/${name}.o bytes)
  message("${name}: ${lines} lines, ${functions} functions, an object of ${bytes} bytes")
  if(NOT version MATCHES "^12" OR kind MATCHES "clang")
    return()
  endif()
  foreach(what lines functions bytes)
    if(${what} GREATER most_${what})
      message(SEND_ERROR "expected at most ${most_${what}} ${what} of ${name}, got ${${what}}")
    endif()
  endforeach()
endfunction()

measure(compiled 97300 119 135000 -DDPMP_COMPILED=1)
# With one instruction set of three: the others are copies.
if(PROCESSOR MATCHES "x86_64|AMD64")
  set(one_instruction_set -march=x86-64-v3)
endif()
measure(header_only 147000 1473 2923000 ${one_instruction_set})
