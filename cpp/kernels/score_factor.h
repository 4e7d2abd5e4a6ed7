// The factor of scores where queries are of bfloat16, which cannot take all of it.
#pragma once

#include "exp.h"
#include "kernels.h"

namespace numattn {
namespace {

// scale · log2 e in two factors. The queries take its sign and, where it is below 1, its power of
// two: exactly, so that nothing is rounded, and products do not overflow that the scale brings
// back. The rest, at least 0, is left to the scores.
struct ScoreFactor {
  float of_queries;
  float of_scores;

  explicit ScoreFactor(const ScoreRules& rules) {
    const float factor = __builtin_fabsf(rules.scale) * kLog2E;
    const float power = float_from_bits(bits_from_float(factor) & 0x7F800000u);
    const bool small = 0.0f < power && power < 1.0f;
    of_queries = rules.scale < 0.0f ? -1.0f : 1.0f;
    of_scores = factor;
    if (!small) return;
    of_queries *= power;
    of_scores /= power;
  }
};

}  // namespace
}  // namespace numattn
