# SPDX-License-Identifier: Apache-2.0
# dpmp::compiled and dpmp::compiled_cuda: dpmp::dpmp and dpmp::cuda with everything that is no template compiled once, kernels
# and matrix products included, instead of in every file that includes the headers (DPMP_BODIES, core/config.hpp). Static
# libraries, or shared ones with BUILD_SHARED_LIBS; built when something links them, or to be installed
# (DPMP_INSTALL_COMPILED). With dpmp::compiled_cuda no file of a user's own has to be compiled by nvcc.
function(dpmp_compiled_library name headers)
  add_library(${name} EXCLUDE_FROM_ALL ${ARGN})
  string(REPLACE "dpmp_" "" exported ${name})
  add_library(dpmp::${exported} ALIAS ${name})
  set_target_properties(${name} PROPERTIES EXPORT_NAME ${exported} POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(${name} PUBLIC ${headers})
  target_compile_definitions(${name} PUBLIC DPMP_COMPILED=1 $<$<NOT:$<BOOL:${DPMP_F64}>>:DPMP_F64=0>
    PRIVATE DPMP_COMPILING=1)
  # Without a build type a compiler does not optimise, and kernels that are compiled once are worth it.
  target_compile_options(${name} PRIVATE $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:>>:-O2>)
endfunction()

# In parts of about the same compile time: a part sees the interfaces of the others, not what stands below them.
set(DPMP_COMPILED_PARTS products.cpp rules.cpp per_sample.cpp training.cpp)
list(TRANSFORM DPMP_COMPILED_PARTS PREPEND ${CMAKE_CURRENT_LIST_DIR}/compiled/)
dpmp_compiled_library(dpmp_compiled dpmp ${DPMP_COMPILED_PARTS})
if(DPMP_HAVE_CUDA)
  dpmp_compiled_library(dpmp_compiled_cuda dpmp_cuda ${DPMP_COMPILED_PARTS} ${CMAKE_CURRENT_LIST_DIR}/compiled/cuda.cu)
  # Of its host's code: what runs on a host comes from the other parts.
  target_compile_options(dpmp_compiled_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-O1>)
endif()
