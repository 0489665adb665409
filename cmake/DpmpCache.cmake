# SPDX-License-Identifier: Apache-2.0
# A compiler cache for dpmp's own build, where ccache is installed. Included before there is any target.
find_program(DPMP_CCACHE ccache)
mark_as_advanced(DPMP_CCACHE)
if(PROJECT_IS_TOP_LEVEL AND DPMP_CCACHE)
  foreach(language CXX CUDA)
    if(NOT DEFINED CMAKE_${language}_COMPILER_LAUNCHER)
      # Paths below the checkout count relative to it: what one checkout compiled serves another.
      set(CMAKE_${language}_COMPILER_LAUNCHER
        ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${DPMP_CCACHE})
    endif()
  endforeach()
endif()
