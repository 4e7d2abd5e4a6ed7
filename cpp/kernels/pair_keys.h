// Keys of bfloat16 that meet queries of bfloat16 as pairs, where a unit multiplies those: neither
// is widened, and a step is twice as deep. The unit's rules are those of attend_bfloat16: subnormal
// elements count as 0.
//
// Zen 4, 8 heads of 4 rows, GB/s, in float32 and so: from the third cache level 17.3 and 21.5, in
// pages of 16 tokens 16.0 and 20.1; from memory 15.8 and 18.7, 11.4 and 12.6.
#pragma once

#include "decode_scores.h"

namespace numattn {
namespace {

template <class Element>
struct PairKeys : FloatKeys<Element> {};

template <>
struct PairKeys<BFloat16> {
  using Query = BFloat16;
  using Lanes = Pairs;
  static constexpr int kStep = 2 * Vec::kWidth;

  static Lanes read(const BFloat16* from) { return load_pairs(&from->bits); }
  static Lanes read(const BFloat16* from, int count) { return load_pairs(&from->bits, count); }
  static Vec multiply(Vec sum, Lanes key, Lanes query) { return dot(sum, key, query); }
};

}  // namespace
}  // namespace numattn
