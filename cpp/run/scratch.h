// Aligned memory for one call, taken before its parallel region opens.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>

namespace numattn {

constexpr std::size_t kCacheLine = 64;

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// kHuge: memory that stays and is streamed. Through small pages, 16 MiB of packed weights cost
// 4,096 looks at the page tables (one row of 2048 → 2048: 58 -> 62 GB/s on Zen 4). What one call
// alone needs is better off with small pages: it would wait for a huge one to be cleared.
enum class Pages { kSmall, kHuge };

class Scratch {
 public:
  // Throws std::bad_alloc where the memory cannot be had.
  explicit Scratch(std::int64_t bytes, Pages pages = Pages::kSmall) {
    if (bytes <= 0) return;
    if (static_cast<std::uint64_t>(bytes) > std::numeric_limits<std::size_t>::max() - kCacheLine) {
      throw std::bad_alloc();
    }
    const std::size_t lines = (static_cast<std::size_t>(bytes) + kCacheLine - 1) / kCacheLine;
    const std::size_t size = lines * kCacheLine;
    const bool large = pages == Pages::kHuge && size >= kHugePage;
    data_.reset(static_cast<char*>(std::aligned_alloc(large ? kHugePage : kCacheLine, size)));
    if (data_ == nullptr) throw std::bad_alloc();
#ifdef __linux__
    if (large) madvise(data_.get(), size, MADV_HUGEPAGE);  // advice: nothing depends on it
#endif
  }

  char* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(char* data) const { std::free(data); }
  };
  std::unique_ptr<char, Free> data_;
};

}  // namespace numattn
