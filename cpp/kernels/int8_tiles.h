// Panels of 8-bit integers in the tile unit: the 16-bit integers of x as two planes of signed
// bytes, x = 256 · high + low, whose products with the weights are summed apart and then joined,
// which gives the very sums of int8_panels.h. (Rows of 8 bits: byte_strips.h.)
#pragma once

#include "amx_tile.h"
#include "int8_panels.h"

namespace numattn {
namespace {

// Up to so many rows the vectors of int8_panels.h need less time than a tile of 16 does.
constexpr int kFewInt8Rows = 4;

// The planes of rows of x: row m of plane p at data + p · plane_stride + m · stride.
struct BytePlanes {
  const std::int8_t* data;
  std::int64_t stride;
  std::int64_t plane_stride;
};

inline void split_row(const std::int16_t* integers, std::int64_t count, std::int8_t* high,
                      std::int8_t* low) {
  for (std::int64_t k = 0; k < count; ++k) {
    high[k] = static_cast<std::int8_t>((integers[k] + 128) >> 8);
    low[k] = static_cast<std::int8_t>(integers[k]);
  }
}

// Sums of 32 bits as the tiles store them: [plane][32 rows][column].
constexpr int kPlaneSums = 2 * kAmxRows * kPanelColumns;

// RowTiles · 16 rows and ColumnTiles · 16 columns over one slice of the depth: tiles of sums for
// both planes, then one or two of x and of weights in turn.
template <int RowTiles, int ColumnTiles>
inline void multiply_int8_tiles(BytePlanes x, std::int64_t depth, const std::int8_t* weights,
                                std::int32_t* sums) {
  constexpr int kTiles = RowTiles * ColumnTiles;  // of one plane
  constexpr int kFirstX = 2 * kTiles;
  constexpr int kXTiles = kAmxTiles - kFirstX - 1;
  static_assert(kXTiles >= 1, "more sums than tiles");
  constexpr int kWeights = kAmxTiles - 1;
  repeat<2 * kTiles>([](auto at) { tile_zero<decltype(at)::value>(); });
  for (std::int64_t k = 0; k < depth; k += kAmxBytes) {
    repeat<ColumnTiles>([&](auto c) {
      constexpr int kColumn = decltype(c)::value;
      tile_load<kWeights>(weights + kColumn * kAmxRowBytes, kQuadBytes);
      repeat<2 * RowTiles>([&](auto at) {
        constexpr int kPlane = decltype(at)::value / RowTiles;
        constexpr int kRow = decltype(at)::value % RowTiles;
        constexpr int kX = kFirstX + decltype(at)::value % kXTiles;
        tile_load<kX>(x.data + kPlane * x.plane_stride + kRow * kAmxRows * x.stride, x.stride);
        tile_dot_int8<kPlane * kTiles + kRow * ColumnTiles + kColumn, kX, kWeights>();
      });
    });
    x.data += kAmxBytes;
    weights += kAmxRowPairs * kQuadBytes;
  }
  repeat<2 * kTiles>([&](auto at) {
    constexpr int kPlane = decltype(at)::value / kTiles;
    constexpr int kRow = decltype(at)::value % kTiles / ColumnTiles;
    constexpr int kColumn = decltype(at)::value % ColumnTiles;
    std::int32_t* to = sums + kPlane * kPlaneSums + kRow * kAmxRows * kPanelColumns;
    tile_store<decltype(at)::value>(to + kColumn * kAmxRowFloats, kPanelColumns * 4);
  });
}

// Two tiles of rows use a tile of weights twice; a last one alone has all columns at once, so that
// enough products are under way.
inline void multiply_int8_rows(const BytePlanes& x, int rows, std::int64_t depth,
                               const std::int8_t* weights, std::int32_t* sums) {
  if (rows <= kAmxRows) return multiply_int8_tiles<1, 3>(x, depth, weights, sums);
  for (int column = 0; column < kPanelColumns; column += kAmxRowFloats) {
    multiply_int8_tiles<2, 1>(x, depth, weights + 4 * column, sums + column);
  }
}

// Both planes' sums over a slice in float32, beside the slices before or not.
inline void join_planes(const std::int32_t* planes, int rows, bool adds, float* sums) {
  for (int i = 0; i < rows * kPanelColumns; ++i) {
    const float sum = static_cast<float>(256 * planes[i] + planes[kPlaneSums + i]);
    sums[i] = adds ? sums[i] + sum : sum;
  }
}

class Int8TilePanels : public Int8Panels {
 public:
  Int8TilePanels(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : Int8Panels(areas, operands, round_up(rows, kAmxRows), true),
        row_(areas.take<std::int16_t>(padded_)),
        planes_(areas.take<std::int32_t>(2 * kPlaneSums)) {}

  void begin(const GemmBlock& block) {
    in_tiles_ = block.row_count > kFewInt8Rows;
    if (!in_tiles_) return Int8Panels::begin(block);
    auto* const data = reinterpret_cast<std::int8_t*>(integers_);
    const std::int64_t rows = round_up(block.row_count, kAmxRows);
    x_ = {data, stride_, rows * stride_};
    for (int row = 0; row < block.row_count; ++row) {  // what the rows beyond hold nobody reads
      quantize(block, row, row_);
      split_row(row_, padded_, data + row * stride_, data + (rows + row) * stride_);
    }
  }

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    if (!in_tiles_) return Int8Panels::multiply(row, rows, panel, results, sums);
    results.fetch_rows(rows);
    for (std::int64_t k = 0; k < depth_; k += slice_) {
      for (int first = 0; first < rows; first += 2 * kAmxRows) {
        multiply_strip(row + first, rows - first, panel, k, sums + first * kPanelColumns);
      }
    }
  }

 private:
  // Up to 32 rows over one slice of the depth.
  void multiply_strip(int row, int rows, const char* panel, std::int64_t k, float* sums) const {
    rows = rows < 2 * kAmxRows ? rows : 2 * kAmxRows;
    const Int8Slice weights = slice(panel, k, rows);
    const BytePlanes x{x_.data + row * stride_ + k, stride_, x_.plane_stride};
    multiply_int8_rows(x, rows, 4 * weights.quads, weights.weights, planes_);
    join_planes(planes_, rows, weights.adds, sums);
    if (is_last(k)) scale(row, rows, panel, sums);
  }

  std::int16_t* row_;
  std::int32_t* planes_;
  BytePlanes x_{};
  bool in_tiles_ = false;
  const PairUnit unit_;
};

}  // namespace
}  // namespace numattn
