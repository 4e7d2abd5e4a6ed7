// From the sums of 32 rows to the caller's arrays.
#pragma once

#include "pipeline_rows.h"

namespace numattn {
namespace {

// bfloat16 by the unit's own rounding, which makes zeros of subnormal numbers: where there are any,
// false, and the row is to be written by write_elements().
inline bool write_rounded(const float* output, std::int64_t columns, int r, std::int64_t value_dim,
                          Vec factor, char* to) {
  bool subnormal = false;
  for (std::int64_t d = 0; d < value_dim; d += 2 * Vec::kWidth) {
    const Vec first = scaled(load(output + RowsState::place(columns, r, d)), factor);
    const Vec last = scaled(load(output + RowsState::place(columns, r, d + Vec::kWidth)), factor);
    subnormal = any_subnormal(first) || any_subnormal(last) || subnormal;
    const std::int64_t left = value_dim - d;
    auto* at = reinterpret_cast<std::uint16_t*>(to) + d;
    const Pairs rounded = round_in_order(first, last);
    if (left >= 2 * Vec::kWidth) {
      store_pairs(at, rounded);
    } else {
      store_pairs(at, rounded, static_cast<int>(left));
    }
  }
  return !subnormal;
}

inline void write_row(const AttendBlock& block, const RowsState& state, std::int64_t columns, int r,
                      float factor, bool seen, char* to) {
  const std::int64_t item = dtype_size(block.output_dtype);
  const Vec scale = broadcast(factor);
  if (seen && block.output_dtype == DType::kBFloat16 &&
      write_rounded(state.output, columns, r, block.value_dim, scale, to)) {
    return;
  }
  for (std::int64_t d = 0; d < block.value_dim; d += Vec::kWidth) {
    const Vec values =
        seen ? scaled(load(state.output + RowsState::place(columns, r, d)), scale) : zero();
    write_elements(to + d * item, block.output_dtype, values, lanes_left(d, block.value_dim));
  }
}

template <int Parts>
inline Exactness exactness(const AttendBlock& block) {
  if (Parts == 2 || block.partial != nullptr) return Exactness::kFine;
  return block.rows[0].lse == nullptr ? Exactness::kCoarse : Exactness::kCoarseWithFineSums;
}

// Row r of the block, of which `sum` is that of all weights, and `lse_sum` the one that the lse is
// made of.
inline void finish_row(const AttendBlock& block, const RowsState& state, std::int64_t columns,
                       float score_factor, int r, float sum, float lse_sum, std::int64_t row) {
  const float peak =
      state.is_unset(r) ? -kInfinity : static_cast<float>(state.shift(r, score_factor));
  const bool seen = sum != 0.0f;
  if (block.partial != nullptr) {
    const PartialState& partial = *block.partial;
    partial.peak[row] = peak;
    partial.sum[row] = sum;
    float* to = partial.output + row * block.value_dim;
    for (std::int64_t d = 0; d < block.value_dim; d += Vec::kWidth) {
      const Vec values = seen ? load(state.output + RowsState::place(columns, r, d)) : zero();
      store_lanes(to + d, values, lanes_left(d, block.value_dim));
    }
    return;
  }
  const QueryRow& of = block.rows[row];
  write_row(block, state, columns, r, finish_row(peak, sum, of.sink, false).factor, seen,
            of.output);
  if (of.lse != nullptr) *of.lse = finish_row(peak, lse_sum, of.sink, true).lse;
}

// The rows from `first` on. `columns` are those of the output's tiles.
__attribute__((noinline)) void finish_rows(const AttendBlock& block, RowsState& state,
                                           std::int64_t columns, float score_factor,
                                           Exactness weights, std::int64_t first, int row_count) {
  constexpr int kAtOnce = 8;
  state.join_apart(columns);
  const float* from = state.sums[state.side];
  const auto sums_of_lanes = [](const float* rows, float* sums) {
    Vec lanes[kAtOnce];
    for (int i = 0; i < kAtOnce; ++i) lanes[i] = load(rows + i * Vec::kWidth);
    reduce_add(lanes, sums);
  };
  const int to_lse_sums = weights == Exactness::kCoarseWithFineSums ? kToFineSums : 0;
  for (int r = 0; r < row_count; r += kAtOnce) {
    float sums[kAtOnce];
    float lse_sums[kAtOnce];
    sums_of_lanes(from + r * Vec::kWidth, sums);
    sums_of_lanes(from + to_lse_sums + r * Vec::kWidth, lse_sums);
    for (int i = 0; i < kAtOnce && r + i < row_count; ++i) {
      finish_row(block, state, columns, score_factor, r + i, sums[i], lse_sums[i], first + r + i);
    }
  }
}

}  // namespace
}  // namespace numattn
