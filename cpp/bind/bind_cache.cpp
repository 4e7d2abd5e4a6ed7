// Caches' tokens for the Python layer, which has checked k and v and made room for them.
#include <pybind11/stl.h>

#include <array>
#include <initializer_list>
#include <utility>

#include "attention_call.h"
#include "numattn/extent.h"
#include "score.h"

namespace numattn::bind {
namespace {

// Keys, values, and the scales of both where there are any; keeps the arrays alive.
class TokenArrays {
 public:
  explicit TokenArrays(const py::tuple& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (!tokens[i].is_none()) take(i, py::reinterpret_borrow<py::array>(tokens[i]));
    }
  }

  StoredTokens keys() const { return tokens(0, 2); }
  StoredTokens values() const { return tokens(1, 3); }

  // Copies the arrays that lie in the memory of others.
  void keep_apart_from(const TokenArrays& others) {
    for (std::size_t i = 0; i < kCount; ++i) {
      for (std::size_t j = 0; j < kCount; ++j) {
        if (!given_[i] || !others.given_[j]) continue;
        if (!extent_of(views_[i]).meets(extent_of(others.views_[j]))) continue;
        take(i, arrays_[i].attr("copy")());
        break;
      }
    }
  }

 private:
  static constexpr std::size_t kCount = 4;

  void take(std::size_t i, const py::array& array) {
    arrays_[i] = array;
    views_[i] = view_of(array, kNames[i]);
    given_[i] = true;
  }
  StoredTokens tokens(std::size_t numbers, std::size_t scale) const {
    StoredTokens result;
    result.data = views_[numbers];
    if (given_[scale]) result.scale = views_[scale];
    return result;
  }

  static constexpr const char* kNames[kCount] = {"k", "v", "k_scale", "v_scale"};
  std::array<py::object, kCount> arrays_;
  std::array<View, kCount> views_;
  std::array<bool, kCount> given_{};
};

// Tokens for a layer, and the lengths that it then has.
class NewTokens {
 public:
  NewTokens(const py::tuple& held, const py::tuple& tokens, const py::object& table,
            const py::object& lengths, const py::object& first, const py::object& counts,
            const std::string& layout)
      : held_(held), tokens_(tokens), lengths_(py::reinterpret_borrow<py::array>(lengths)) {
    tokens_.keep_apart_from(held_);
    AppendParams params;
    params.k = held_.keys();
    params.v = held_.values();
    params.new_k = tokens_.keys();
    params.new_v = tokens_.values();
    params.layout = layout_ = parse_layout(layout);
    params.lengths = *int_array(lengths);
    params.first = int_array(first).value_or(IntArray{});
    params.counts = int_array(counts).value_or(IntArray{});
    params.table = table_ = page_table(table);
    append = check_append(params);
  }

  // The call of attention to all that each row then has.
  AttentionCall attention_call(const View& q, const ScoreParams& score, const WideChannels& wide,
                               int num_threads) const {
    PagedParams params;
    AttentionParams& shared = params.shared;
    shared.q = q;
    shared.k = held_.keys();
    shared.v = held_.values();
    shared.k.wide = wide;
    shared.score = score;
    shared.score.q_offset = array_of(append.starts);
    shared.score.kv_lens = array_of(append.ends);
    shared.layout = layout_;
    shared.num_threads = num_threads;
    const std::int64_t end = append.last_end();
    if (table_.pages == nullptr) {
      for (StoredTokens* tokens : {&shared.k, &shared.v}) {
        cut(tokens->data, end);
        if (tokens->scale) cut(*tokens->scale, end);
      }
      return check_attention(shared);
    }
    params.table = table_;
    params.keys = end;
    return check_paged(params);
  }

  // Counts the tokens as the layer's.
  void keep() {
    auto* lengths = static_cast<std::int64_t*>(lengths_.mutable_data());
    for (std::size_t b = 0; b < append.ends.size(); ++b) {
      lengths[b] += append.ends[b] - append.starts[b];
    }
  }

  Append append;

 private:
  static IntArray array_of(const std::vector<std::int64_t>& numbers) {
    return {numbers.data(), static_cast<std::int64_t>(numbers.size())};
  }
  // (B, Hkv, slots, ...) up to a slot, in the call's layout.
  void cut(View& view, std::int64_t end) const {
    view.shape[2] = end;
    if (layout_ == Layout::kBhsd) return;
    std::swap(view.shape[1], view.shape[2]);
    std::swap(view.strides[1], view.strides[2]);
  }

  TokenArrays held_, tokens_;
  py::array lengths_;
  Layout layout_;
  PageTable table_;
};

// Stores tokens behind the `lengths` of a layer, and moves these on.
void append_to_cache(const py::tuple& held, const py::tuple& tokens, const py::object& table,
                     const py::object& lengths, const py::object& first, const py::object& counts,
                     const std::string& layout) {
  NewTokens added(held, tokens, table, lengths, first, counts, layout);
  append_tokens(added.append);
  added.keep();
}

// The same, and attention of q to all tokens, with `wide` (Hkv, E) of int64 or None. After an error
// the lengths are as they were.
py::object attend_in_cache(const py::object& q_object, const py::tuple& held,
                           const py::tuple& tokens, const py::object& wide, const py::object& table,
                           const py::object& lengths, const py::object& first,
                           const py::object& counts, const py::tuple& score,
                           const std::string& layout, int num_threads, const py::object& out) {
  const py::array q = as_array(q_object);
  NewTokens added(held, tokens, table, lengths, first, counts, layout);
  const ScoreArguments arguments(score);
  const AttentionCall call =
      added.attention_call(view_of(q, "q"), arguments.params, wide_channels(wide), num_threads);
  py::object output = run_call(call, q, out, false, &added.append);
  added.keep();
  return output;
}

// Bytes of memory that stays and is streamed.
py::array cache_memory(std::int64_t bytes) {
  const std::shared_ptr<char> memory = streamed_memory(bytes);
  const py::capsule owner(new std::shared_ptr<char>(memory),
                          [](void* shared) { delete static_cast<std::shared_ptr<char>*>(shared); });
  return py::array(py::dtype::of<std::uint8_t>(), {bytes}, {1}, memory.get(), owner);
}

}  // namespace

void bind_cache(py::module_& module) {
  module.def("append_to_cache", &append_to_cache);
  module.def("attend_in_cache", &attend_in_cache);
  module.def("cache_memory", &cache_memory);
}

}  // namespace numattn::bind
