// Puts the kernels whose products take pairs of bfloat16 into another table.
#pragma once

#include "pair_panels.h"
#include "pair_tiles.h"

namespace numattn {
namespace {

constexpr TileFacts kPairFacts{
    kLaneGroup, kPairKeyBlock, kPairBlockRows, kPairBlockRows, Vec::kWidth, 0, kFoldKeys};
static_assert(kFoldKeys % kPairKeyBlock == 0, "a fold inside a tile");
static_assert(kPairBlockRows <= kMostLaneGroups * kLaneGroup, "a block of more groups than listed");

template <const Kernels& (*Base)()>
inline Kernels with_pairs(const char* isa) {
  Kernels kernels = Base();
  kernels.isa = isa;
  kernels.attend_bfloat16 = {
      "attend_bfloat16", kPairFacts, floats_of<PairWorkspace>,
      [](const AttendBlock& block) { attend<PairTiles>(block, kPairFacts); }};
  kernels.gemm = gemm_kernel_beside<PairProducts, Base>();
  return kernels;
}

}  // namespace
}  // namespace numattn
