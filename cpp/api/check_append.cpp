// New tokens of a cache's layer.
#include <algorithm>
#include <initializer_list>
#include <string>

#include "check.h"
#include "layout.h"
#include "numattn/cache.h"

namespace numattn {
namespace {

void check_counts(const IntArray& counts, std::int64_t most) {
  const std::int64_t* end = counts.data + counts.size;
  if (std::all_of(counts.data, end, [most](std::int64_t n) { return 0 <= n && n <= most; })) return;
  std::string text;
  for (const std::int64_t* count = counts.data; count < end; ++count) {
    text += (text.empty() ? "" : ", ") + number(*count);
  }
  refuse("counts must be in 0 … ", number(most), ", not [", text, "]");
}

View in_order(const View& view, const Append& append) {
  return append.table.pages == nullptr ? in_bhsd(view, Layout::kBhsd)
                                       : in_bhsd(view, Layout::kBshd);
}

void take_array(Append& append, const View& held, const View& tokens, Layout layout) {
  AppendedArray array{in_order(held, append), held.strides[0], in_bhsd(tokens, layout)};
  const bool alike = array.held.shape[1] == array.tokens.shape[1] &&
                     array.held.shape[3] == array.tokens.shape[3] && held.dtype == tokens.dtype;
  if (!alike || (append.table.pages == nullptr && held.shape[0] != tokens.shape[0])) {
    refuse("tokens of shape ", shape_text(tokens), " do not fit a cache of ", shape_text(held));
  }
  append.arrays.push_back(array);
}

void take_tokens(Append& append, const StoredTokens& held, const StoredTokens& tokens,
                 Layout layout) {
  take_array(append, held.data, tokens.data, layout);
  if (held.scale.has_value() != tokens.scale.has_value()) refuse("tokens and cache differ in form");
  if (held.scale) {
    take_array(append, with_unit_axis(*held.scale), with_unit_axis(*tokens.scale), layout);
  }
}

// Every slot that will be written must be there.
void check_room(const Append& append, std::int64_t pages) {
  const View& held = append.arrays.front().held;
  const std::int64_t rows = append.table.pages == nullptr ? held.shape[2] : append.page_rows;
  for (std::size_t b = 0; b < append.ends.size(); ++b) {
    const std::int64_t start = append.starts[b];
    const std::int64_t end = append.ends[b];
    if (start == end) continue;
    bool fits = start >= 0 && (append.table.pages != nullptr || end <= rows);
    if (append.table.pages != nullptr && fits) {
      const std::int64_t* row =
          append.table.pages + static_cast<std::int64_t>(b) * append.table.columns;
      fits = (end - 1) / rows < append.table.columns;
      for (std::int64_t i = start / rows; fits && i <= (end - 1) / rows; ++i) {
        fits = 0 <= row[i] && row[i] < pages;
      }
    }
    if (!fits) {
      refuse("row ", number(static_cast<std::int64_t>(b)), " has no slots for the tokens ",
             number(start), " to ", number(end));
    }
  }
}

}  // namespace

std::int64_t Append::last_end() const { return *std::max_element(ends.begin(), ends.end()); }

Append check_append(const AppendParams& params) {
  Append append;
  append.table = params.table;
  if (append.table.pages != nullptr) append.page_rows = params.k.data.shape[1];
  append.arrays.reserve(4);
  take_tokens(append, params.k, params.new_k, params.layout);
  if (params.new_v.data.rank > 0) take_tokens(append, params.v, params.new_v, params.layout);
  const View& tokens = append.arrays.front().tokens;
  const std::int64_t batch = tokens.shape[0];
  const std::int64_t most = tokens.shape[2];
  if (append.arrays.back().tokens.shape[2] != most) refuse("k and v must hold as many tokens");
  if (params.counts.data != nullptr) check_counts(params.counts, most);
  for (const IntArray& numbers : {params.lengths, params.first, params.counts}) {
    if (numbers.data != nullptr && numbers.size != batch)
      refuse("rows and tokens differ in number");
  }
  if (append.table.pages != nullptr && params.table.rows != batch)
    refuse("the table has other rows");
  append.starts.resize(static_cast<std::size_t>(batch));
  append.ends.resize(static_cast<std::size_t>(batch));
  for (std::size_t b = 0; b < append.starts.size(); ++b) {
    append.starts[b] = params.lengths.data[b] - (params.first.data ? params.first.data[b] : 0);
    append.ends[b] = append.starts[b] + (params.counts.data ? params.counts.data[b] : most);
  }
  check_room(append, params.k.data.shape[0]);
  return append;
}

}  // namespace numattn
