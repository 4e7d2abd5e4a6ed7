// The state of a block's rows in lanes, from its beginning to the caller's arrays.
#pragma once

#include "softmax.h"

namespace numattn {
namespace {

// The output of the lane group whose first row is `first`: [value element][lane].
inline float* output_of(const AttendBlock& block, const Workspace& work, std::int64_t first) {
  return work.output + first * output_rows(block.value_dim);
}

inline void begin_state(const AttendBlock& block, const Workspace& work) {
  for (int first = 0; first < block.row_count; first += kLaneGroup) {
    for (int i = 0; i < kLaneGroup; ++i) {
      if (!block.keeps_peaks) work.peak[first + i] = -kInfinity;
      work.sum[first + i] = 0.0f;
    }
    float* output = output_of(block, work, first);
    const std::int64_t count = output_rows(block.value_dim) * kLaneGroup;
    for (std::int64_t i = 0; i < count; i += Vec::kWidth) store(output + i, zero());
  }
}

// Rows [lane, lane + kWidth) of a group: write(row, d, values, count) gets output[d][lane] ·
// factor.
template <class Write>
inline void write_rows(const float* output, std::int64_t value_dim, int lane, int row_count,
                       Vec factor, const Write& write) {
  for (std::int64_t d = 0; d < value_dim; d += Vec::kWidth) {
    const int count = lanes_left(d, value_dim);
    Vec square[Vec::kWidth];
    for (int i = 0; i < Vec::kWidth; ++i) {
      square[i] = i < count ? scaled(load(output + (d + i) * kLaneGroup + lane), factor) : zero();
    }
    transpose(square);
    for (int i = 0; i < Vec::kWidth && lane + i < row_count; ++i) write(i, d, square[i], count);
  }
}

inline void write_partial(const AttendBlock& block, const Workspace& work, int first, int rows) {
  const PartialState& partial = *block.partial;
  for (int lane = 0; lane < rows; lane += Vec::kWidth) {
    write_rows(output_of(block, work, first), block.value_dim, lane, rows, broadcast(1.0f),
               [&](int i, std::int64_t d, Vec values, int count) {
                 const std::int64_t row = first + lane + i;
                 store_partial(partial.output + row * block.value_dim + d, values, count);
               });
  }
  for (int i = first; i < first + rows; ++i) {
    partial.peak[i] = work.peak[i];
    partial.sum[i] = work.sum[i];
  }
}

inline void write_results(const AttendBlock& block, const Workspace& work, int first, int rows) {
  const std::int64_t item = dtype_size(block.output_dtype);
  for (int lane = 0; lane < rows; lane += Vec::kWidth) {
    // Of the square after the next, as for queries (score.h).
    //
    // Not kept: the lines of a group asked for between the tiles that add its last values. Zen 4, 8
    // × 12 heads of 128 × 64: float32 75.2 and 76.6 GFLOP/s, bfloat16 the same, grouped causal
    // heads of 128 2 % slower.
    for (int i = first + lane + 2 * Vec::kWidth;
         i < first + lane + 3 * Vec::kWidth && i < block.row_count; ++i) {
      fetch_bytes(block.rows[i].output, block.value_dim * item);
    }
    float factor[Vec::kWidth] = {};
    bool seen[Vec::kWidth] = {};
    for (int i = 0; i < Vec::kWidth && lane + i < rows; ++i) {
      const int at = first + lane + i;
      const QueryRow& row = block.rows[at];
      const RowResult result =
          finish_row(work.peak[at], work.sum[at], row.sink, row.lse != nullptr);
      factor[i] = result.factor;
      seen[i] = work.sum[at] != 0.0f;
      if (row.lse != nullptr) *row.lse = result.lse;
    }
    write_rows(output_of(block, work, first), block.value_dim, lane, rows, load(factor),
               [&](int i, std::int64_t d, Vec values, int count) {
                 char* to = block.rows[first + lane + i].output + d * item;
                 write_elements(to, block.output_dtype, seen[i] ? values : zero(), count);
               });
  }
}

inline void write_block(const AttendBlock& block, const Workspace& work) {
  for (int first = 0; first < block.row_count; first += kLaneGroup) {
    const int rows = LaneGroups::rows_of_group(block, first);
    if (block.partial != nullptr) {
      write_partial(block, work, first, rows);
    } else {
      write_results(block, work, first, rows);
    }
  }
}

}  // namespace
}  // namespace numattn
