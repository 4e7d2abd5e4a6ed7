// Refuses compilers' flags under which the library would be wrong without a word: -ffast-math and
// its parts assume that there are neither infinities nor NaNs, which stand for hidden keys and
// empty rows here, or change the order of sums that are promised bit by bit; linked with them, a
// library also makes the whole process flush subnormal numbers to zero.
#pragma once

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ != 0) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#error "numattn needs IEEE arithmetic: take -ffast-math, -Ofast and the like out of CXXFLAGS"
#endif
