// Exact combination of one row's states over disjoint keys, in order of the splits:
//
//   m = max m_s,   l = Σ l_s · 2^(m_s − m),   O = Σ O_s · 2^(m_s − m);   l_s = 0 is neutral
//
// Each sum as two floats: a million keys are 900 splits.
#pragma once

#include "softmax.h"
#include "two_sum.h"

namespace numattn {
namespace {

inline void combine(const CombineRow& row) {
  float peak = -kInfinity;
  for (int s = 0; s < row.split_count; ++s) {
    const float other = row.peaks[s * row.peak_stride];
    peak = other > peak ? other : peak;
  }
  float* const output = row.workspace;
  float* const output_rest = output + padded_floats(row.value_dim);
  for (std::int64_t d = 0; d < row.value_dim; d += Vec::kWidth) {
    store(output + d, zero());
    store(output_rest + d, zero());
  }
  float sum = 0.0f;
  float sum_rest = 0.0f;
  for (int s = 0; s < row.split_count; ++s) {
    const float split_sum = row.sums[s * row.peak_stride];
    if (split_sum == 0.0f) continue;
    const float factor = std::exp2(row.peaks[s * row.peak_stride] - peak);
    add_term(split_sum * factor, sum, sum_rest);
    const float* from = row.outputs + s * row.output_stride;
    for (std::int64_t d = 0; d < row.value_dim; d += Vec::kWidth) {
      const Vec values = load_lanes(from + d, lanes_left(d, row.value_dim));
      add_term_to(values * broadcast(factor), output + d, output_rest + d);
    }
  }
  const RowResult result = finish_row(peak, sum_of(sum, sum_rest), row.sink, row.lse != nullptr);
  if (row.lse != nullptr) *row.lse = result.lse;
  const std::int64_t item = dtype_size(row.output_dtype);
  for (std::int64_t d = 0; d < row.value_dim; d += Vec::kWidth) {
    const int count = lanes_left(d, row.value_dim);
    const Vec whole = sum_of(load(output + d), load(output_rest + d));
    write_elements(row.output + d * item, row.output_dtype, whole * broadcast(result.factor),
                   count);
  }
}

}  // namespace
}  // namespace numattn
