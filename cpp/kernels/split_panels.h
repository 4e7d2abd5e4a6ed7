// Panels of two parts of bfloat16, whose sums are the weights: a slice at a time becomes floats, in
// the first cache level, while all rows pass over it. They are packed where a unit multiplies them,
// and get here if such a layer is used elsewhere.
#pragma once

#include "float_panels.h"

namespace numattn {
namespace {

// 128 · 48 · 4 bytes = 24 KiB of floats: whole pairs.
constexpr std::int64_t kWidenedSlice = 128;

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

class SplitPanels : public FloatPanels {
 public:
  SplitPanels(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : FloatPanels(areas, operands, rows), weights_(areas.take(kWidenedSlice * kPanelColumns)) {}

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    RowsAhead none;
    const FloatRows x{x_.data + row * x_.stride, x_.stride};
    for (std::int64_t k = 0; k < depth_; k += kWidenedSlice) {
      const std::int64_t depth = depth_ - k < kWidenedSlice ? depth_ - k : kWidenedSlice;
      const auto* pairs = reinterpret_cast<const std::uint16_t*>(panel) + k * kPanelColumns;
      widen_parts(pairs, padded_panel_depth(depth_) * kPanelColumns, depth, weights_);
      // By the code that multiplies panels of float32, which asks for what follows these in memory:
      // nothing that will be read. So many tiles leave a line or two of it.
      multiply_panel<Ahead<1>>({x.data + k, x.stride}, rows, depth, weights_, kPanelColumns * 4,
                               sums, k + depth < depth_ ? none : results, k > 0);
    }
  }

 private:
  float* weights_;
};

}  // namespace
}  // namespace numattn
