// Exact combination of one row's states over disjoint keys, in order of the splits:
//
//   m = max m_s,   l = Σ l_s · 2^(m_s − m),   O = Σ O_s · 2^(m_s − m);   l_s = 0 is neutral
#pragma once

#include "softmax.h"

namespace numattn {
namespace {

inline void combine(const CombineRow& row) {
  float peak = -kInfinity;
  for (int s = 0; s < row.split_count; ++s) {
    const float other = row.peaks[s * row.peak_stride];
    peak = other > peak ? other : peak;
  }
  for (std::int64_t d = 0; d < row.value_dim; d += Vec::kWidth) {
    store_partial(row.workspace + d, zero(), lanes_left(d, row.value_dim));
  }
  float sum = 0.0f;
  for (int s = 0; s < row.split_count; ++s) {
    const float split_sum = row.sums[s * row.peak_stride];
    if (split_sum == 0.0f) continue;
    const float factor = std::exp2(row.peaks[s * row.peak_stride] - peak);
    sum = sum + split_sum * factor;
    const float* from = row.outputs + s * row.output_stride;
    for (std::int64_t d = 0; d < row.value_dim; d += Vec::kWidth) {
      const int count = lanes_left(d, row.value_dim);
      const Vec state = load_partial(row.workspace + d, count);
      store_partial(row.workspace + d, fma(load_partial(from + d, count), broadcast(factor), state),
                    count);
    }
  }
  const RowResult result = finish_row(peak, sum, row.sink, row.lse != nullptr);
  if (row.lse != nullptr) *row.lse = result.lse;
  const std::int64_t item = dtype_size(row.output_dtype);
  for (std::int64_t d = 0; d < row.value_dim; d += Vec::kWidth) {
    const int count = lanes_left(d, row.value_dim);
    const Vec output = load_partial(row.workspace + d, count) * broadcast(result.factor);
    write_elements(row.output + d * item, row.output_dtype, output, count);
  }
}

}  // namespace
}  // namespace numattn
