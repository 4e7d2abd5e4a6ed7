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
  ByteColumns tile[2];

  void make_numbers(int row) const {
    const Vec own_scale = broadcast(row_scale[row]);
    const Vec own_power = broadcast(row_power[row]);
    float* at = numbers + row * kPieceColumns;
    for (int v = 0; v < 2 && v * kAmxRowFloats < columns; ++v) {
      const auto* whole = reinterpret_cast<const std::int32_t*>(at);
      const Vec sum = sum_to_float(whole, row_low[row], tile[v].sum);
      store(at, tile[v].scaled(sum, own_scale, own_power, 0));
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
                  {}};
    for (int v = 0; v < 2 && v * kAmxRowFloats < made.columns; ++v) {
      const std::int64_t first = column + v * kAmxRowFloats;
      const std::int64_t panel = first / kPanelColumns * panel_bytes(block.format, block.depth);
      made.tile[v] = ByteColumns(block.panels + panel, depth_, first % kPanelColumns);
    }
    return made;
  }
};

}  // namespace
}  // namespace numattn
