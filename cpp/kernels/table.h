// The table of kernels for the Vec in force; an ISA file exports it, and may override entries.
#pragma once

#include "activate.h"
#include "combine.h"
#include "decode_table.h"
#include "float_products.h"
#include "norm.h"
#include "rope.h"
#include "weights.h"

namespace numattn {
namespace {

// Keys per tile: multiples of the tile's rows and of 16, so that no tile is ragged.
//
// AVX-512, 192 keys: 36 KiB of scores leave the first-level cache, but each tile's values are added
// to the output once per 192 keys, not once per 64, and its three streams need a load in eight
// cycles. Measured on Zen 4, f32, S2048: 64 keys 95, 96 keys 98, 192 keys 101, 256 keys 102
// GFLOP/s. With AVX2 on Zen 3, 96, 144, 192 and 240 keys take the same time at S64, S128, S197 and
// S2048.
constexpr int kKeyBlock = Vec::kKeyBlock;

// Query rows of a block: two lane groups of AVX-512, so that a fetched tile of keys is used twice
// while queries, outputs and scores stay within half of a 256 KiB second-level cache.
constexpr int kBlockRows = 96;
constexpr int kCopiedRows = 192;
static_assert(kCopiedRows <= kMostLaneGroups * kLaneGroup, "a block of more groups than it lists");

static_assert(kFoldKeys % kKeyBlock == 0 && kFoldKeys % kMaskBlock == 0, "a fold inside a tile");

constexpr TileFacts kAttendFacts{kLaneGroup,  kKeyBlock, kBlockRows, kCopiedRows,
                                 Vec::kWidth, 0,         kFoldKeys};

constexpr AttendKernel kAttend{
    "attend", kAttendFacts, floats_of<FloatWorkspace>,
    [](const AttendBlock& block) { attend<FloatTiles>(block, kAttendFacts); }};

constexpr Kernels make_kernels(const char* isa) {
  return {isa,
          kAttend,
          kAttend,
          kAttend,
          decode_kernel<kDecodeKeyBlock, FloatKeys>(),
          [](const WeightsBlock& block) { weigh(block, kAttendFacts); },
          combine,
          pack_weight,
          gemm_kernel<FloatProducts>(),
          false,
          layer_norm,
          rms_norm,
          rope,
          activate};
}

}  // namespace
}  // namespace numattn
