// Overrides a table's entries with the kernels whose products take pairs of bfloat16.
#pragma once

#include "pair_panels.h"
#include "pair_tiles.h"
#include "table.h"

namespace numattn {
namespace {

constexpr TileFacts kPairFacts{kLaneGroup, kPairKeyBlock, kPairBlockRows, kPairBlockRows,
                               Vec::kWidth};
static_assert(kPairBlockRows <= kMostLaneGroups * kLaneGroup, "a block of more groups than listed");

template <class Int8>
constexpr Kernels with_pairs(Kernels kernels) {
  kernels.attend_bfloat16 = {
      "attend_bfloat16", kPairFacts, floats_of<PairWorkspace<1>>,
      [](const AttendBlock& block) { attend<PairTiles<1>>(block, kPairFacts); }};
  kernels.gemm = gemm_kernel<PairProducts<Int8>>();
  if (kHighPays) {
    kernels.splits_for_high = true;
    kernels.attend_high = {
        "attend_high", kPairFacts, floats_of<PairWorkspace<2>>,
        [](const AttendBlock& block) { attend<PairTiles<2>>(block, kPairFacts); }};
  }
  return kernels;
}

}  // namespace
}  // namespace numattn
