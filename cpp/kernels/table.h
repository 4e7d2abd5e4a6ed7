// The table of kernels for the Vec in force; an ISA file exports it, and may override entries.
#pragma once

#include "combine.h"
#include "decode.h"
#include "gemm.h"
#include "norm.h"
#include "weights.h"

namespace numattn {
namespace {

// Keys per tile. Scores of a tile (keys · lanes · 4 bytes: 12 KiB with AVX-512) share the first-level
// cache with the transposed queries; a multiple of the tile's rows and of 16 leaves no ragged tile.
constexpr int kKeyBlock = kTileRows == 8 ? 64 : 96;

constexpr TileFacts kFacts{kLaneGroup, kKeyBlock, kDecodeRows, Vec::kWidth};

constexpr Kernels make_kernels(const char* isa) {
  return {isa,
          kFacts,
          [](const AttendBlock& block) { attend(block, kFacts); },
          [](const AttendBlock& block) { decode(block, kFacts); },
          [](const WeightsBlock& block) { weigh(block, kFacts); },
          combine,
          pack_weight,
          gemm,
          layer_norm};
}

}  // namespace
}  // namespace numattn
