// Projections where there is a tile unit: which of its kernels multiplies what.
#pragma once

#include "amx_panels.h"
#include "few_pair_rows.h"
#include "float_panels.h"
#include "int8_tiles.h"
#include "pair_panels.h"

namespace numattn {
namespace {

// Panels of float32, where the processor does not foresee far enough what a single tile will read.
class FetchedPanels : public FloatPanels {
 public:
  using FloatPanels::FloatPanels;

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    multiply_by<NearLines>(row, rows, panel, results, sums);
  }
};

struct OtherProducts {
  static bool has(PanelFormat format) {
    return format == PanelFormat::kFloat32 || format == PanelFormat::kInt8 ||
           format == PanelFormat::kW8A8 || format == PanelFormat::kSplit;
  }
  template <class Call>
  static auto with(PanelFormat format, const Call& call) {
    switch (format) {
      case PanelFormat::kFloat32: return call(Type<FetchedPanels>{});
      case PanelFormat::kInt8: return call(Type<Int8TilePanels>{});
      case PanelFormat::kW8A8: return call(Type<ByteTilePanels>{});
      default: return call(Type<PairPanels<2>>{});
    }
  }
};

inline bool is_bfloat16(const GemmOperands& operands) {
  return operands.format == PanelFormat::kBFloat16;
}

// Either layout takes the whole workspace: a block of a few rows may be the last of a call.
inline std::int64_t pair_workspace(const GemmOperands& operands, std::int64_t rows) {
  Areas strips(nullptr);
  const StripWorkspace strip_layout(strips, operands, rows);
  Areas few(nullptr);
  const FewRowsWorkspace few_layout(few, operands.depth);
  return strips.floats() > few.floats() ? strips.floats() : few.floats();
}

inline void multiply_bfloat16(const GemmBlock& block) {
  Areas areas(block.workspace);
  if (block.row_count <= kFewPairRows) {
    multiply_few_pair_rows(block, FewRowsWorkspace(areas, block.depth));
    return;
  }
  const GemmOperands operands{block.x, block.row_count, block.depth, block.format,
                              block.column_count};
  StripGemm(block, StripWorkspace(areas, operands, block.row_count)).run();
}

template <const Kernels& (*Base)()>
constexpr Kernels with_strips(Kernels kernels) {
  constexpr auto others = kernel_for<OtherProducts, Base>;
  kernels.gemm = {[](const GemmOperands& operands) {
                    return is_bfloat16(operands)
                               ? !reads_strips_in_place(operands.x, operands.depth)
                               : others(operands.format).copies(operands);
                  },
                  [](const GemmOperands& operands) {
                    return is_bfloat16(operands) && operands.rows > kFewPairRows;
                  },
                  [](const GemmOperands& operands, std::int64_t block_rows) {
                    return is_bfloat16(operands)
                               ? pair_workspace(operands, block_rows)
                               : others(operands.format).workspace(operands, block_rows);
                  },
                  [](const GemmBlock& block) {
                    if (block.format == PanelFormat::kBFloat16) {
                      multiply_bfloat16(block);
                    } else {
                      others(block.format).multiply(block);
                    }
                  }};
  return kernels;
}

}  // namespace
}  // namespace numattn
