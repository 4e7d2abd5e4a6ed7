# The library of operators for ONNX Runtime, which loads it by its path. In a wheel it lies in
# numattn/compat/onnxruntime and calls numattn._core; elsewhere it is linked to libnumattn.
set(NUMATTN_ONNXRUNTIME_SOURCES
    cpp/onnxruntime/attention.cpp
    cpp/onnxruntime/group_query_attention.cpp
    cpp/onnxruntime/heads.cpp
    cpp/onnxruntime/kernel.cpp
    cpp/onnxruntime/multi_head_attention.cpp
    cpp/onnxruntime/present.cpp
    cpp/onnxruntime/register.cpp)

function(numattn_add_onnxruntime target core_source)
  add_library(${target} MODULE ${NUMATTN_ONNXRUNTIME_SOURCES} ${core_source})
  target_include_directories(${target} PRIVATE cpp/include)
  # Nothing in it is a loop that matters but the copy of past keys and values, which is memcpy's.
  target_compile_options(${target} PRIVATE ${NUMATTN_BASELINE} ${NUMATTN_FLAGS} -Os)
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    target_link_options(${target} PRIVATE -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/onnxruntime.map
                                          -Wl,--no-undefined -Wl,--gc-sections $<$<CONFIG:Release>:-s>)
    set_target_properties(${target} PROPERTIES LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/onnxruntime.map)
  endif()
endfunction()
