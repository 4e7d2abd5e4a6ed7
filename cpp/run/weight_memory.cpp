#include "weight_memory.h"

#include <mutex>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace numattn {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

// Below, a huge page would be mostly empty; above, a weight fills pages of its own.
constexpr std::int64_t kLeastShared = kMiB / 2;
constexpr std::int64_t kMostShared = 8 * kMiB;

// Addresses: what no weight has been put into takes no memory.
constexpr std::int64_t kBlock = 32 * kMiB;

constexpr std::int64_t kSmallPage = 4096;

// Where the next weight goes.
struct Shelf {
  std::mutex mutex;
  std::weak_ptr<Scratch> block;
  std::int64_t used = 0;
};

Shelf& shelf() {
  static Shelf only;
  return only;
}

}  // namespace

WeightMemory::WeightMemory(std::int64_t bytes) : shared_bytes_(0) {
  Shelf& current = shelf();
  std::unique_lock<std::mutex> locked(current.mutex, std::defer_lock);
  const bool fits = kLeastShared <= bytes && bytes <= kMostShared;
  // Not waited for: in a forked child, the thread that held it may be gone.
  if (!fits || !locked.try_lock()) {
    block_ = std::make_shared<Scratch>(bytes, Pages::kHuge);
    data_ = block_->data();
    return;
  }
  const std::int64_t pages = (bytes + kSmallPage - 1) / kSmallPage * kSmallPage;
  block_ = current.block.lock();
  if (block_ == nullptr || current.used + pages > kBlock) {
    block_ = std::make_shared<Scratch>(kBlock, Pages::kHuge);
    current.block = block_;
    current.used = 0;
  }
  data_ = block_->data() + current.used;
  shared_bytes_ = pages;
  current.used += pages;
}

WeightMemory::~WeightMemory() {
#ifdef __linux__
  // The system has the memory back at once; the addresses, with the block.
  if (shared_bytes_ > 0) madvise(data_, static_cast<std::size_t>(shared_bytes_), MADV_DONTNEED);
#endif
}

}  // namespace numattn
