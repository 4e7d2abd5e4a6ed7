// The kernel of decoding, as a table has it.
#pragma once

#include "decode.h"

namespace numattn {
namespace {

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

template <int KeyBlock, template <class> class KeysOf>
constexpr AttendKernel decode_kernel() {
  return {"decode", decode_facts(KeyBlock), floats_of<DecodeWorkspace>,
          [](const AttendBlock& block) { decode<KeysOf>(block, decode_facts(KeyBlock)); }};
}

}  // namespace
}  // namespace numattn
