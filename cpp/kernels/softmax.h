// The online softmax of a row, in base 2. With m, l, O the state before a tile and m' the shift
// from then on:
//
//   α = 2^(m − m'),   p = 2^(s − m'),   l' = α·l + Σ p,   O' = α·O + Σ p·v
#pragma once

#include <cmath>

#include "score.h"

namespace numattn {
namespace {

// What the old state of a lane group is worth.
template <int Vectors>
struct Rescaling {
  Vec alpha[Vectors];
  bool any;  // whether an α is not 1
};

// The shift of a row follows its peak when that has risen by more than Tiles::kShiftSlack: weights
// reach up to 2^slack instead of 1, and with some slack most tiles leave the state alone.
//
// The tile's scores become weights; peak and sum move on. `peaks` are the largest of the tile's
// scores. tiles.settle(v, shift, key_count) learns the shift of vector v; tiles.weigh(j, v, shift)
// makes the weights of keys j to j + kWeightStep − 1 and returns their sum.
template <class Tiles, int Vectors>
inline Rescaling<Vectors> update_softmax(Tiles& tiles, std::int64_t key_count,
                                         const Vec (&peaks)[Vectors], float* peak, float* sum) {
  Rescaling<Vectors> old;
  Vec shift[Vectors];
  Vec total[Vectors];
  old.any = false;
  for (int v = 0; v < Vectors; ++v) {
    const Vec before = load(peak + v * Vec::kWidth);
    const Vec here = tiles.in_base2(peaks[v]);
    const Mask risen = less(before + broadcast(Tiles::kShiftSlack), here);
    const Vec now = select(risen, here, before);
    if (Tiles::kShiftSlack > 0.0f) old.any |= any(risen);
    store(peak + v * Vec::kWidth, now);
    // While a row has seen no key its shift is −inf; 0 keeps −inf − −inf from being NaN.
    shift[v] = select(equal(now, broadcast(-kInfinity)), zero(), now);
    old.alpha[v] = exp2(before - shift[v]);
    total[v] = zero();
    tiles.settle(v, shift[v], key_count);
  }
  for (std::int64_t j = 0; j < key_count; j += Tiles::kWeightStep) {
#pragma GCC unroll 3  // left to GCC 12 it is a loop of calls where the rest has grown
    for (int v = 0; v < Vectors; ++v) total[v] = total[v] + tiles.weigh(j, v, shift[v]);
  }
  for (int v = 0; v < Vectors; ++v) {
    float* at = sum + v * Vec::kWidth;
    store(at, fma(load(at), old.alpha[v], total[v]));
  }
  return old;
}

// An output times the factor of its row. A zero comes out as +0: which one a sum is that came to
// nothing may depend on how often nothing was added to it for the rows beside it.
inline Vec scaled(Vec output, Vec factor) { return fma(output, factor, zero()); }

// What a row's state becomes: o = O · factor and the natural lse. A sink is one more logit.
struct RowResult {
  float factor;
  float lse;
};

// A row that saw nothing has sum 0; any other has sum >= 1, or NaN, which must come through.
inline RowResult finish_row(float peak, float sum, float sink, bool wants_lse) {
  if (sum == 0.0f) return {0.0f, sink};
  float top = peak;
  float weight = 1.0f;
  float total = sum;
  if (sink != -kInfinity) {
    const float sink2 = sink * kLog2E;
    top = sink2 > peak ? sink2 : peak;
    weight = std::exp2(peak - top);
    total = sum * weight + std::exp2(sink2 - top);
  }
  if (!wants_lse) return {weight / total, 0.0f};
  const double lse = (static_cast<double>(top) + std::log2(static_cast<double>(total))) * kLn2;
  return {weight / total, static_cast<float>(lse)};
}

}  // namespace
}  // namespace numattn
