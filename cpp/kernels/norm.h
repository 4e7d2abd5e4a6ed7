// Normalisation over the last axis, in two or three passes over a row of float32, or over a float32
// copy of it:
//
//   layer_norm   mean = Σ x / n,   variance = Σ (x − mean)² / n,
//                y = (x − mean) / √(variance + ε) · weight + bias
//   rms_norm     y = x / √(Σ x² / n + ε) · weight
//
// A mean in float32 is off by some of its last bits, which outweigh the differences of numbers that
// are all but equal. So layer_norm's is a pivot and a rest, each a float32: the pivot is near the
// mean, and x − pivot exact wherever it is small; the rest is the mean of those differences.
//
// Squares overflow beyond 1e19, and vanish below 1e-22. The few rows where that counts are computed
// anew as s · x with a power of two s; all others are what they are without this.
//
// Each vector is read for the last time before its place is written, so y may be x.
#pragma once

#include <cmath>

#include "matrix.h"

namespace numattn {
namespace {

// The first `count` lanes of a, the others 0.
inline Vec first_lanes_of(Vec a, int count) {
  float lanes[Vec::kWidth];
  store(lanes, a);
  return load_partial(lanes, count);
}

// What a row's elements, minus the pivot, add up to, and their squares.
struct Differences {
  Vec sum = zero();
  Vec squares = zero();
};

inline Differences differences_from(float pivot, const float* x, std::int64_t width) {
  const Vec subtrahend = broadcast(pivot);
  Differences all;
  for (std::int64_t i = 0; i < width; i += Vec::kWidth) {
    const int count = lanes_left(i, width);
    Vec difference = load_lanes(x + i, count) - subtrahend;
    if (count < Vec::kWidth) difference = first_lanes_of(difference, count);
    all.sum = all.sum + difference;
    all.squares = fma(difference, difference, all.squares);
  }
  return all;
}

// A row's moments, and what they make of it. `square` is what ε is added to.
struct LayerNorm {
  float pivot;
  float rest;
  float square;

  LayerNorm(const float* x, std::int64_t row_width) {
    const float width = static_cast<float>(row_width);
    // From an element on: of equal numbers it is the mean, with no rounding at all.
    pivot = x[0] + reduce_add(differences_from(x[0], x, row_width).sum) / width;
    const Differences all = differences_from(pivot, x, row_width);
    rest = reduce_add(all.sum) / width;
    const float variance = reduce_add(all.squares) / width - rest * rest;
    // Not std::max, which would make a NaN 0.
    square = variance < 0.0f ? 0.0f : variance;
  }

  void write(const NormRows& rows, const float* x, float epsilon, char* output) const {
    const float factor = 1.0f / std::sqrt(square + epsilon);
    const Vec pivots = broadcast(pivot);
    const Vec factors = broadcast(factor);
    const Vec shifts = broadcast(-rest * factor);
    const std::int64_t item = dtype_size(rows.output_dtype);
    for (std::int64_t i = 0; i < rows.width; i += Vec::kWidth) {
      const int count = lanes_left(i, rows.width);
      Vec y = fma(load_lanes(x + i, count) - pivots, factors, shifts);
      y = y * load_lanes(rows.weight + i, count);
      if (rows.bias != nullptr) y = y + load_lanes(rows.bias + i, count);
      write_elements(output + i * item, rows.output_dtype, y, count);
    }
  }
};

struct RmsNorm {
  float square;

  RmsNorm(const float* x, std::int64_t width) {
    Vec squares = zero();
    for (std::int64_t i = 0; i < width; i += Vec::kWidth) {
      const Vec values = load_lanes(x + i, lanes_left(i, width));
      squares = fma(values, values, squares);
    }
    square = reduce_add(squares) / static_cast<float>(width);
  }

  void write(const NormRows& rows, const float* x, float epsilon, char* output) const {
    const Vec factor = broadcast(1.0f / std::sqrt(square + epsilon));
    const std::int64_t item = dtype_size(rows.output_dtype);
    for (std::int64_t i = 0; i < rows.width; i += Vec::kWidth) {
      const int count = lanes_left(i, rows.width);
      const Vec y = load_lanes(x + i, count) * factor * load_lanes(rows.weight + i, count);
      write_elements(output + i * item, rows.output_dtype, y, count);
    }
  }
};

// Below this mean, squares that count may have become subnormal, or 0; with an ε of kAmpleEpsilon
// or more, none of them counts there.
constexpr float kLeastSquare = 0x1p-100f;
constexpr float kAmpleEpsilon = 0x1p-70f;

inline bool in_range(float square, float epsilon) {
  return square <= kLargest && (square >= kLeastSquare || epsilon >= kAmpleEpsilon);
}

// The power of two that brings a row's largest element near 1, so that squares neither overflow nor
// vanish; 1 where nothing is to be gained. A large ε limits it: what squares vanish beside that one
// do not count.
inline float scale_of(const float* x, std::int64_t width, bool overflows, float epsilon) {
  Vec peaks = zero();
  for (std::int64_t i = 0; i < width; i += Vec::kWidth) {
    peaks = max(abs(load_lanes(x + i, lanes_left(i, width))), peaks);
  }
  const float peak = reduce_max(peaks);
  if (peak == 0.0f || peak > kLargest) return 1.0f;
  constexpr int kBias = 127;
  const auto exponent = [](float number) {
    return static_cast<int>(bits_from_float(number) >> 23) - kBias;
  };
  int power = -exponent(peak);
  if (epsilon > 0.0f) {
    const int most = (-1 - exponent(epsilon)) / 2;
    power = power < most ? power : most;
  }
  power = power < 1 - kBias ? 1 - kBias : power > kBias - 1 ? kBias - 1 : power;
  if (!overflows && power < 0) return 1.0f;
  return float_from_bits(static_cast<std::uint32_t>(power + kBias) << 23);
}

// One row, as s · x with s² · ε, whose result is the same.
template <class Norm>
__attribute__((noinline)) void normalise_scaled(const NormRows& rows, const float* x, Norm unscaled,
                                                char* output) {
  const float scale = scale_of(x, rows.width, !(unscaled.square < kLeastSquare), rows.epsilon);
  if (scale == 1.0f) {
    unscaled.write(rows, x, rows.epsilon, output);
    return;
  }
  for (std::int64_t i = 0; i < rows.width; i += Vec::kWidth) {
    const int count = lanes_left(i, rows.width);
    store_lanes(rows.workspace + i, load_lanes(x + i, count) * broadcast(scale), count);
  }
  const double epsilon = static_cast<double>(rows.epsilon) * scale * scale;
  const Norm norm(rows.workspace, rows.width);
  norm.write(rows, rows.workspace, static_cast<float>(epsilon), output);
}

template <class Norm>
inline void normalise_rows(const NormRows& rows) {
  const bool in_place = reads_in_place(rows.x);
  for (std::int64_t row = 0; row < rows.row_count; ++row) {
    const float* x = in_place
                         ? reinterpret_cast<const float*>(rows.x.data + row * rows.x.row_stride)
                         : float_rows(rows.x, row, 1, rows.width, rows.workspace).data;
    char* output = rows.output + row * rows.output_row_stride;
    const Norm norm(x, rows.width);
    if (in_range(norm.square, rows.epsilon)) {
      norm.write(rows, x, rows.epsilon, output);
    } else {
      normalise_scaled(rows, x, norm, output);
    }
  }
}

inline void layer_norm(const NormRows& rows) { normalise_rows<LayerNorm>(rows); }
inline void rms_norm(const NormRows& rows) { normalise_rows<RmsNorm>(rows); }

}  // namespace
}  // namespace numattn
