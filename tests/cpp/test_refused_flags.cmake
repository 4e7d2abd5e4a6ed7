# cmake/strict_floats.cmake: flags that are refused, by name, and flags that are not.
#
# Each attempt is a run of this file with a variable and its flags, since a refusal ends a run.
include(${CMAKE_CURRENT_LIST_DIR}/../../cmake/strict_floats.cmake)

if(DEFINED VARIABLE)
  set(CMAKE_BUILD_TYPE Release)
  set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
  set(${VARIABLE} "${FLAGS}")
  numattn_refuse_unsafe_flags()
  return()
endif()

# What a run says; nothing if it ends well.
function(attempt variable flags result)
  execute_process(COMMAND ${CMAKE_COMMAND} -DVARIABLE=${variable} "-DFLAGS=${flags}" -P ${CMAKE_CURRENT_LIST_FILE}
                  RESULT_VARIABLE status ERROR_VARIABLE message)
  string(REGEX REPLACE "[ \n]+" " " message "${message}")
  if(status EQUAL 0)
    set(message "")
  endif()
  set(${result} "${message}" PARENT_SCOPE)
endfunction()

function(refuses variable flags named)
  attempt(${variable} "${flags}" message)
  if(NOT message MATCHES "numattn needs IEEE arithmetic: take ${named} out of the flags [(].*${variable}")
    message(SEND_ERROR "${variable} '${flags}' is not refused for ${named}: '${message}'")
  endif()
endfunction()

function(accepts variable flags)
  attempt(${variable} "${flags}" message)
  if(message)
    message(SEND_ERROR "${variable} '${flags}' is refused: ${message}")
  endif()
endfunction()

foreach(flag -ffast-math -funsafe-math-optimizations -fassociative-math -freciprocal-math -fno-signed-zeros
             -ffinite-math-only -fno-honor-nans -fno-honor-infinities -fapprox-func -ffp-model=fast -ffp-model=aggressive
             -fdenormal-fp-math=preserve-sign,preserve-sign -fdenormal-fp-math-f32=positive-zero
             -fsingle-precision-constant -mdaz-ftz)
  foreach(variable CMAKE_CXX_FLAGS CMAKE_CXX_FLAGS_RELEASE CMAKE_MODULE_LINKER_FLAGS)
    refuses(${variable} "-O2 ${flag} -g" ${flag})
  endforeach()
endforeach()
refuses(CMAKE_CXX_FLAGS_RELEASE "-Ofast" -Ofast)
refuses(CMAKE_CXX_FLAGS "-ffast-math -fno-finite-math-only" -ffast-math)
refuses(CMAKE_CXX_FLAGS "-fno-unsafe-math-optimizations -funsafe-math-optimizations" -funsafe-math-optimizations)
foreach(kind SHARED EXE)
  refuses(CMAKE_${kind}_LINKER_FLAGS "-Wl,-O1 -Ofast" -Ofast)
endforeach()

accepts(CMAKE_CXX_FLAGS "")
accepts(CMAKE_CXX_FLAGS "-O2 -g -march=native -fno-math-errno -fno-trapping-math -ffp-contract=fast")
accepts(CMAKE_CXX_FLAGS "-Ofast")  # -O3 of the build follows
accepts(CMAKE_CXX_FLAGS "-funsafe-math-optimizations -fno-unsafe-math-optimizations")
accepts(CMAKE_CXX_FLAGS "-fno-signed-zeros -fno-fast-math")
accepts(CMAKE_CXX_FLAGS "-ffp-model=fast -ffp-model=strict -fdenormal-fp-math=ieee")
accepts(CMAKE_CXX_FLAGS "-fassociative-mathematics -DX=-fno-signed-zeros")
accepts(CMAKE_CXX_FLAGS_DEBUG "-ffast-math -fno-signed-zeros")
