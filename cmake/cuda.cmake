# The CUDA compiler: that of CUDACXX, of the pip packages nvidia-cuda-nvcc, -crt, -nvvm, -runtime and -cccl, which must
# all be of one version (13.0), or on the path. find_package(CUDAToolkit) does not know how those packages lie.

# Builds a small program, and sets `refused` to the one line that says why it cannot be, or to "". enable_language stops
# the whole build instead.
function(pysdk_probe_cuda refused)
  set(${refused} "" PARENT_SCOPE)
  if(PYSDK_CUDA_PROBED STREQUAL CMAKE_CUDA_COMPILER)  # by an earlier run on this build folder
    return()
  endif()
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/cuda_probe")
  file(REMOVE_RECURSE "${folder}")
  string(REPLACE ";" "\\;" architectures "${CMAKE_CUDA_ARCHITECTURES}")
  set(command "${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_SOURCE_DIR}/cmake/cuda_probe" -B "${folder}" -G "${CMAKE_GENERATOR}"
              "-DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM}" "-DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}"
              "-DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER}" "-DCMAKE_CUDA_FLAGS=${CMAKE_CUDA_FLAGS_INIT}"
              "-DCMAKE_CUDA_ARCHITECTURES=${architectures}")
  if(CMAKE_CUDA_HOST_COMPILER)
    list(APPEND command "-DCMAKE_CUDA_HOST_COMPILER=${CMAKE_CUDA_HOST_COMPILER}")
  endif()
  execute_process(COMMAND ${command} RESULT_VARIABLE code OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(code EQUAL 0)
    execute_process(COMMAND "${CMAKE_COMMAND}" --build "${folder}" RESULT_VARIABLE code OUTPUT_VARIABLE said
                    ERROR_VARIABLE said)
  endif()
  if(code EQUAL 0)
    set(PYSDK_CUDA_PROBED "${CMAKE_CUDA_COMPILER}" CACHE INTERNAL "The CUDA compiler that built cmake/cuda_probe")
  elseif(said MATCHES "CUDA20")
    set(${refused} "CMake ${CMAKE_VERSION} knows no C++20 for ${CMAKE_CUDA_COMPILER}: use CMake 3.26 or later" PARENT_SCOPE)
  else()
    string(REGEX MATCH "(nvcc fatal|[^\n]*[^ \n]: error|[^\n]*#error)[^\n]*" line "${said}")
    if(NOT line)  # what CMake says is on the lines after the one that names its file
      string(REGEX REPLACE "^.*CMake Error[^\n]*\n+([^\n]*).*$" "\\1" line "${said}")
    endif()
    string(STRIP "${line}" line)
    set(${refused} "${CMAKE_CUDA_COMPILER} compiles nothing here (${line}); `cmake -S cmake/cuda_probe -B build/probe` shows all"
        PARENT_SCOPE)
  endif()
endfunction()

# Sets `result` to whether there is a compiler, and CMAKE_CUDA_COMPILER to it.
macro(pysdk_find_cuda result)
  set(${result} OFF)
  if(NOT PYSDK_CUDA MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "PYSDK_CUDA is '${PYSDK_CUDA}'; use AUTO, ON or OFF")
  endif()
  if(NOT PYSDK_CUDA STREQUAL "OFF")
    if(NOT CMAKE_CUDA_COMPILER AND DEFINED ENV{CUDACXX})
      set(CMAKE_CUDA_COMPILER "$ENV{CUDACXX}")
    endif()
    if(NOT CMAKE_CUDA_COMPILER)
      execute_process(
        COMMAND ${Python_EXECUTABLE} -c
                "import importlib.util as u; s = u.find_spec('nvidia'); print(*(s.submodule_search_locations if s else ()), sep=';')"
        OUTPUT_VARIABLE pysdk_nvidia OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      foreach(folder IN LISTS pysdk_nvidia)
        if(EXISTS "${folder}/cu13/bin/nvcc" AND EXISTS "${folder}/cu13/lib/libcudart_static.a")
          set(CMAKE_CUDA_COMPILER "${folder}/cu13/bin/nvcc")
        endif()
      endforeach()
    endif()
    if(NOT CMAKE_CUDA_COMPILER)
      find_program(PYSDK_NVCC nvcc HINTS "$ENV{CUDA_PATH}/bin")
      if(PYSDK_NVCC)
        set(CMAKE_CUDA_COMPILER "${PYSDK_NVCC}")
      endif()
    endif()
    if(CMAKE_CUDA_COMPILER)  # of pip: nvcc itself looks in lib64
      get_filename_component(pysdk_cuda_lib "${CMAKE_CUDA_COMPILER}/../../lib" ABSOLUTE)
      if(EXISTS "${pysdk_cuda_lib}/libcudart_static.a")
        set(CMAKE_CUDA_FLAGS_INIT "-L${pysdk_cuda_lib}")
      endif()
    endif()
    set(pysdk_nvcc_version "")
    if(CMAKE_CUDA_COMPILER)
      execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE pysdk_nvcc_version ERROR_QUIET)
      string(REGEX MATCH "release ([0-9]+)\\." pysdk_nvcc_version "${pysdk_nvcc_version}")
    endif()
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      # machine code for what is common, and code that the driver compiles for all others from sm_75 on
      set(CMAKE_CUDA_ARCHITECTURES "75-virtual;80-real;90-real")
    endif()
    if(NOT CMAKE_CUDA_COMPILER)
      string(CONCAT pysdk_cuda_refused "there is no CUDA compiler: put nvcc on the path or install the pip packages "
                    "nvidia-cuda-nvcc, nvidia-cuda-crt, nvidia-nvvm, nvidia-cuda-runtime and nvidia-cuda-cccl of version "
                    "13.0")
    elseif(NOT pysdk_nvcc_version OR CMAKE_MATCH_1 LESS 13)
      set(pysdk_cuda_refused "${CMAKE_CUDA_COMPILER} is not of CUDA 13 or later")
    else()
      pysdk_probe_cuda(pysdk_cuda_refused)
    endif()
    if(NOT pysdk_cuda_refused)
      set(${result} ON)
    elseif(PYSDK_CUDA STREQUAL "ON")
      message(FATAL_ERROR "PYSDK_CUDA is ON, but ${pysdk_cuda_refused}")
    endif()
  endif()
  if(${result})
    message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER}")
  elseif(PYSDK_CUDA STREQUAL "OFF")
    message(STATUS "CUDA: left out, PYSDK_CUDA is OFF")
  else()
    message(STATUS "CUDA: left out, ${pysdk_cuda_refused}")
  endif()
endmacro()

# A library of its own: flags meant for the host compiler alone never reach nvcc. cudart is linked statically, and that
# library opens the driver when it is first called, so the extension imports where there is none.
function(pysdk_add_cuda target)
  add_library(pysdk_cuda STATIC ${ARGN})
  set_target_properties(
    pysdk_cuda PROPERTIES POSITION_INDEPENDENT_CODE ON CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static
                          CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  target_include_directories(pysdk_cuda PRIVATE csrc)
  # -fmad=false belongs to the arithmetic contract, as -ffp-contract=off does
  target_compile_options(pysdk_cuda PRIVATE -O3 -fmad=false -Xcompiler=-ffp-contract=off,-fvisibility=hidden)
  target_link_libraries(${target} PUBLIC pysdk_cuda)
endfunction()
