// A query row as kernels are given it, and which keys it sees; a part of kernels.h.
//
//   seen = (head ∪ span) ∩ listed blocks
//
// Tiles of keys (TileGrid) lie within one block of a list and within or beyond the head, so that
// what a row sees of a tile is an interval and, of a block with bits of its own, some keys of that.
#pragma once

#include <cstdint>

// Code here is compiled into the files of every instruction set. A copy that the linker could
// choose for all of them would be one too many (docs/architecture.md, rule 3), so none is left.
#define NUMATTN_INLINE __attribute__((always_inline))

namespace numattn {

// Keys [begin, end) of a head; none where end <= begin.
struct KeyRange {
  std::int64_t begin;
  std::int64_t end;

  NUMATTN_INLINE std::int64_t count() const { return end - begin; }
  NUMATTN_INLINE bool empty() const { return end <= begin; }
  NUMATTN_INLINE bool holds(KeyRange keys) const { return begin <= keys.begin && keys.end <= end; }
  // The keys of both.
  NUMATTN_INLINE KeyRange both(KeyRange other) const {
    return {begin > other.begin ? begin : other.begin, end < other.end ? end : other.end};
  }
  // The shortest range that holds each of the two that has keys.
  NUMATTN_INLINE KeyRange hull(KeyRange other) const {
    if (empty()) return other;
    if (other.empty()) return *this;
    return {begin < other.begin ? begin : other.begin, end > other.end ? end : other.end};
  }
  // The same keys, counted from `first`.
  NUMATTN_INLINE KeyRange from(std::int64_t first) const { return {begin - first, end - first}; }
  // Bit i of key first + i, of 64 keys.
  NUMATTN_INLINE std::uint64_t bits_from(std::int64_t first) const {
    const KeyRange bits = from(first).both({0, 64});
    return bits.empty() ? 0 : ~std::uint64_t{0} >> (64 - bits.count()) << bits.begin;
  }
};

// Queries and keys of a block of a mask: bits of a word.
constexpr std::int64_t kMaskBlock = 64;

// Keys 64 · key … 64 · key + 63 of a block of queries: all of them, where `bits` is −1; or those
// of 64 words from word 64 · bits on, one for each query.
struct ListedBlock {
  std::int32_t key;
  std::int32_t bits;
};

// One query row of a block: a pair (query head, query position) that reads one key head.
struct QueryRow {
  const char* query;      // head_dim elements
  char* output;           // value_dim contiguous elements; null when partial results are kept
  float* lse;             // null when not wanted
  const char* mask;       // elements over keys, from key 0; null without a mask
  const char* bias;       // elements over keys, from key 0; null without a bias
  KeyRange span;          // the keys that structure lets the row see,
  KeyRange head;          // and more of the first ones
  std::int64_t position;  // where the row stands among the keys
  float alibi_slope;
  float sink;  // an extra logit; −inf is none
  // Of these keys it sees those of listed blocks alone, which are in order; null: all.
  const ListedBlock* blocks;
  std::int64_t block_count;
  const std::uint64_t* words;  // its own of the first 64; of later ones 64 words apart

  // From the first to the last key.
  NUMATTN_INLINE KeyRange keys() const { return head.hull(span); }

  // The first listed block with keys from `key` on; null where there is none.
  NUMATTN_INLINE const ListedBlock* block_from(std::int64_t key) const {
    std::int64_t first = 0;
    for (std::int64_t left = block_count; left > 0;) {
      const std::int64_t half = left / 2;
      const bool before = (blocks[first + half].key + 1) * kMaskBlock <= key;
      first = before ? first + half + 1 : first;
      left = before ? left - half - 1 : half;
    }
    return first < block_count ? blocks + first : nullptr;
  }
  // The one with `key`; null where that is in none.
  NUMATTN_INLINE const ListedBlock* block_at(std::int64_t key) const {
    const ListedBlock* block = block_from(key);
    return block != nullptr && block->key * kMaskBlock <= key ? block : nullptr;
  }

  // No key that it sees lies between `from` and this one; INT64_MAX where there are no more.
  NUMATTN_INLINE std::int64_t next(std::int64_t from) const {
    const KeyRange& part = from < head.end ? head : span;
    if (from >= part.end) return INT64_MAX;
    const std::int64_t key = from < part.begin ? part.begin : from;
    if (blocks == nullptr) return key;
    const ListedBlock* block = block_from(key);
    if (block == nullptr) return INT64_MAX;
    const std::int64_t first = block->key * kMaskBlock;
    return key < first ? first : key;
  }

  // Which of 64 keys from `first` on it sees; `block` is block_at() of them.
  NUMATTN_INLINE std::uint64_t seen_bits(std::int64_t first, const ListedBlock* block) const {
    const std::uint64_t bits = head.bits_from(first) | span.bits_from(first);
    if (blocks == nullptr) return bits;
    if (block == nullptr) return 0;
    const std::int64_t into = first - block->key * kMaskBlock;
    const std::uint64_t listed =
        block->bits < 0 ? ~std::uint64_t{0} : words[block->bits * kMaskBlock];
    return bits & listed >> into;
  }

  // Of a tile, from the first to the last key that it sees; `block` is block_at() of the tile.
  NUMATTN_INLINE KeyRange seen(KeyRange tile, const ListedBlock* block) const {
    const KeyRange keys = head.both(tile).hull(span.both(tile));
    if (blocks == nullptr) return keys;
    if (block == nullptr) return {0, 0};
    if (block->bits < 0 || keys.empty()) return keys;
    const std::uint64_t bits = seen_bits(tile.begin, block) & tile.bits_from(tile.begin);
    if (bits == 0) return {0, 0};
    return {tile.begin + __builtin_ctzll(bits), tile.begin + 64 - __builtin_clzll(bits)};
  }
  NUMATTN_INLINE KeyRange seen(KeyRange tile) const {
    return seen(tile, blocks == nullptr ? nullptr : block_at(tile.begin));
  }
};

}  // namespace numattn
