// Normalisation over the last axis, in two or three passes over a row of float32, or over a float32
// copy of it:
//
//   layer_norm   mean = Σ x / n,   variance = Σ (x − mean)² / n,
//                y = (x − mean) / √(variance + ε) · weight + bias
//   rms_norm     y = x / √(Σ x² / n + ε) · weight
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

inline void layer_norm_row(const NormRows& rows, const float* x, char* output) {
  Vec total = zero();
  for (std::int64_t i = 0; i < rows.width; i += Vec::kWidth) {
    total = total + load_lanes(x + i, lanes_left(i, rows.width));
  }
  const float width = static_cast<float>(rows.width);
  const Vec mean = broadcast(reduce_add(total) / width);
  Vec squares = zero();
  for (std::int64_t i = 0; i < rows.width; i += Vec::kWidth) {
    const int count = lanes_left(i, rows.width);
    const Vec difference = load_lanes(x + i, count) - mean;
    const Vec centred = count == Vec::kWidth ? difference : first_lanes_of(difference, count);
    squares = fma(centred, centred, squares);
  }
  const Vec factor = broadcast(1.0f / std::sqrt(reduce_add(squares) / width + rows.epsilon));
  const std::int64_t item = dtype_size(rows.output_dtype);
  for (std::int64_t i = 0; i < rows.width; i += Vec::kWidth) {
    const int count = lanes_left(i, rows.width);
    Vec y = (load_lanes(x + i, count) - mean) * factor * load_lanes(rows.weight + i, count);
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
