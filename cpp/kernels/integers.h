// Rows of numbers as integers, each row with a scale of its own:
//
//   number ≈ integer · scale · power,   integer = round(number / power · (largest / peak)),
//   scale = peak / largest,             peak = max |number| / power
//
// All of it is float32, one rounding to an operation and none fused, so that the integers are the
// same at every instruction set. `power` is 1 but for rows of tiny or huge numbers, whose scale
// would be subnormal, or lose what its products with another scale can hold. A row of zeros has
// the scale 0, one with an infinity or a NaN the scale NaN; the integers of both are 0.
//
// Weights have 8 bits, 127 the largest; −128 is not used. Activations have 16, and that costs
// nothing where vpmaddwd or vpdpwssd multiplies, nor where memory is the limit; on AMX they are two
// planes of 8 bits, x = 256 · high + low, at the rate of bfloat16. Their largest is what two planes
// of signed bytes hold: 256 · 127 + 127 = 32639. Measured (1 − cosine to float32, mean of 296
// sentences by all-MiniLM-L6-v2; and a random Llama of 6 layers: relative error of its logits, and
// share of other most likely tokens, without and with four channels of activations 40 times as
// large as the others):
//
//   activations                  MiniLM    Llama           Llama with outliers
//   float32                      4.5e-4    2.0e-2   3.3%   0.10   17%
//   16 bits, one scale a row     4.5e-4    2.0e-2   3.3%   0.10   16%
//   12 bits                      4.5e-4    2.0e-2   3.3%   0.11   19%
//   8 bits                       2.6e-3    3.4e-2   8.0%   0.38   57%
//   8 bits, a scale to each 64   8.5e-4    2.8e-2   6.3%   0.26   40%
//
// so that 8 bits would be what errs, while 16 leave the error of the weights alone.
#pragma once

#include "matrix.h"

namespace numattn {
namespace {

constexpr float kLargestWeight = 127.0f;
constexpr float kLargestActivation = 32639.0f;

struct Quantum {
  float scale;
  float power;
  float per_power;  // 1 / power
  float per_scale;  // largest / peak; 0 where all integers are to be 0
};

// What a row's numbers have in common, stretch by stretch.
//
// Nothing here is inlined: it is little of the work, and weights and activations share it.
class Peak {
 public:
  __attribute__((noinline)) void add(const float* numbers, std::int64_t count) {
    for (std::int64_t k = 0; k < count; k += Vec::kWidth) {
      const Vec part = load_lanes(numbers + k, lanes_left(k, count));
      peak_ = max(abs(part), peak_);
      poison_ = fma(part, zero(), poison_);  // NaN after an infinity or a NaN
    }
  }

  __attribute__((noinline)) Quantum quantum(float largest) const {
    constexpr float kBig = 0x1p60f;
    constexpr float kSmall = 0x1p-60f;
    const float poison = reduce_add(poison_);
    const float peak = reduce_max(peak_);
    if (poison != poison) return {poison, 1.0f, 1.0f, 0.0f};
    if (peak == 0.0f) return {0.0f, 1.0f, 1.0f, 0.0f};
    if (peak < kSmall) return {peak * kBig / largest, kSmall, kBig, largest / (peak * kBig)};
    if (peak > kBig) return {peak * kSmall / largest, kBig, kSmall, largest / (peak * kSmall)};
    return {peak / largest, 1.0f, 1.0f, largest / peak};
  }

 private:
  Vec peak_ = zero();
  Vec poison_ = zero();
};

// The integers of `count` numbers, and 0 behind them, up to whole steps of kInt8DepthStep.
__attribute__((noinline)) inline void write_integers(const float* numbers, std::int64_t count,
                                                     const Quantum& quantum,
                                                     std::int16_t* integers) {
  const Vec per_power = broadcast(quantum.per_power);
  const Vec per_scale = broadcast(quantum.per_scale);
  for (std::int64_t k = 0; k < padded_int8_depth(count); k += Vec::kWidth) {
    const Vec part = k < count ? load_lanes(numbers + k, lanes_left(k, count)) : zero();
    store_rounded(integers + k, part * per_power * per_scale);
  }
}

inline Quantum quantize_row(const float* numbers, std::int64_t count, std::int16_t* integers) {
  Peak peak;
  peak.add(numbers, count);
  const Quantum quantum = peak.quantum(kLargestActivation);
  if (quantum.per_scale != 0.0f) {
    write_integers(numbers, count, quantum, integers);
  } else {
    __builtin_memset(integers, 0, static_cast<std::size_t>(2 * padded_int8_depth(count)));
  }
  return quantum;
}

}  // namespace
}  // namespace numattn
