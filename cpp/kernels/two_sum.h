// Sums of many terms as two floats, whose error does not grow with the number of terms:
//
//   high' = high + a,   low' = low + (what rounding took from high + a)
//
// (Knuth, The Art of Computer Programming, vol. 2, 4.2.2, theorem B; Neumaier,
// "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", 1974.)
#pragma once

#include "exp.h"

namespace numattn {
namespace {

// Right as well where the compiler fuses the product that `a` or `high` may be into a sum: what is
// taken is found from the sum as it came out.
template <class Number>
inline void add_term(Number a, Number& high, Number& low) {
  const Number sum = high + a;
  const Number added = sum - high;
  low = low + ((high - (sum - added)) + (a - added));
  high = sum;
}

// The same, of sums in memory.
inline void add_term_to(Vec a, float* high, float* low) {
  Vec sum = load(high);
  Vec rest = load(low);
  add_term(a, sum, rest);
  store(high, sum);
  store(low, rest);
}

// high + low, but high where it is an infinity: low is then a NaN.
inline Vec sum_of(Vec high, Vec low) { return select(less(zero(), abs(low)), high + low, high); }
inline float sum_of(float high, float low) { return low < 0.0f || low > 0.0f ? high + low : high; }

}  // namespace
}  // namespace numattn
