# SPDX-License-Identifier: Apache-2.0
# The headers, included as a user's own and used by a small program, compile without a warning of those that projects turn
# on; with threads of both kinds, header-only and with dpmp::compiled.
set(flags -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast -Wdouble-promotion -Wno-psabi
  -Werror)
execute_process(COMMAND ${COMPILER} -fopenmp -E -x c++ - INPUT_FILE ${SOURCES}/needs_openmp.cpp
  RESULT_VARIABLE no_openmp OUTPUT_QUIET ERROR_QUIET)
foreach(threads "" "-fopenmp;-DDPMP_WITH_OPENMP=1")
  if(threads AND NOT no_openmp EQUAL 0)
    message("without OpenMP: ${COMPILER} has none")
    continue()
  endif()
  foreach(source structure/two_units_b.cpp consumers/compiled/main.cpp)
    foreach(mode "" -DDPMP_COMPILED=1)
      execute_process(COMMAND ${COMPILER} -std=c++20 -fsyntax-only ${flags} ${threads} ${mode} -I${INCLUDE}
          -isystem ${EIGEN} ${SOURCES}/../${source} RESULT_VARIABLE code ERROR_VARIABLE text)
      if(NOT code EQUAL 0)
        message(FATAL_ERROR "expected ${source} with '${threads}' '${mode}' to compile without a warning, got:\n${text}")
      endif()
    endforeach()
  endforeach()
endforeach()
