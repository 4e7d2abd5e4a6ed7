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

// What rounding took is found without knowing which of the two is larger.
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

// high + low, but high where it is an infinity: low is then a NaN. Never −0: which zero a sum is
// that came to nothing may depend on how often nothing was added to it.
inline Vec sum_of(Vec high, Vec low) {
  return select(less(zero(), abs(low)), high + low, high + zero());
}
inline float sum_of(float high, float low) {
  return high + (low < 0.0f || low > 0.0f ? low : 0.0f);
}

}  // namespace
}  // namespace numattn
