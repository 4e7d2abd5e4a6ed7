// Rows of numbers as integers, each row with a scale of its own:
//
//   number ≈ integer · scale · power,   integer = round(number / power · (steps / extent)),
//   scale = extent / steps,             low <= integer <= high
//
// either symmetric, up to a largest integer, or the 256 of a byte, of which one stands for 0:
//
//   extent = max |x|,        steps = largest,  low = −largest,  high = largest
//   extent = max x − min x,  steps = 255,      low = −zero,     high = 255 − zero
//
// x being the row's numbers / power and 0, and zero = round(−min x · (255 / extent)).
//
// All of it is float32, one rounding to an operation and none fused, so that the integers are the
// same at every instruction set. `power` is 1 but for rows of tiny or huge numbers, whose scale
// would be subnormal, or lose what its products with another scale can hold. A row of zeros has
// the scale 0, one with an infinity or a NaN the scale NaN; the integers of both are 0.
//
// Weights have 8 bits, 127 the largest; −128 is not used. Beside weights of kInt8 activations have
// 16, and that costs nothing where vpmaddwd or vpdpwssd multiplies, nor where memory is the limit;
// on AMX they are two planes of 8 bits, x = 256 · high + low, at the rate of bfloat16. Their
// largest is what two planes of signed bytes hold: 256 · 127 + 127 = 32639. Beside kW8A8 they are
// bytes, multiplied twice as fast. Measured (1 − cosine to float32, mean of 300 sentences by
// all-MiniLM-L6-v2; and a random Llama of 6 layers: relative error of its logits, and share of
// other most likely tokens, without and with four channels of activations 40 times as large as the
// others):
//
//   activations                         MiniLM    Llama           Llama with outliers
//   16 bits (kInt8)                     4.0e-4    0.037   7.3%    0.22   29%
//   bytes of a row (kW8A8)              1.1e-3    0.052  10.0%    0.47   51%
//   8 bits, symmetric                   2.6e-3    0.055  11.2%    0.54   57%
//   8 bits, symmetric, of each 64       7.8e-4    0.046   9.8%    0.36   42%
//   bytes of each 64                    5.5e-4    0.044   8.8%    0.28   35%
//
// 16 bits leave the error of the weights alone. A scale to each 64 is not kept: with tiles of AMX
// their sums would be stored and scaled after every product, which takes longer than 16 bits do.
#pragma once

#include "matrix.h"

namespace numattn {
namespace {

constexpr float kLargestWeight = 127.0f;
constexpr float kLargestActivation = 32639.0f;
constexpr float kByteSteps = 255.0f;

struct Quantum {
  float scale;
  float power;
  float per_power;  // 1 / power
  float per_scale;  // steps / extent; 0 where all integers are to be 0
  float low;        // what integers lie between
  float high;
};

// What a row's numbers have in common, stretch by stretch.
//
// Nothing here is inlined: it is little of the work, and weights and activations share it.
class Range {
 public:
  __attribute__((noinline)) void add(const float* numbers, std::int64_t count) {
    Vec low = low_;  // in registers: a member might be among the numbers
    Vec high = high_;
    Vec poison = poison_;
    for (std::int64_t k = 0; k < count; k += Vec::kWidth) {
      const Vec part = load_lanes(numbers + k, lanes_left(k, count));
      low = min(part, low);
      high = max(part, high);
      poison = fma(part, zero(), poison);  // NaN after an infinity or a NaN
    }
    low_ = low;
    high_ = high;
    poison_ = poison;
  }

  // Integers from −largest to largest.
  __attribute__((noinline)) Quantum symmetric(float largest) const {
    const Bounds range = bounds();
    const float peak = range.high > -range.low ? range.high : -range.low;
    return quantum(range, peak, largest, -largest, largest);
  }

  // 256 integers, of which one is 0.
  __attribute__((noinline)) Quantum bytes() const {
    const Bounds range = bounds();
    const float extent = range.high - range.low;
    const float zero = __builtin_rintf(-range.low * (kByteSteps / extent));
    return quantum(range, extent, kByteSteps, -zero, kByteSteps - zero);
  }

 private:
  // What the numbers lie between, and 0 with them, divided by `power`.
  struct Bounds {
    float low;
    float high;
    float power;
    float per_power;
  };

  Bounds bounds() const {
    constexpr float kBig = 0x1p60f;
    constexpr float kSmall = 0x1p-60f;
    const float below = reduce_max(zero() - low_);
    const float above = reduce_max(high_);
    const float peak = above > below ? above : below;
    if (peak < kSmall) return {-below * kBig, above * kBig, kSmall, kBig};
    if (peak > kBig) return {-below * kSmall, above * kSmall, kBig, kSmall};
    return {-below, above, 1.0f, 1.0f};
  }

  Quantum quantum(const Bounds& range, float extent, float steps, float low, float high) const {
    const float poison = reduce_add(poison_);
    if (poison != poison) return {poison, 1.0f, 1.0f, 0.0f, 0.0f, 0.0f};
    if (extent == 0.0f) return {0.0f, 1.0f, 1.0f, 0.0f, 0.0f, 0.0f};
    return {extent / steps, range.power, range.per_power, steps / extent, low, high};
  }

  Vec low_ = zero();
  Vec high_ = zero();
  Vec poison_ = zero();
};

// The integers of `count` numbers, and 0 behind them, up to whole steps of kInt8DepthStep.
__attribute__((noinline)) inline void write_integers(const float* numbers, std::int64_t count,
                                                     const Quantum& quantum,
                                                     std::int16_t* integers) {
  const Vec per_power = broadcast(quantum.per_power);
  const Vec per_scale = broadcast(quantum.per_scale);
  const Vec low = broadcast(quantum.low);
  const Vec high = broadcast(quantum.high);
  for (std::int64_t k = 0; k < padded_int8_depth(count); k += Vec::kWidth) {
    const Vec part = k < count ? load_lanes(numbers + k, lanes_left(k, count)) : zero();
    store_rounded(integers + k, min(max(part * per_power * per_scale, low), high));
  }
}

inline void write_or_clear(const float* numbers, std::int64_t count, const Quantum& quantum,
                           std::int16_t* integers) {
  if (quantum.per_scale != 0.0f) {
    write_integers(numbers, count, quantum, integers);
  } else {
    __builtin_memset(integers, 0, static_cast<std::size_t>(2 * padded_int8_depth(count)));
  }
}

}  // namespace
}  // namespace numattn
