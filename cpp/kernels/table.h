// The table of kernels for the Vec in force; an ISA file exports it, and may override entries.
#pragma once

#include "activate.h"
#include "combine.h"
#include "decode.h"
#include "norm.h"
#include "rope.h"
#include "slice_panels.h"
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

// Keys after which a block's state is folded into its total: so few that the state's additions err
// less than those within a tile, and so many that most calls have no more, and that a fold, three
// passes over the output, is nothing beside their products. Few rows are split long before.
constexpr std::int64_t kFoldKeys = 4608;
static_assert(kFoldKeys % kKeyBlock == 0 && kFoldKeys % kMaskBlock == 0, "a fold inside a tile");

constexpr TileFacts kAttendFacts{kLaneGroup,  kKeyBlock, kBlockRows, kCopiedRows,
                                 Vec::kWidth, 0,         kFoldKeys};
// Decoding takes fewer keys at a time, whose values are fetched while they are multiplied. Zen 3,
// AVX2, float32, 8 heads of 128 apart, from memory: 96 keys 10.4, 32 keys 9.5 GB/s;
// bfloat16 9.2, 9.1.
constexpr int kDecodeKeyBlock = 96;

// Of few keys, where the first cache level is large enough for a tile's keys and values and memory
// is far: one core of Granite Rapids, 32 keys 27 to 28, 128 keys 25 GB/s (a stand of its own).
constexpr int kShortDecodeKeyBlock = 32;

constexpr TileFacts decode_facts(int key_block) {
  return {kDecodeRows, key_block, kDecodeRows, kDecodeRows, Vec::kWidth};
}

constexpr AttendKernel kAttend{
    "attend", kAttendFacts, floats_of<FloatWorkspace>,
    [](const AttendBlock& block) { attend<FloatTiles>(block, kAttendFacts); }};

template <int DecodeKeyBlock = kDecodeKeyBlock, template <class> class KeysOf = FloatKeys>
constexpr Kernels make_kernels(const char* isa) {
  return {isa,
          kAttend,
          kAttend,
          kAttend,
          {"decode", decode_facts(DecodeKeyBlock), floats_of<DecodeWorkspace>,
           [](const AttendBlock& block) { decode<KeysOf>(block, decode_facts(DecodeKeyBlock)); }},
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
