// Refuses compilers' flags under which the library would be wrong without a word: -ffast-math and
// its parts assume that there are neither infinities nor NaNs, which stand for hidden keys and
// empty rows here, or change the order of sums that are promised bit by bit; linked with them, a
// library also makes the whole process flush subnormal numbers to zero. Flags that no macro tells
// of are refused by name in cmake/strict_floats.cmake.
#pragma once

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ != 0) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "numattn needs IEEE arithmetic: take -ffast-math, -Ofast and their parts out of CXXFLAGS"
#endif
