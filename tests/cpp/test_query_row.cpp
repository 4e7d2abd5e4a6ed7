// What a query row sees, against its definition key by key.
#include "query_row.h"

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "expect.h"

using numattn::KeyRange;
using numattn::kMaskBlock;
using numattn::ListedBlock;
using numattn::QueryRow;

namespace {

constexpr std::int64_t kKeys = 5 * kMaskBlock;
constexpr std::int64_t kPlace = 3;  // of the row among the queries of a block

struct Lists {
  std::vector<ListedBlock> blocks;
  std::array<std::uint64_t, 2 * kMaskBlock> words{};
};

bool listed(const QueryRow& row, std::int64_t key) {
  if (row.blocks == nullptr) return true;
  for (std::int64_t i = 0; i < row.block_count; ++i) {
    const ListedBlock& block = row.blocks[i];
    if (block.key != key / kMaskBlock) continue;
    return block.bits < 0 || (row.words[block.bits * kMaskBlock] >> key % kMaskBlock & 1u) != 0;
  }
  return false;
}

bool holds(KeyRange keys, std::int64_t key) { return keys.begin <= key && key < keys.end; }

bool sees(const QueryRow& row, std::int64_t key) {
  return (holds(row.head, key) || holds(row.span, key)) && listed(row, key);
}

void compare_bits(const QueryRow& row) {
  for (std::int64_t first = 0; first < kKeys; first += 16) {
    const std::int64_t end = first / kMaskBlock * kMaskBlock + kMaskBlock;
    const ListedBlock* block = row.blocks == nullptr ? nullptr : row.block_at(first);
    const std::uint64_t bits = row.seen_bits(first, block);
    for (std::int64_t key = first; key < end; ++key) {
      expect((bits >> (key - first) & 1u) == (sees(row, key) ? 1u : 0u), "bit of key %ld from %ld",
             static_cast<long>(key), static_cast<long>(first));
    }
  }
}

void compare_next(const QueryRow& row) {
  for (std::int64_t from = 0; from < kKeys; ++from) {
    const std::int64_t next = row.next(from);
    expect(next >= from, "the next key %ld from %ld", static_cast<long>(next),
           static_cast<long>(from));
    for (std::int64_t key = from; key < next && key < kKeys; ++key) {
      expect(!sees(row, key), "key %ld is passed over from %ld", static_cast<long>(key),
             static_cast<long>(from));
    }
  }
}

// Of tiles within a block, and within or beyond the head.
void compare_seen(const QueryRow& row) {
  for (std::int64_t begin = 0; begin < kKeys; begin += 7) {
    std::int64_t end = begin / kMaskBlock * kMaskBlock + kMaskBlock;
    if (begin < row.head.end && row.head.end < end) end = row.head.end;
    const KeyRange seen = row.seen({begin, end});
    std::int64_t first = -1;
    std::int64_t last = -1;
    for (std::int64_t key = begin; key < end; ++key) {
      if (!sees(row, key)) continue;
      if (first < 0) first = key;
      last = key;
    }
    const bool right = first < 0 ? seen.empty() : seen.begin == first && seen.end == last + 1;
    expect(right, "keys %ld to %ld of [%ld, %ld), not %ld to %ld", static_cast<long>(first),
           static_cast<long>(last), static_cast<long>(begin), static_cast<long>(end),
           static_cast<long>(seen.begin), static_cast<long>(seen.end - 1));
  }
}

void bits_of_a_range() {
  expect(KeyRange{0, 64}.bits_from(0) == ~std::uint64_t{0}, "all of 64");
  expect(KeyRange{70, 72}.bits_from(64) == 0xC0, "two of them");
  expect(KeyRange{0, 64}.bits_from(64) == 0, "none behind");
  expect(KeyRange{128, 200}.bits_from(64) == 0, "none before");
  expect(KeyRange{60, 70}.bits_from(64) == 0x3F, "those from the first on");
  expect(KeyRange{5, 5}.bits_from(0) == 0, "an empty range");
}

}  // namespace

int main() {
  bits_of_a_range();
  std::mt19937_64 random(0);
  const auto below = [&random](std::int64_t limit) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
  };
  for (int turn = 0; turn < 400; ++turn) {
    Lists lists;
    for (std::int32_t key = 0; key < kKeys / kMaskBlock; ++key) {
      const std::int64_t kind = below(4);
      if (kind < 3) lists.blocks.push_back({key, static_cast<std::int32_t>(kind) - 1});
    }
    for (std::uint64_t& word : lists.words) word = below(4) == 0 ? 0 : random() & random();
    QueryRow row{};
    const std::int64_t begin = below(kKeys);
    row.head = {0, turn % 3 == 0 ? 0 : below(100)};
    row.span = {begin, begin + below(kKeys - begin + 1)};
    if (row.span.empty()) row.span = {0, 0};
    if (turn % 4 != 0 && !lists.blocks.empty()) {
      row.blocks = lists.blocks.data();
      row.block_count = static_cast<std::int64_t>(lists.blocks.size());
      row.words = lists.words.data() + kPlace;
    }
    compare_bits(row);
    compare_next(row);
    compare_seen(row);
  }
  return report();
}
