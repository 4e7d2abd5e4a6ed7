#include "layout.h"

#include <utility>

namespace numattn {
namespace {

View with_batch(const View& view) {
  if (view.rank == 4) return view;
  View wide = view;
  wide.rank = 4;
  wide.shape = {1, view.shape[0], view.shape[1], view.shape[2]};
  wide.strides = {0, view.strides[0], view.strides[1], view.strides[2]};
  return wide;
}

View page_in_bhsd(const View& pool, std::int64_t tokens) {
  View page = pool;
  page.shape = {1, pool.shape[2], tokens, pool.shape[3]};
  page.strides = {0, pool.strides[2], pool.strides[1], pool.strides[3]};
  return page;
}

}  // namespace

View with_unit_axis(const View& view) {
  View wide = view;
  wide.shape[static_cast<std::size_t>(view.rank)] = 1;
  wide.strides[static_cast<std::size_t>(view.rank)] = 0;
  ++wide.rank;
  return wide;
}

View in_bhsd(const View& view, Layout layout) {
  View ordered = with_batch(view);
  if (layout == Layout::kBshd) {
    std::swap(ordered.shape[1], ordered.shape[2]);
    std::swap(ordered.strides[1], ordered.strides[2]);
  }
  return ordered;
}

StoredTokens in_bhsd(const StoredTokens& tokens, Layout layout) {
  StoredTokens ordered = tokens;
  ordered.data = in_bhsd(tokens.data, layout);
  if (tokens.scale) ordered.scale = in_bhsd(with_unit_axis(*tokens.scale), layout);
  return ordered;
}

StoredTokens pages_in_bhsd(const StoredTokens& pool, std::int64_t tokens) {
  StoredTokens ordered{page_in_bhsd(pool.data, tokens), {}, pool.data.strides[0], 0, {}};
  if (pool.scale) {
    ordered.scale = page_in_bhsd(with_unit_axis(*pool.scale), tokens);
    ordered.scale_page_stride = pool.scale->strides[0];
  }
  return ordered;
}

}  // namespace numattn
