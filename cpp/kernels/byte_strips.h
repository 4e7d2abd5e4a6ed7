// Strips of x as bytes, which the tile unit multiplies (amx_panels.h): the results of
// byte_panels.h.
#pragma once

#include "amx_panels.h"
#include "byte_panels.h"

namespace numattn {
namespace {

// Sums of bytes that are complete, and what makes numbers of them: of their rows, and of the
// columns of either tile.
struct ByteSums : FinishedSums {
  float* numbers;  // where the sums are
  const float* row_scale;
  const float* row_power;
  const std::int32_t* row_low;
  const float* scale[2];
  const float* power[2];
  const std::int32_t* weights[2];

  void make_numbers(int row) const {
    const std::int32_t low = row_low[row];
    const Vec own_scale = broadcast(row_scale[row]);
    const Vec own_power = broadcast(row_power[row]);
    float* at = numbers + row * kPieceColumns;
    for (int v = 0; v < 2 && v * kAmxRowFloats < columns; ++v) {
      const auto* whole = reinterpret_cast<const std::int32_t*>(at);
      const Vec sum = sum_to_float(whole, low, weights[v]);
      store(at, sum * own_scale * load(scale[v]) * (own_power * load(power[v])));
      at += kAmxRowFloats;
    }
  }
};

// Rows of epilogue.h, of sums of bytes.
template <class Rows>
class RowsFromBytes {
 public:
  explicit RowsFromBytes(const ByteSums& sums) : rows_(sums) {}

  __attribute__((always_inline)) void next_row(const GemmBlock& block, const ByteSums& sums) {
    sums.make_numbers(row_++);
    rows_.next_row(block, sums);
  }

 private:
  Rows rows_;
  int row_ = 0;
};

class ByteStrips : public RowsOfBytes {
 public:
  static constexpr int kTileDepth = kAmxBytes;
  using Finished = ByteSums;
  template <class Rows>
  using Finish = RowsFromBytes<Rows>;

  static bool reads_in_place(const Matrix&, std::int64_t) { return false; }

  ByteStrips(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : RowsOfBytes(areas, operands, rows, true) {}

  // What the rows beyond the last one hold nobody reads.
  void copy(const GemmBlock& block, std::int64_t first, int rows, char* to) {
    auto* bytes = reinterpret_cast<std::uint8_t*>(to);
    for (int row = 0; row < rows; ++row) {
      quantize_bytes(block, static_cast<int>(first) + row, bytes + row * kAmxRowBytes,
                     kStripRows * kAmxRowBytes);
    }
  }

  template <int C, int A, int B>
  static void dot() {
    tile_dot_uint8<C, A, B>();
  }

  ByteSums finished(const GemmBlock& block, float* sums, std::int64_t row, int rows,
                    std::int64_t column) const {
    ByteSums made{finished_sums(block, sums, kPieceColumns, row, rows, column),
                  sums,
                  scale_ + row,
                  power_ + row,
                  low_ + row,
                  {},
                  {},
                  {}};
    for (int v = 0; v < 2 && v * kAmxRowFloats < made.columns; ++v) {
      const std::int64_t first = column + v * kAmxRowFloats;
      const char* panel =
          block.panels + first / kPanelColumns * panel_bytes(block.format, block.depth);
      const std::int64_t in_panel = first % kPanelColumns;
      made.scale[v] = reinterpret_cast<const float*>(panel + int8_scales(depth_)) + in_panel;
      made.power[v] = made.scale[v] + kPanelColumns;
      made.weights[v] = reinterpret_cast<const std::int32_t*>(panel + int8_sums(depth_)) + in_panel;
    }
    return made;
  }
};

}  // namespace
}  // namespace numattn
