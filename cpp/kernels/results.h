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

// Rows [lane, lane + kWidth) of a group: write(row, d, values, count) gets result(output[d][lane]).
template <class Result, class Write>
inline void write_rows(const float* output, std::int64_t value_dim, int lane, int row_count,
                       const Result& result, const Write& write) {
  for (std::int64_t d = 0; d < value_dim; d += Vec::kWidth) {
    const int count = lanes_left(d, value_dim);
    Vec square[Vec::kWidth];
    for (int i = 0; i < Vec::kWidth; ++i) {
      square[i] = i < count ? result(load(output + (d + i) * kLaneGroup + lane)) : zero();
    }
    transpose(square);
    for (int i = 0; i < Vec::kWidth && lane + i < row_count; ++i) write(i, d, square[i], count);
  }
}

// The same where all rows and squares are whole, to the rows' outputs: from register to register.
template <class Element, class Result>
inline void write_squares(const float* output, std::int64_t value_dim, const QueryRow* rows,
                          const Result& result) {
  for (std::int64_t d = 0; d < value_dim; d += Vec::kWidth) {
    Vec square[Vec::kWidth];
#pragma GCC unroll 16
    for (int i = 0; i < Vec::kWidth; ++i) square[i] = result(load(output + (d + i) * kLaneGroup));
    transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < Vec::kWidth; ++i) {
      store(reinterpret_cast<Element*>(rows[i].output) + d, square[i]);
    }
  }
}

inline void write_partial(const AttendBlock& block, const Workspace& work, int first, int rows) {
  const PartialState& partial = *block.partial;
  for (int lane = 0; lane < rows; lane += Vec::kWidth) {
    const auto sum = [](Vec output) { return scaled(output, broadcast(1.0f)); };
    write_rows(output_of(block, work, first), block.value_dim, lane, rows, sum,
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

// What rows [lane, lane + kWidth) of a group multiply their outputs by; it writes their lse.
inline Vec factors_of(const QueryRow* rows, int row_count, const float* peaks, const float* sums) {
  const Vec sum = load(sums);
  float factor[Vec::kWidth];
  store(factor, select(equal(sum, zero()), zero(), broadcast(1.0f) / sum));
  for (int i = 0; i < row_count; ++i) {
    const bool wants_lse = rows[i].lse != nullptr;
    if (!wants_lse && rows[i].sink == -kInfinity) continue;
    const RowResult result = finish_row(peaks[i], sums[i], rows[i].sink, wants_lse);
    factor[i] = result.factor;
    if (wants_lse) *rows[i].lse = result.lse;
  }
  return load(factor);
}

inline void write_results(const AttendBlock& block, const Workspace& work, int first, int rows) {
  const std::int64_t item = dtype_size(block.output_dtype);
  const float* output = output_of(block, work, first);
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
    const QueryRow* to = block.rows + first + lane;
    const int count = rows - lane < Vec::kWidth ? rows - lane : Vec::kWidth;
    const float* sums = work.sum + first + lane;
    const Vec factor = factors_of(to, count, work.peak + first + lane, sums);
    const Mask unseen = equal(load(sums), zero());
    const auto result = [=](Vec a) { return select(unseen, zero(), scaled(a, factor)); };
    const bool whole = count == Vec::kWidth && block.value_dim % Vec::kWidth == 0;
    if (whole && block.output_dtype == DType::kFloat32) {
      write_squares<float>(output + lane, block.value_dim, to, result);
    } else if (whole && block.output_dtype == DType::kBFloat16) {
      write_squares<BFloat16>(output + lane, block.value_dim, to, result);
    } else {
      write_rows(output, block.value_dim, lane, rows, result,
                 [&](int i, std::int64_t d, Vec values, int columns) {
                   write_elements(to[i].output + d * item, block.output_dtype, values, columns);
                 });
    }
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
