// Panels of integers with a scale for each group of the depth, and of those of 4 bits a minimum:
//
//   weight[n][k] = integer[n][k] · scale[n][g] + minimum[n][g],   g = k / group_depth(format)
//
// in float32, a product and then a sum, each rounded. That is how files of quantised weights state
// their numbers, so that what is kept here are these and no others.
//
// For up to kFewGroupRows rows they go from register to register; for more, a slice of the depth at
// a time becomes floats in the first cache level, while all rows pass over it. Either way a
// column's sum is one chain in order of k over each slice, and slices are added in order. GFLOP/s,
// 2048 → 2048, weights from memory, Zen 4, by floats in memory and by registers:
//
//   rows               1         2         4         8         16
//   AVX-512, 8 bits    34, 33    20, 49    33, 65    50, 71    70, 81
//            4 bits    25, 33    22, 49    39, 68    59, 83    76, 88
//   AVX2,    8 bits    34, 34    17, 37    31, 52    44, 49    67, 64
//            4 bits    21, 28    20, 39    36, 52    47, 50    70, 63
//
// (one row went from register to register before, its 4 bits as bytes through memory). 64 rows by
// registers 86 and 92 instead of 97.
#pragma once

#include "float_panels.h"

namespace numattn {
namespace {

// 128 · 48 · 4 bytes = 24 KiB of floats: whole groups.
constexpr std::int64_t kGroupSlice = 128;

constexpr int kFewGroupRows = kManyRegisters ? 16 : 8;

// A row alone takes all columns side by side where their sums have a register each: a tile of it
// has too few chains, each of which waits for its products. Zen 3, AVX2, 2048 → 2048 by 4 bits:
// 0.37 ms instead of 0.73.
constexpr bool kRowInRegisters = kManyRegisters || kPanelColumns / Vec::kWidth <= 6;

// Rows and columns of a tile's operands: x from its first row, the panel from its first column on.
template <PanelFormat Format>
struct GroupOperands {
  static constexpr std::int64_t kSteps = group_depth(Format);
  static constexpr bool kHasMinimum = Format == PanelFormat::kGroups4;

  const float* x;
  std::int64_t x_stride;
  const char* groups;
  std::int64_t depth;
  int column;

  // Of a group.
  const float* scales(const char* group) const {
    return reinterpret_cast<const float*>(group) + column;
  }
  // Those of an even step k, 0 <= k < kSteps, from the first column on.
  const char* integers(const char* group, std::int64_t k) const {
    constexpr std::int64_t kScaleBytes = kPanelColumns * 4 * (kHasMinimum ? 2 : 1);
    return group + kScaleBytes + (kHasMinimum ? k / 2 : k) * kPanelColumns + column;
  }
};

// Weights of an even step, or of the odd one behind it; its integers are those of integers().
template <PanelFormat Format, bool Odd>
__attribute__((always_inline)) inline Vec group_weights(const char* integers, const float* scale) {
  if constexpr (Format == PanelFormat::kGroups4) {
    const auto* pairs = reinterpret_cast<const std::uint8_t*>(integers);
    const Vec number = Odd ? load_high_nibbles(pairs) : load_low_nibbles(pairs);
    return number * load(scale) + load(scale + kPanelColumns);
  } else {
    const auto* numbers = reinterpret_cast<const Int8*>(integers) + (Odd ? kPanelColumns : 0);
    return load(numbers) * load(scale);
  }
}

// `depth` steps of a panel as floats [k][column].
template <PanelFormat Format>
__attribute__((noinline)) inline void widen_groups(const GroupOperands<Format>& in,
                                                   float* weights) {
  const char* group = in.groups;
  for (std::int64_t begin = 0; begin < in.depth; begin += in.kSteps) {
    for (int column = 0; column < kPanelColumns; column += Vec::kWidth) {
      const float* scale = in.scales(group) + column;
      for (std::int64_t k = 0; k < in.kSteps; k += 2) {
        const char* integers = in.integers(group, k) + column;
        float* to = weights + (begin + k) * kPanelColumns + column;
        store(to, group_weights<Format, false>(integers, scale));
        store(to + kPanelColumns, group_weights<Format, true>(integers, scale));
      }
    }
    group += group_bytes(Format);
  }
}

template <PanelFormat Format, bool Odd, int Rows, int Vectors>
__attribute__((always_inline)) inline void add_group_step(const GroupOperands<Format>& in,
                                                          Vec (&sum)[Rows][Vectors],
                                                          const char* integers, const float* scale,
                                                          const float* x) {
  Vec right[Vectors];
#pragma GCC unroll 12
  for (int v = 0; v < Vectors; ++v) {
    right[v] = group_weights<Format, Odd>(integers + v * Vec::kWidth, scale + v * Vec::kWidth);
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
    const Vec left = broadcast(x[m * in.x_stride]);
#pragma GCC unroll 12
    for (int v = 0; v < Vectors; ++v) add_product(sum[m][v], left, right[v]);
  }
}

// sums[m][column], rows of kPanelColumns, over a slice, added to what is there or not.
template <PanelFormat Format, int Rows, int Vectors>
__attribute__((noinline)) inline void multiply_group_tile(const GroupOperands<Format>& in, bool add,
                                                          float* sums) {
  Vec sum[Rows][Vectors];
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 12
    for (int v = 0; v < Vectors; ++v) sum[m][v] = zero();
  }
  const char* group = in.groups;
  for (std::int64_t begin = 0; begin < in.depth; begin += in.kSteps) {
    const float* scale = in.scales(group);
    for (std::int64_t k = 0; k < in.kSteps; k += 2) {
      const float* x = in.x + begin + k;
      const char* integers = in.integers(group, k);
      add_group_step<Format, false>(in, sum, integers, scale, x);
      add_group_step<Format, true>(in, sum, integers, scale, x + 1);
    }
    group += group_bytes(Format);
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 12
    for (int v = 0; v < Vectors; ++v) {
      float* at = sums + m * kPanelColumns + v * Vec::kWidth;
      store(at, add ? load(at) + sum[m][v] : sum[m][v]);
    }
  }
}

template <PanelFormat Format>
class GroupPanels : public FloatPanels {
 public:
  GroupPanels(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : FloatPanels(areas, operands, rows),
        weights_(areas.take(rows > kFewGroupRows ? kGroupSlice * kPanelColumns : 0)) {}

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    RowsAhead none;
    for (std::int64_t k = 0; k < depth_; k += kGroupSlice) {
      const std::int64_t depth = depth_ - k < kGroupSlice ? depth_ - k : kGroupSlice;
      const FloatRows x{x_.data + row * x_.stride + k, x_.stride};
      const GroupOperands<Format> in{x.data, x.stride, panel + panel_bytes(Format, k), depth, 0};
      RowsAhead& ahead = k + depth < depth_ ? none : results;
      if (rows <= kFewGroupRows) {
        ahead.fetch_rows(rows);
        multiply_slice(in, rows, k > 0, sums);
        continue;
      }
      widen_groups(in, weights_);
      // By the code that multiplies panels of float32, which asks for what follows these in memory:
      // nothing that will be read. So many tiles leave a line or two of it.
      multiply_panel<Ahead<1>>(x, rows, depth, weights_, kPanelColumns * 4, sums, ahead, k > 0);
    }
  }

 private:
  static void multiply_slice(const GroupOperands<Format>& in, int rows, bool add, float* sums) {
    if (rows == 1 && kRowInRegisters) {
      return multiply_group_tile<Format, 1, kPanelColumns / Vec::kWidth>(in, add, sums);
    }
    each_height<kTileRows>(rows, [&](int row, auto height) {
      GroupOperands<Format> tile = in;
      tile.x += row * in.x_stride;
      for (; tile.column < kPanelColumns; tile.column += kLaneGroup) {
        multiply_group_tile<Format, decltype(height)::value, kTileVectors>(
            tile, add, sums + row * kPanelColumns + tile.column);
      }
    });
  }

  float* weights_;
};

}  // namespace
}  // namespace numattn
