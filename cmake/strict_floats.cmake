# Refuses compilers' flags under which the library would be wrong without a word, by name:
# cpp/include/numattn/strict_floats.h cannot see all of them. clang has no macro for the parts of
# -ffast-math, and nothing that is compiled sees the linker's: given one of these, it adds code to a
# library that makes the whole process flush subnormal numbers to zero.

# Flag, and the later one that takes it back.
set(NUMATTN_UNSAFE_FLAGS
    -ffast-math -fno-fast-math
    -Ofast "-O[0-3gsz]?"
    -funsafe-math-optimizations -fno-unsafe-math-optimizations
    -fassociative-math -fno-associative-math
    -freciprocal-math -fno-reciprocal-math
    -fno-signed-zeros -fsigned-zeros
    -ffinite-math-only -fno-finite-math-only
    -fno-honor-nans -fhonor-nans
    -fno-honor-infinities -fhonor-infinities
    -fapprox-func -fno-approx-func
    "-ffp-model=(fast|aggressive)" "-ffp-model=(precise|strict)"
    "-fdenormal-fp-math(-f32)?=(preserve-sign|positive-zero).*" "-fdenormal-fp-math(-f32)?=ieee.*"
    -fsingle-precision-constant -fno-single-precision-constant
    -mdaz-ftz -mno-daz-ftz)

# numattn_refuse_flags(<variable>...): a fatal error if one of the flags is in force at the end of the
# flags in the variables, one after the other.
function(numattn_refuse_flags)
  set(words "")
  foreach(variable IN LISTS ARGN)
    separate_arguments(more UNIX_COMMAND "${${variable}}")
    list(APPEND words ${more})
  endforeach()
  set(rest ${NUMATTN_UNSAFE_FLAGS})
  while(rest)
    list(POP_FRONT rest flag back)
    set(in_force "")
    foreach(word IN LISTS words)
      if(word MATCHES "^${flag}$")
        set(in_force ${word})
      elseif(word MATCHES "^(${back}|-fno-fast-math)$")
        set(in_force "")
      endif()
    endforeach()
    if(in_force)
      list(JOIN ARGN ", " variables)
      message(FATAL_ERROR "numattn needs IEEE arithmetic: take ${in_force} out of the flags (${variables})")
    endif()
  endwhile()
endfunction()

# What comes from outside: CXXFLAGS and LDFLAGS, the cache, a tool chain.
function(numattn_refuse_unsafe_flags)
  string(TOUPPER "${CMAKE_BUILD_TYPE}" config)
  set(compiler CMAKE_CXX_FLAGS CMAKE_CXX_FLAGS_${config})
  numattn_refuse_flags(${compiler})
  foreach(kind MODULE SHARED EXE)
    numattn_refuse_flags(${compiler} CMAKE_${kind}_LINKER_FLAGS CMAKE_${kind}_LINKER_FLAGS_${config})
  endforeach()
endfunction()
