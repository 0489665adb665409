# SPDX-License-Identifier: Apache-2.0
# nvcc's flags that change arithmetic are refused where a unit makes a context of a GPU: its kernels do not link.
function(compile flags code output)
  separate_arguments(arguments UNIX_COMMAND "${flags}")
  execute_process(COMMAND ${NVCC} -std=c++20 -arch=sm_90 ${arguments} -DDPMP_WITH_CUDA=1 -I${INCLUDE} -cubin
      -o ${WORK}/unit.cubin ${SOURCES}/cuda_fast_math.cu RESULT_VARIABLE result OUTPUT_VARIABLE said ERROR_VARIABLE text)
  set(${code} ${result} PARENT_SCOPE)
  set(${output} "${said}${text}" PARENT_SCOPE)
endfunction()

file(MAKE_DIRECTORY ${WORK})
foreach(flag -O2 -G)
  compile(${flag} code text)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "expected nvcc ${flag} to compile, got:\n${text}")
  endif()
endforeach()
foreach(flag --use_fast_math -ftz=true -prec-div=false -prec-sqrt=false)
  compile(${flag} code text)
  if(code EQUAL 0 OR NOT text MATCHES "dpmp_expected_nvcc_without_use_fast_math")
    message(FATAL_ERROR "expected nvcc ${flag} to be refused by name, got exit code ${code}:\n${text}")
  endif()
endforeach()
