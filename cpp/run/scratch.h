// Aligned memory for one call, taken before its parallel region opens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>

namespace numattn {

constexpr std::size_t kCacheLine = 64;

class Scratch {
 public:
  // Throws std::bad_alloc where the memory cannot be had.
  explicit Scratch(std::int64_t bytes) {
    if (bytes <= 0) return;
    if (static_cast<std::uint64_t>(bytes) > std::numeric_limits<std::size_t>::max() - kCacheLine) {
      throw std::bad_alloc();
    }
    const std::size_t lines = (static_cast<std::size_t>(bytes) + kCacheLine - 1) / kCacheLine;
    data_.reset(static_cast<char*>(std::aligned_alloc(kCacheLine, lines * kCacheLine)));
    if (data_ == nullptr) throw std::bad_alloc();
  }

  char* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(char* data) const { std::free(data); }
  };
  std::unique_ptr<char, Free> data_;
};

}  // namespace numattn
