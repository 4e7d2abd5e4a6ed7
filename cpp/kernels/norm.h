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

inline void layer_norm_row(const NormRows& rows, const float* x, char* output) {
  const float width = static_cast<float>(rows.width);
  // From an element on: of equal numbers it is the mean, with no rounding at all.
  const float pivot = x[0] + reduce_add(differences_from(x[0], x, rows.width).sum) / width;
  const Differences all = differences_from(pivot, x, rows.width);
  const float rest = reduce_add(all.sum) / width;
  const float variance = reduce_add(all.squares) / width - rest * rest;
  // Not std::max, which would make a NaN 0.
  const float factor = 1.0f / std::sqrt((variance < 0.0f ? 0.0f : variance) + rows.epsilon);
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

inline void rms_norm_row(const NormRows& rows, const float* x, char* output) {
  Vec squares = zero();
  for (std::int64_t i = 0; i < rows.width; i += Vec::kWidth) {
    const Vec values = load_lanes(x + i, lanes_left(i, rows.width));
    squares = fma(values, values, squares);
  }
  const float mean = reduce_add(squares) / static_cast<float>(rows.width);
  const Vec factor = broadcast(1.0f / std::sqrt(mean + rows.epsilon));
  const std::int64_t item = dtype_size(rows.output_dtype);
  for (std::int64_t i = 0; i < rows.width; i += Vec::kWidth) {
    const int count = lanes_left(i, rows.width);
    const Vec y = load_lanes(x + i, count) * factor * load_lanes(rows.weight + i, count);
    write_elements(output + i * item, rows.output_dtype, y, count);
  }
}

template <class NormaliseRow>
inline void normalise_rows(const NormRows& rows, const NormaliseRow& normalise_row) {
  for (std::int64_t row = 0; row < rows.row_count; ++row) {
    const FloatRows x = float_rows(rows.x, row, 1, rows.width, rows.workspace);
    normalise_row(rows, x.data, rows.output + row * rows.output_row_stride);
  }
}

inline void layer_norm(const NormRows& rows) { normalise_rows(rows, layer_norm_row); }
inline void rms_norm(const NormRows& rows) { normalise_rows(rows, rms_norm_row); }

}  // namespace
}  // namespace numattn
