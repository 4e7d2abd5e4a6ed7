// Panels of 8-bit integers, multiplied by rows of x as 8-bit integers, where an instruction does
// so: the sums of integer_rows.h. It multiplies bytes without sign by signed ones, so that an
// integer of x enters as the byte x + zero, and
//
//   Σ_k x[k] · w[k] = Σ_k (x[k] + zero) · w[k] − zero · Σ_k w[k]
//
// whose last sum stands behind the panel. A slice is as good as always the whole depth: a tile of
// rows reads 8 bytes of weights a cycle, which the second cache level gives. Its sums are stored
// once.
#pragma once

#include "integer_tile.h"

namespace numattn {
namespace {

struct ByteProducts {
  using Element = std::uint8_t;
  static constexpr int kVectors = kPanelColumns / Vec::kWidth;
  // 32 registers hold the sums of 8 rows beside a step's weights, 16 those of 4 by half of the
  // columns.
  static constexpr int kRows = kManyRegisters ? 8 : 4;

  static constexpr int vectors_beside(int rows) {
    return vectors_in_registers(rows, kVectors, 1, 1);
  }
  static Bytes left(const std::uint8_t* x) { return repeat_four(x); }
  static Bytes right(const std::int8_t* weights) { return load_bytes(weights); }
};

// What stands behind a panel, from one of its columns on.
struct ByteColumns {
  const float* scale;
  const float* power;
  const std::int32_t* sum;

  ByteColumns() = default;
  ByteColumns(const char* panel, std::int64_t depth, std::int64_t column = 0)
      : scale(reinterpret_cast<const float*>(panel + int8_scales(depth)) + column),
        power(scale + kPanelColumns),
        sum(reinterpret_cast<const std::int32_t*>(panel + int8_sums(depth)) + column) {}

  // A vector of sums, in the roundings of IntegerRows::scale().
  Vec scaled(Vec sums, Vec row_scale, Vec row_power, int column) const {
    return sums * row_scale * load(scale + column) * (row_power * load(power + column));
  }
};

// Rows of x that become bytes.
class RowsOfBytes : public IntegerRows {
 protected:
  RowsOfBytes(Areas& areas, const GemmOperands& operands, std::int64_t rows, bool fetches_weights)
      : IntegerRows(areas, operands, rows, fetches_weights),
        low_(areas.take<std::int32_t>(rows)),
        row_(areas.take<std::int16_t>(padded_)) {}

  // A row's bytes, each kInt8DepthStep of them `step` behind the ones before.
  void quantize_bytes(const GemmBlock& block, int row, std::uint8_t* bytes, std::int64_t step) {
    const int low = quantize(block, row, row_);
    for (std::int64_t k = 0; k < padded_; k += kInt8DepthStep) {
      for (std::int64_t i = 0; i < kInt8DepthStep; ++i) {
        bytes[i] = static_cast<std::uint8_t>(row_[k + i] - low);
      }
      bytes += step;
    }
    low_[row] = low;
  }

  std::int32_t* low_;  // of each row −zero

 private:
  std::int16_t* row_;
};

class BytePanels : public RowsOfBytes {
 public:
  BytePanels(Areas& areas, const GemmOperands& operands, std::int64_t rows,
             bool fetches_weights = kFetchesWeights)
      : RowsOfBytes(areas, operands, rows, fetches_weights),
        bytes_(areas.take<std::uint8_t>(rows * stride_)) {}

  void begin(const GemmBlock& block) {
    for (int row = 0; row < block.row_count; ++row) {
      quantize_bytes(block, row, bytes_ + row * stride_, kInt8DepthStep);
    }
  }

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    RowsAhead none;
    for (std::int64_t k = 0; k < depth_; k += slice_) {
      multiply_integer_slice<ByteProducts>(
          {bytes_ + row * stride_ + k, stride_}, rows, slice(panel, k, rows),
          is_last(k) ? results : none, [&](int first, int height, const std::int32_t* whole) {
            finish(whole, row + first, height, k, panel, sums + first * kPanelColumns);
          });
    }
  }

 private:
  // The numbers of some rows of what their bytes sum up to over the slice from step k on, beside
  // the slices before.
  void finish(const std::int32_t* whole, int row, int rows, std::int64_t k, const char* panel,
              float* sums) const {
    const ByteColumns columns(panel, depth_);
    const std::int32_t* weights = columns.sum + k / slice_ * kPanelColumns;
    for (int m = row; m < row + rows; ++m) {
      const Vec row_scale = broadcast(scale_[m]);
      const Vec row_power = broadcast(power_[m]);
      for (int column = 0; column < kPanelColumns; column += Vec::kWidth) {
        Vec sum = sum_to_float(whole + column, low_[m], weights + column);
        if (k > 0) sum = load(sums + column) + sum;
        if (is_last(k)) sum = columns.scaled(sum, row_scale, row_power, column);
        store(sums + column, sum);
      }
      whole += kPanelColumns;
      sums += kPanelColumns;
    }
  }

  std::uint8_t* bytes_;
};

}  // namespace
}  // namespace numattn
