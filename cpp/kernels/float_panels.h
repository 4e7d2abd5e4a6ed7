// Panels multiplied in float32, whatever they hold.
#pragma once

#include <type_traits>

#include "int8_panels.h"
#include "tile.h"

namespace numattn {
namespace {

// 512 · 48 · 4 bytes = 96 KiB of panel per slice: a fraction of every second-level cache.
constexpr std::int64_t kDepthSlice = 512;

// The lines of a slice itself that its only tile will read soon, fetched into the first level.
// Measured on Granite Rapids by a prototype, one row, weights from memory: 15.4 GB/s without, 16.9
// to 17.3 with this; from the third level 29.0 either way. Zen 4 is slower with any fetching
// (below), so only the kernels of processors with AMX use it (amx_gemm.h).
struct NearLines {
  static constexpr std::int64_t kDistance = 1536;
  const char* data = nullptr;  // the slice
  std::int64_t stride = 0;

  void fetch(std::int64_t k) const {
    fetch_lines<kPanelColumns * 4 / kLineBytes, kIntoFirstLevel>(data + k * stride + kDistance);
  }
};

// sums[row][column] of one panel over one slice of the depth, added to what is there or not;
// operands(row, column) are those of a tile. From tile to tile, what is fetched moves on by
// `ahead_bytes`; tiles of the first columns ask for the rows ahead.
template <class OperandsOf, class RowsAheadOf, class Fetch = NothingAhead>
inline void multiply_tiles(int row_count, const OperandsOf& operands, bool add, float* sums,
                           RowsAheadOf& rows_ahead, Fetch ahead = {},
                           std::int64_t ahead_bytes = 0) {
  RowsAheadOf none;
  for (int column = 0; column < kPanelColumns; column += kLaneGroup) {
    for (int row = 0; row < row_count; row += kTileRows) {
      const int rows = row_count - row < kTileRows ? row_count - row : kTileRows;
      float* to = sums + row * kPanelColumns + column;
      const auto finish = [to, add](int m, int v, Vec sum) {
        float* at = to + m * kPanelColumns + v * Vec::kWidth;
        store(at, add ? load(at) + sum : sum);
      };
      multiply_rows<kTileVectors>(rows, operands(row, column), finish, ahead,
                                  column == 0 ? rows_ahead : none);
      ahead.data += ahead_bytes;
    }
  }
}

// Panels of float32. Each of the slice's tiles fetches its share of the slice that follows in
// memory, so that weights from afar arrive while others are at work.
template <class Fetch, class RowsAheadOf>
inline void multiply_slice(FloatRows x, int row_count, std::int64_t depth, const float* panel,
                           std::int64_t tiles, bool add, float* sums, RowsAheadOf& rows_ahead) {
  constexpr std::int64_t kStep = kPanelColumns * 4;
  Fetch ahead = share_of_panel<Fetch>(panel, depth * kStep, kStep, tiles);
  if (std::is_same_v<Fetch, NearLines>) ahead.data = reinterpret_cast<const char*>(panel);
  const auto operands = [&](int row, int column) {
    return TileOperands{depth, x.data + row * x.stride, x.stride, 1, panel + column, kPanelColumns};
  };
  multiply_tiles(row_count, operands, add, sums, rows_ahead, ahead, depth * ahead.stride);
}

// Not inlined: panels of other formats are multiplied by it too, once their slices are floats.
template <class Fetch, class RowsAheadOf>
__attribute__((noinline)) inline void multiply_panel(FloatRows x, int row_count, std::int64_t depth,
                                                     const float* panel, std::int64_t tiles,
                                                     float* sums, RowsAheadOf& rows_ahead,
                                                     bool add = false) {
  RowsAheadOf none;
  for (std::int64_t k = 0; k < depth; k += kDepthSlice) {
    const std::int64_t slice = depth - k < kDepthSlice ? depth - k : kDepthSlice;
    const FloatRows part{x.data + k, x.stride};
    multiply_slice<Fetch>(part, row_count, slice, panel + k * kPanelColumns, tiles, add || k > 0,
                          sums, k + slice < depth ? none : rows_ahead);
  }
}

// `Single`: what a tile that stands alone fetches. A tile or two ask for all lines of their results
// at once: these are few.
template <class Single>
inline void multiply_whole_panel(FloatRows x, int row_count, std::int64_t depth, const float* panel,
                                 RowsAhead& results, float* sums) {
  constexpr std::int64_t kTilesBeside = kPanelColumns / kLaneGroup;
  const std::int64_t tiles = (row_count + kTileRows - 1) / kTileRows * kTilesBeside;
  if constexpr (kTilesBeside <= 2) {
    NoRowsAhead none;
    if (tiles <= 2) results.fetch_rows(row_count);
    // A step of the depth is three cache lines of the panel. A single low tile reads it in order,
    // which the processor foresees by itself: fetching as well read one row of 2048 → 2048 at 28
    // GB/s instead of 41. Others need it: 16 rows of it on Zen 4, 107 GFLOP/s, without 87.
    const bool foreseen = !std::is_same_v<Single, NothingAhead> || row_count < kLeastRowsToFetch;
    if (tiles == 1 && foreseen) {
      return multiply_panel<Single>(x, row_count, depth, panel, tiles, sums, none);
    }
    if (tiles <= 2) {
      return multiply_panel<Ahead<3>>(x, row_count, depth, panel, tiles, sums, none);
    }
  }
  multiply_panel<Ahead<1>>(x, row_count, depth, panel, tiles, sums, results);
}

class FloatPanels {
 public:
  static bool copies(const GemmOperands& operands) { return !reads_in_place(operands.x); }

  FloatPanels(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : depth_(operands.depth),
        copy_(areas.take(copies(operands) ? rows * padded_floats(operands.depth) : 0)) {}

  void begin(const GemmBlock& block) {
    x_ = float_rows(block.x, 0, block.row_count, block.depth, copy_);
  }
  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    multiply_by<NothingAhead>(row, rows, panel, results, sums);
  }

 protected:
  template <class Single>
  void multiply_by(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    multiply_whole_panel<Single>({x_.data + row * x_.stride, x_.stride}, rows, depth_,
                                 reinterpret_cast<const float*>(panel), results, sums);
  }

  std::int64_t depth_;
  float* copy_;
  FloatRows x_{};
};

// Panels of bfloat16, widened on their way into the registers, which costs a tile of full height
// nothing beside its products. Slices are short for the sake of rounding alone.
//
// Not kept: a slice of the panel widened into memory first. On Zen 3 it took a third of the time.
constexpr std::int64_t kPairSlice = 128;

// Rows of pairs as b of a tile: two steps of the depth to a load.
struct PairPanelOperands {
  static constexpr int kSteps = 2;
  std::int64_t depth;
  const float* a;
  std::int64_t a_row;
  std::int64_t a_column;
  const std::uint16_t* b;

  template <int Vectors>
  __attribute__((always_inline)) inline void load_b(std::int64_t k, int step,
                                                    Vec (&right)[Vectors]) const {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      const std::uint16_t* from = b + k * kPanelColumns + v * 2 * Vec::kWidth;
      right[v] = step == 0 ? even_half(from) : odd_half(from);
    }
  }
};

class WidenedPanels : public FloatPanels {
 public:
  using FloatPanels::FloatPanels;

  // Not inlined: beside gemm()'s own variables GCC 12 keeps the sums of a tile in memory, at half
  // the speed. Not kept: tiles that ask for lines of results, whose loops then spare no register
  // (AVX2: 101 instead of 107 GFLOP/s); a slice's share of them is asked for at once.
  __attribute__((noinline)) void multiply(int row, int rows, const char* panel, RowsAhead& results,
                                          float* sums) const {
    NoRowsAhead none;
    for (std::int64_t k = 0; k < depth_; k += kPairSlice) {
      const std::int64_t depth = depth_ - k < kPairSlice ? depth_ - k : kPairSlice;
      const float* x = x_.data + row * x_.stride + k;
      const auto* pairs = reinterpret_cast<const std::uint16_t*>(panel) + k * kPanelColumns;
      const auto operands = [&](int first, int column) {
        return PairPanelOperands{depth, x + first * x_.stride, x_.stride, 1, pairs + 2 * column};
      };
      results.fetch_rows(rows * (k + depth) / depth_ - rows * k / depth_);
      multiply_tiles(rows, operands, k > 0, sums, none);
    }
  }
};

}  // namespace
}  // namespace numattn
