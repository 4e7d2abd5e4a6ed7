// Panels of which a slice at a time becomes floats, in the first cache level, while all rows pass
// over it.
//
// Of integers every group of the depth has a scale, and of those of 4 bits a minimum:
//
//   weight[n][k] = integer[n][k] · scale[n][g] + minimum[n][g],   g = k / group_depth(format)
//
// in float32, a product and then a sum, each rounded. That is how files of quantised weights state
// their numbers, so that what is kept here are these and no others.
//
// Of two parts of bfloat16 a weight is the sum; they are packed where a unit multiplies them, and
// get here if such a layer is used elsewhere.
#pragma once

#include "float_panels.h"

namespace numattn {
namespace {

// 128 · 48 · 4 bytes = 24 KiB of floats: whole groups, and pairs.
constexpr std::int64_t kWidenedSlice = 128;

// The two integers of every byte, which lie a row apart.
inline void part_nibbles(const std::uint8_t* pairs, std::int64_t depth, Int8* integers) {
  for (std::int64_t k = 0; k < depth; k += 2) {
    for (int column = 0; column < kPanelColumns; ++column) {
      const std::uint8_t pair = pairs[k / 2 * kPanelColumns + column];
      Int8* to = integers + k * kPanelColumns + column;
      to[0].number = static_cast<std::int8_t>(pair & 15);
      to[kPanelColumns].number = static_cast<std::int8_t>(pair >> 4);
    }
  }
}

// The groups of `depth` steps of a panel, one after the other, their integers as bytes.
template <PanelFormat Format>
class Groups {
 public:
  static constexpr std::int64_t kSteps = group_depth(Format);

  explicit Groups(const char* panel) : next_(panel) { advance(); }

  Vec weights(std::int64_t k, int column) const {
    const Vec product = load(integers_ + k * kPanelColumns + column) * load(scale_ + column);
    return kHasMinimum ? product + load(scale_ + kPanelColumns + column) : product;
  }

  void advance() {
    scale_ = reinterpret_cast<const float*>(next_);
    if (kHasMinimum) {
      part_nibbles(reinterpret_cast<const std::uint8_t*>(scale_ + 2 * kPanelColumns), kSteps,
                   bytes_);
      integers_ = bytes_;
    } else {
      integers_ = reinterpret_cast<const Int8*>(scale_ + kPanelColumns);
    }
    next_ += group_bytes(Format);
  }

 private:
  static constexpr bool kHasMinimum = Format == PanelFormat::kGroups4;

  const char* next_;
  const float* scale_;
  const Int8* integers_;
  alignas(64) Int8 bytes_[kHasMinimum ? kSteps * kPanelColumns : 1];
};

// `depth` steps of a panel as floats [k][column].
template <PanelFormat Format>
__attribute__((noinline)) inline void widen_groups(const char* panel, std::int64_t depth,
                                                   float* weights) {
  Groups<Format> groups(panel);
  for (std::int64_t begin = 0; begin < depth; begin += groups.kSteps) {
    if (begin > 0) groups.advance();
    for (int column = 0; column < kPanelColumns; column += Vec::kWidth) {
      for (std::int64_t k = 0; k < groups.kSteps; ++k) {
        store(weights + (begin + k) * kPanelColumns + column, groups.weights(k, column));
      }
    }
  }
}

// One row, whose sums are those of a tile of rows: a chain for each column, in order of k. Its
// weights go from register to register, and all columns side by side, where a tile of one row has
// two chains that wait for their products. Zen 3, AVX2, 2048 → 2048 by 4 bits: 0.37 ms, by way of
// memory and a tile 0.73.
template <PanelFormat Format>
__attribute__((noinline)) inline void multiply_group_row(const char* panel, const float* x,
                                                         std::int64_t depth, bool add,
                                                         float* sums) {
  constexpr int kVectors = kPanelColumns / Vec::kWidth;
  Vec sum[kVectors];
#pragma GCC unroll 12
  for (int v = 0; v < kVectors; ++v) sum[v] = zero();
  Groups<Format> groups(panel);
  for (std::int64_t begin = 0; begin < depth; begin += groups.kSteps) {
    if (begin > 0) groups.advance();
    for (std::int64_t k = 0; k < groups.kSteps; ++k) {
      const Vec left = broadcast(x[begin + k]);
#pragma GCC unroll 12
      for (int v = 0; v < kVectors; ++v) {
        add_product(sum[v], left, groups.weights(k, v * Vec::kWidth));
      }
    }
  }
#pragma GCC unroll 12
  for (int v = 0; v < kVectors; ++v) {
    float* at = sums + v * Vec::kWidth;
    store(at, add ? load(at) + sum[v] : sum[v]);
  }
}

// Whether that is worth its code: all sums of a row have a register.
constexpr bool kRowInRegisters = kManyRegisters || kPanelColumns / Vec::kWidth <= 6;

// `depth` steps of a panel of two parts, `part_elements` apart, as floats [k][column].
__attribute__((noinline)) inline void widen_parts(const std::uint16_t* pairs,
                                                  std::int64_t part_elements, std::int64_t depth,
                                                  float* weights) {
  for (std::int64_t k = 0; k < depth; k += 2) {
    for (int column = 0; column < kPanelColumns; column += Vec::kWidth) {
      const std::uint16_t* from = pairs + k * kPanelColumns + 2 * column;
      float* to = weights + k * kPanelColumns + column;
      store(to, even_half(from) + even_half(from + part_elements));
      store(to + kPanelColumns, odd_half(from) + odd_half(from + part_elements));
    }
  }
}

class SlicePanels : public FloatPanels {
 public:
  SlicePanels(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : FloatPanels(areas, operands, rows),
        format_(operands.format),
        weights_(areas.take(kWidenedSlice * kPanelColumns)) {}

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    RowsAhead none;
    const FloatRows x{x_.data + row * x_.stride, x_.stride};
    for (std::int64_t k = 0; k < depth_; k += kWidenedSlice) {
      const std::int64_t depth = depth_ - k < kWidenedSlice ? depth_ - k : kWidenedSlice;
      multiply_slice({x.data + k, x.stride}, rows, k, depth, panel,
                     k + depth < depth_ ? none : results, sums);
    }
  }

 private:
  void multiply_slice(FloatRows x, int rows, std::int64_t k, std::int64_t depth, const char* panel,
                      RowsAhead& results, float* sums) const {
    constexpr PanelFormat k8 = PanelFormat::kGroups8;
    constexpr PanelFormat k4 = PanelFormat::kGroups4;
    const bool add = k > 0;
    if (format_ == PanelFormat::kSplit) {
      const auto* pairs = reinterpret_cast<const std::uint16_t*>(panel) + k * kPanelColumns;
      widen_parts(pairs, padded_panel_depth(depth_) * kPanelColumns, depth, weights_);
    } else {
      const bool four_bits = format_ == k4;
      const char* slice = panel + panel_bytes(format_, k);
      if (kRowInRegisters && rows == 1) {
        results.fetch_rows(1);
        return four_bits ? multiply_group_row<k4>(slice, x.data, depth, add, sums)
                         : multiply_group_row<k8>(slice, x.data, depth, add, sums);
      }
      four_bits ? widen_groups<k4>(slice, depth, weights_)
                : widen_groups<k8>(slice, depth, weights_);
    }
    // By the code that multiplies panels of float32, which asks for what follows these in memory:
    // nothing that will be read. So many tiles leave a line or two of it.
    multiply_panel<Ahead<1>>(x, rows, depth, weights_, kPanelColumns * 4, sums, results, add);
  }

  PanelFormat format_;
  float* weights_;
};

// Which class multiplies panels of a format.
struct FloatProducts {
  template <class Call>
  static auto with(PanelFormat format, const Call& call) {
    switch (format) {
      case PanelFormat::kFloat32: return call(Type<FloatPanels>{});
      case PanelFormat::kInt8:
      case PanelFormat::kW8A8: return call(Type<Int8Panels>{});
      case PanelFormat::kBFloat16: return call(Type<WidenedPanels>{});
      default: return call(Type<SlicePanels>{});
    }
  }
};

}  // namespace
}  // namespace numattn
