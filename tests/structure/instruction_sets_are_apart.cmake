# SPDX-License-Identifier: Apache-2.0
# Units of one program that are compiled for different instruction sets share no function of dpmp: neither object defines what
# the other one does, and both run in one program. With dpmp::compiled this holds for what launches a user's kernels.
cmake_minimum_required(VERSION 3.22)
if(NOT PROCESSOR MATCHES "x86_64|AMD64")
  message("skipped: ${PROCESSOR} has no such instruction sets")
  return()
endif()
file(MAKE_DIRECTORY ${WORK})
# defined(VARIABLE NAME FLAGS...): the functions of dpmp in the unit's object.
function(defined variable name)
  execute_process(COMMAND ${COMPILER} -std=c++20 -O1 -Wno-psabi -pthread -I${INCLUDE} ${ARGN} -DDPMP_UNIT=${name}
      -c ${SOURCES}/one_kernel.cpp -o ${WORK}/${name}.o COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${NM} ${WORK}/${name}.o OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL " [TWVuBD] [^\n]*4dpmp[^\n]*" found "${symbols}")
  list(LENGTH found number)
  if(number LESS 5)
    message(FATAL_ERROR "expected ${name}.o to define functions of dpmp, got '${found}'")
  endif()
  set(${variable} "${found}" PARENT_SCOPE)
endfunction()
# apart(WHICH A B): none of the names that match WHICH is in both lists.
function(apart which a b)
  set(some OFF)
  foreach(symbol IN LISTS ${a})
    if(symbol MATCHES "${which}")
      set(some ON)
      if(symbol IN_LIST ${b})
        message(FATAL_ERROR "expected a function for each instruction set, got one in two units:${symbol}")
      endif()
    endif()
  endforeach()
  if(NOT some)
    message(FATAL_ERROR "expected functions named ${which}, got none")
  endif()
endfunction()

defined(plain plain_unit)
defined(avx avx_unit -mavx)
defined(avx2 avx2_unit -mavx2 -mfma)
defined(avx512 avx512_unit -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma)
foreach(pair "plain;avx" "plain;avx2" "avx;avx2" "plain;avx512" "avx2;avx512")
  apart("." ${pair})
endforeach()
file(WRITE ${WORK}/main.cpp "
int plain_unit();
int avx2_unit();
int main() { return plain_unit() != 0 ? 1 : __builtin_cpu_supports(\"avx2\") && avx2_unit() != 1 ? 2 : 0; }
")
execute_process(COMMAND ${COMPILER} -pthread main.cpp plain_unit.o avx2_unit.o -o program WORKING_DIRECTORY ${WORK}
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${WORK}/program RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "expected each unit to compute with its own instruction set, got exit code ${code}")
endif()

defined(plain plain_unit -DDPMP_COMPILED=1)
defined(avx2 avx2_unit -DDPMP_COMPILED=1 -mavx2 -mfma)
apart("launch_|rows_of_unit|run_rows|best_isa" plain avx2)
