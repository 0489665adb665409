# SPDX-License-Identifier: Apache-2.0
# The headers, included as a user's own and used by a small program, compile without a warning of those that projects turn
# on; with threads of both kinds, header-only and with dpmp::compiled.
set(flags -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast -Wdouble-promotion -Wno-psabi
  -Werror)
execute_process(COMMAND ${COMPILER} -fopenmp -E -x c++ - INPUT_FILE ${SOURCES}/needs_openmp.cpp
  RESULT_VARIABLE no_openmp OUTPUT_QUIET ERROR_QUIET)
# compiles_clean(NAME FLAGS...)
function(compiles_clean name)
  execute_process(COMMAND ${COMPILER} -std=c++20 -fsyntax-only ${flags} ${ARGN} -I${INCLUDE} -isystem ${EIGEN}
      ${SOURCES}/../consumers/compiled/main.cpp RESULT_VARIABLE code ERROR_VARIABLE text)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "expected a ${name} program to compile without a warning, got:\n${text}")
  endif()
endfunction()
compiles_clean("header-only")
if(no_openmp EQUAL 0)
  compiles_clean("linking" -DDPMP_COMPILED=1 -fopenmp -DDPMP_WITH_OPENMP=1)
else()
  compiles_clean("linking" -DDPMP_COMPILED=1)
endif()
