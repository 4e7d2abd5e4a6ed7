// Panels of 8-bit integers, multiplied by rows of x as 16-bit integers: the sums of integer_rows.h,
// wherever the processor has no better instruction for them. Rows of 8 bits are widened.
#pragma once

#include "integer_tile.h"

namespace numattn {
namespace {

struct ShortProducts {
  using Element = std::int16_t;
  // A vector of sums holds kWidth / 2 columns, two neighbouring sums for each.
  static constexpr int kVectors = 2 * kPanelColumns / Vec::kWidth;
  // 32 registers hold four rows' sums of all columns.
  static constexpr int kRows = kManyRegisters ? 4 : 6;

  // Beside one step's operands, for the other one and a product. Measured on Zen 3, many rows:
  // 4 × 3, whose operands do not fit beside the sums, 95 GFLOP/s, 6 × 2 from 127 to 135.
  static constexpr int vectors_beside(int rows) {
    return vectors_in_registers(rows, kVectors, sizeof(Ints) / sizeof(Vec), 2);
  }
  static Shorts left(const std::int16_t* x) { return repeat_four(x); }
  static Shorts right(const std::int8_t* weights) { return widen(weights); }
};

// Both sums of every column of some rows as one, in float32, beside the slices before or not.
inline void join_sums(const std::int32_t* pairs, int rows, bool adds, float* sums) {
  for (int i = 0; i < rows * kPanelColumns; ++i) {
    const float sum = static_cast<float>(pairs[2 * i] + pairs[2 * i + 1]);
    sums[i] = adds ? sums[i] + sum : sum;
  }
}

class Int8Panels : public IntegerRows {
 public:
  Int8Panels(Areas& areas, const GemmOperands& operands, std::int64_t rows,
             bool fetches_weights = kFetchesWeights)
      : IntegerRows(areas, operands, rows, fetches_weights),
        integers_(areas.take<std::int16_t>(rows * stride_)) {}

  void begin(const GemmBlock& block) {
    for (int row = 0; row < block.row_count; ++row) {
      quantize(block, row, integers_ + row * stride_);
    }
  }

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    RowsAhead none;
    for (std::int64_t k = 0; k < depth_; k += slice_) {
      multiply_integer_slice<ShortProducts>(
          {integers_ + row * stride_ + k, stride_}, rows, slice(panel, k, rows),
          is_last(k) ? results : none, [&](int first, int height, const std::int32_t* pairs) {
            join_sums(pairs, height, k > 0, sums + first * kPanelColumns);
          });
    }
    scale(row, rows, panel, sums);
  }

 protected:
  std::int16_t* integers_;
};

}  // namespace
}  // namespace numattn
