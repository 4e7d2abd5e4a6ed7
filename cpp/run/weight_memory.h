// Memory for packed weights, which stays and is streamed: in huge pages, even where a weight alone
// would not fill one.
//
// Weights of middling size share blocks. A layer of a small decoder (d576, MLP 1536) has products
// of 0.6 to 3.4 MiB; each for itself, most of it would lie in small pages. One row and weights from
// memory, Zen 4, shared blocks against memory of their own: 576 → 1536 in float32 27 against
// 19 GB/s, in bfloat16 25 against 21; 1536 → 576 27 against 20 and 27 against 21.
#pragma once

#include <cstdint>
#include <memory>

#include "scratch.h"

namespace numattn {

class WeightMemory {
 public:
  // Throws std::bad_alloc where the memory cannot be had.
  explicit WeightMemory(std::int64_t bytes);
  ~WeightMemory();
  WeightMemory(const WeightMemory&) = delete;
  WeightMemory& operator=(const WeightMemory&) = delete;

  char* data() const { return data_; }

 private:
  std::shared_ptr<Scratch> block_;  // goes with the last weight in it
  char* data_;
  std::int64_t shared_bytes_;  // 0: the block is this weight's alone
};

}  // namespace numattn
