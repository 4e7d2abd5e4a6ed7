// Projections where there is a tile unit: which of its kernels multiplies what.
#pragma once

#include "byte_strips.h"
#include "few_pair_rows.h"
#include "float_panels.h"
#include "int8_tiles.h"
#include "pair_panels.h"
#include "pair_strips.h"

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

class FetchedBytes : public BytePanels {
 public:
  FetchedBytes(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : BytePanels(areas, operands, rows, true) {}
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
      case PanelFormat::kW8A8: return call(Type<FetchedBytes>{});
      default: return call(Type<PairPanels<2>>{});
    }
  }
};

// How blocks of a format are multiplied: strips, and a few rows otherwise, to the same bits.
template <class Strips, class FewRows>
struct ByStrips {
  static constexpr int kMostFewRows = FewRows::kMost;

  static bool copies(const GemmOperands& operands) {
    return !Strips::reads_in_place(operands.x, operands.depth);
  }
  // Either layout takes the whole workspace: a block of a few rows may be the last of a call.
  static std::int64_t workspace(const GemmOperands& operands, std::int64_t rows) {
    Areas areas(nullptr);
    const StripWorkspace<Strips> layout(areas, operands, rows);
    const std::int64_t few = FewRows::workspace(operands);
    return areas.floats() > few ? areas.floats() : few;
  }
  static void multiply(const GemmBlock& block) {
    if (block.row_count <= kMostFewRows) return FewRows::multiply(block);
    Areas areas(block.workspace);
    const GemmOperands operands{block.x, block.row_count, block.depth, block.format,
                                block.column_count};
    StripGemm<Strips>(block, {areas, operands, block.row_count}).run();
  }
};

struct FewRowsOfPairs {
  static constexpr int kMost = kFewPairRows;
  static std::int64_t workspace(const GemmOperands& operands) {
    Areas areas(nullptr);
    const FewRowsWorkspace layout(areas, operands.depth);
    return areas.floats();
  }
  static void multiply(const GemmBlock& block) {
    Areas areas(block.workspace);
    multiply_few_pair_rows(block, FewRowsWorkspace(areas, block.depth));
  }
};

struct FewRowsOfBytes {
  static constexpr int kMost = kFewInt8Rows;
  static std::int64_t workspace(const GemmOperands& operands) {
    Areas areas(nullptr);
    take_sums(areas);
    const FetchedBytes layout(areas, operands, kMost);
    return areas.floats();
  }
  static void multiply(const GemmBlock& block) { gemm<FetchedBytes>(block); }
};

struct StripProducts {
  static bool has(PanelFormat format, std::int64_t depth) {
    return format == PanelFormat::kBFloat16 ||
           (format == PanelFormat::kW8A8 && depth <= kByteSlice);
  }
  template <class Call>
  static auto with(PanelFormat format, const Call& call) {
    return format == PanelFormat::kBFloat16 ? call(ByStrips<PairStrips, FewRowsOfPairs>{})
                                            : call(ByStrips<ByteStrips, FewRowsOfBytes>{});
  }
};

// strips(how) where there are strips for it, others(kernel) elsewhere.
template <const Kernels& (*Base)(), class Operands, class InStrips, class Otherwise>
inline auto by_format(const Operands& operands, const InStrips& strips,
                      const Otherwise& otherwise) {
  return StripProducts::has(operands.format, operands.depth)
             ? StripProducts::with(operands.format, strips)
             : otherwise(kernel_for<OtherProducts, Base>(operands.format));
}

template <const Kernels& (*Base)()>
constexpr Kernels with_strips(Kernels kernels) {
  kernels.gemm = {
      [](const GemmOperands& operands) {
        return by_format<Base>(
            operands, [&](auto how) { return how.copies(operands); },
            [&](const GemmKernel& kernel) { return kernel.copies(operands); });
      },
      [](const GemmOperands& operands) {
        return by_format<Base>(
            operands, [&](auto how) { return operands.rows > how.kMostFewRows; },
            [&](const GemmKernel&) { return false; });
      },
      [](const GemmOperands& operands, std::int64_t block_rows) {
        return by_format<Base>(
            operands, [&](auto how) { return how.workspace(operands, block_rows); },
            [&](const GemmKernel& kernel) { return kernel.workspace(operands, block_rows); });
      },
      [](const GemmBlock& block) {
        by_format<Base>(
            block, [&](auto how) { how.multiply(block); },
            [&](const GemmKernel& kernel) { kernel.multiply(block); });
      }};
  return kernels;
}

}  // namespace
}  // namespace numattn
