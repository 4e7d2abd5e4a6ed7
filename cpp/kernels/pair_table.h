// Overrides a table's entries with the kernels whose products take pairs of bfloat16.
#pragma once

#include "pair_panels.h"
#include "pair_tiles.h"
#include "table.h"

namespace numattn {
namespace {

constexpr TileFacts kPairFacts{
    kLaneGroup, kPairKeyBlock, kPairBlockRows, kPairBlockRows, Vec::kWidth, 0, kFoldKeys};
static_assert(kFoldKeys % kPairKeyBlock == 0, "a fold inside a tile");
static_assert(kPairBlockRows <= kMostLaneGroups * kLaneGroup, "a block of more groups than listed");

constexpr Kernels with_pairs(Kernels kernels) {
  kernels.attend_bfloat16 = {
      "attend_bfloat16", kPairFacts, floats_of<PairWorkspace>,
      [](const AttendBlock& block) { attend<PairTiles>(block, kPairFacts); }};
  kernels.gemm = gemm_kernel<PairProducts>();
  return kernels;
}

}  // namespace
}  // namespace numattn
