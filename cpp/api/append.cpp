// Copies new tokens into a cache's memory.
#include <cstring>

#include "numattn/cache.h"
#include "scratch.h"

namespace numattn {
namespace {

// to[i] = from[i], `to` contiguous
void copy_elements(char* to, const char* from, std::int64_t stride, std::int64_t count,
                   std::int64_t item) {
  const auto size = static_cast<std::size_t>(item);
  if (stride == item || count == 1) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * size);
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) std::memcpy(to + i * item, from + i * stride, size);
}

char* slot_of(const Append& append, const AppendedArray& array, std::int64_t row,
              std::int64_t position) {
  char* data = static_cast<char*>(array.held.data);
  const std::int64_t stride = array.held.strides[2];
  if (append.table.pages == nullptr) return data + row * array.held.strides[0] + position * stride;
  const std::int64_t page =
      append.table.pages[row * append.table.columns + position / append.page_rows];
  return data + page * array.page_stride + position % append.page_rows * stride;
}

void append_array(const Append& append, const AppendedArray& array) {
  const View& tokens = array.tokens;
  for (std::int64_t row = 0; row < tokens.shape[0]; ++row) {
    const auto b = static_cast<std::size_t>(row);
    const std::int64_t count = append.ends[b] - append.starts[b];
    const char* from = static_cast<const char*>(tokens.data) + row * tokens.strides[0];
    for (std::int64_t i = 0; i < count; ++i) {
      char* to = slot_of(append, array, row, append.starts[b] + i);
      for (std::int64_t head = 0; head < tokens.shape[1]; ++head) {
        copy_elements(to + head * array.held.strides[1],
                      from + head * tokens.strides[1] + i * tokens.strides[2], tokens.strides[3],
                      tokens.shape[3], tokens.item_size());
      }
    }
  }
}

}  // namespace

void append_tokens(const Append& append) {
  for (const AppendedArray& array : append.arrays) append_array(append, array);
}

std::shared_ptr<char> streamed_memory(std::int64_t bytes) {
  const auto memory = std::make_shared<Scratch>(bytes, Pages::kHuge);
  return {memory, memory->data()};
}

}  // namespace numattn
