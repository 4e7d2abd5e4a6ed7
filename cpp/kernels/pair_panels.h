// Panels multiplied as pairs of bfloat16: x is rounded to bfloat16, or split in two where the
// weights are (precision "high").
#pragma once

#include "gemm.h"
#include "pairs.h"
#include "panel.h"

namespace numattn {
namespace {

inline std::int64_t padded_x_rows(std::int64_t rows) { return round_up(rows, kRowStep); }

inline bool copies_x(const Matrix& x, std::int64_t rows, std::int64_t depth, PanelFormat format) {
  return format == PanelFormat::kSplit || !reads_pairs_in_place(x) || depth % kDepthStep != 0 ||
         rows % kRowStep != 0;
}

template <int Parts>
inline PairRows pair_rows(const GemmBlock& block, std::uint16_t* copy) {
  const Matrix& x = block.x;
  if (!copies_x(x, block.row_count, block.depth, block.format)) {
    return {{reinterpret_cast<const std::uint16_t*>(x.data), 0}, x.row_stride / 2};
  }
  const std::int64_t stride = copied_row(block.depth);
  const std::int64_t rows = padded_x_rows(block.row_count);
  with_reader(x.dtype, x.column_stride, [&](const auto& read) {
    for (std::int64_t row = 0; row < rows; ++row) {
      copy_pair_row<Parts>(x.data + row * x.row_stride, x.column_stride,
                           row < block.row_count ? block.depth : 0, stride, rows * stride, read,
                           copy + row * stride);
    }
  });
  return {{copy, rows * stride}, stride};
}

template <int Parts>
class PairPanels {
 public:
  static bool copies(const GemmOperands& operands) {
    return copies_x(operands.x, operands.rows, operands.depth, operands.format);
  }

  PairPanels(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : depth_(operands.depth),
        copy_(areas.take<std::uint16_t>(
            copies(operands) ? Parts * padded_x_rows(rows) * copied_row(operands.depth) : 0)) {}

  void begin(const GemmBlock& block) { x_ = pair_rows<Parts>(block, copy_); }

  // Not inlined: beside gemm()'s own variables GCC 12 has no registers left for the rows of x.
  __attribute__((noinline)) void multiply(int row, int rows, const char* panel, RowsAhead& results,
                                          float* sums) const {
    RowsAhead none;
    const PairOperand a{x_.parts.data + row * x_.stride, x_.parts.part_stride};
    const auto* pairs = reinterpret_cast<const std::uint16_t*>(panel);
    for (int column = 0; column < kPanelColumns; column += kLaneGroup) {
      const PairOperand b{pairs + 2 * column, padded_panel_depth(depth_) * kPanelColumns};
      multiply_pairs<false, kTileVectors, kPanelColumns>(
          rows, product_of<Parts>(a, x_.stride, b, round_up(depth_, kDepthStep)), sums + column,
          column == 0 ? results : none);
    }
  }

 private:
  std::int64_t depth_;
  std::uint16_t* copy_;
  PairRows x_{};
  const PairUnit unit_;
};

struct PairProducts {
  static bool has(PanelFormat format) { return format == PanelFormat::kBFloat16; }
  template <class Call>
  static auto with(PanelFormat, const Call& call) {
    return call(Type<PairPanels<1>>{});
  }
};

}  // namespace
}  // namespace numattn
