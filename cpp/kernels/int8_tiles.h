// Panels of 8-bit integers in the tile unit: the 16-bit integers of x as two planes of signed
// bytes, x = 256 · high + low, whose products with the weights are summed apart and then joined,
// which gives the very sums of int8_panels.h.
#pragma once

#include "amx_tile.h"
#include "int8_panels.h"

namespace numattn {
namespace {

// Up to so many rows the vectors of int8_panels.h need less time than a tile of 16 does.
constexpr int kFewInt8Rows = 4;

// The planes of rows of x: row m of plane p at data + p · plane_stride + m · stride.
struct BytePlanes {
  std::int8_t* data;
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
    const std::int64_t rows = round_up(block.row_count, kAmxRows);
    x_ = {reinterpret_cast<std::int8_t*>(integers_), stride_, rows * stride_};
    for (int row = 0; row < block.row_count; ++row) {  // what the rows beyond hold nobody reads
      quantize(block, row, row_);
      std::int8_t* high = x_.data + row * stride_;
      split_row(row_, padded_, high, high + x_.plane_stride);
    }
  }

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    if (!in_tiles_) return Int8Panels::multiply(row, rows, panel, results, sums);
    results.fetch_rows(rows);
    const auto* weights = reinterpret_cast<const std::int8_t*>(panel);
    for (std::int64_t k = 0; k < depth_; k += kInt8Slice) {
      multiply_slice(row, rows, k, weights + k * kPanelColumns, sums);
    }
    scale(row, rows, panel, sums);
  }

 private:
  // Two tiles of rows use a tile of weights twice; a last one alone has all columns at once, so
  // that enough products are under way.
  void multiply_slice(int row, int rows, std::int64_t k, const std::int8_t* weights,
                      float* sums) const {
    const std::int64_t depth = padded_ - k < kInt8Slice ? padded_ - k : kInt8Slice;
    BytePlanes x{x_.data + row * stride_ + k, stride_, x_.plane_stride};
    for (; rows > 0; rows -= 2 * kAmxRows) {
      const int count = rows < 2 * kAmxRows ? rows : 2 * kAmxRows;
      if (count <= kAmxRows) {
        multiply_int8_tiles<1, 3>(x, depth, weights, planes_);
      } else {
        for (int column = 0; column < kPanelColumns; column += kAmxRowFloats) {
          multiply_int8_tiles<2, 1>(x, depth, weights + 4 * column, planes_ + column);
        }
      }
      join_planes(planes_, count, k > 0, sums);
      x.data += 2 * kAmxRows * stride_;
      sums += 2 * kAmxRows * kPanelColumns;
    }
  }

  std::int16_t* row_;
  std::int32_t* planes_;
  BytePlanes x_{};
  bool in_tiles_ = false;
  const PairUnit unit_;
};

}  // namespace
}  // namespace numattn
