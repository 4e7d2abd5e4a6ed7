// The table of kernels for the Vec in force; an ISA file exports it, and may override entries.
#pragma once

#include "combine.h"
#include "decode.h"
#include "gemm.h"
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
// GFLOP/s.
constexpr int kKeyBlock = Vec::kKeyBlock;

// Query rows of a block: two lane groups of AVX-512, so that a fetched tile of keys is used twice
// while queries, outputs and scores stay within half of a 256 KiB second-level cache.
constexpr int kBlockRows = 96;
constexpr int kCopiedRows = 192;
static_assert(kCopiedRows <= kMostLaneGroups * kLaneGroup, "a block of more groups than it lists");

constexpr TileFacts kAttendFacts{kLaneGroup, kKeyBlock, kBlockRows, kCopiedRows, Vec::kWidth};
// Decoding takes fewer keys at a time: where it goes through the heads of a token in turn, two
// tiles of all heads must stay in the second-level cache. Measured on Zen 4, 8 heads of 128 float32
// read from memory: 192 keys 24, 96 keys 19 ms; heads apart, 18 ms either way.
constexpr int kDecodeKeyBlock = 96;
constexpr TileFacts kDecodeFacts{kDecodeRows, kDecodeKeyBlock, kDecodeRows, kDecodeRows,
                                 Vec::kWidth};

constexpr AttendKernel kAttend{
    "attend", kAttendFacts, floats_of<FloatWorkspace>,
    [](const AttendBlock& block) { attend<FloatTiles>(block, kAttendFacts); }};

constexpr Kernels make_kernels(const char* isa) {
  return {isa,
          kAttend,
          kAttend,
          kAttend,
          {"decode", kDecodeFacts, floats_of<DecodeWorkspace>,
           [](const AttendBlock& block) { decode(block, kDecodeFacts); }},
          [](const WeightsBlock& block) { weigh(block, kAttendFacts); },
          combine,
          pack_weight,
          {gemm_copies, gemm_workspace, gemm},
          false,
          layer_norm,
          rms_norm,
          rope};
}

}  // namespace
}  // namespace numattn
