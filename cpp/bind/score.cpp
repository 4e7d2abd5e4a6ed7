#include "score.h"

#include <pybind11/stl.h>

#include <tuple>
#include <utility>

namespace numattn::bind {
namespace {

#define NUMATTN_SCORE_NAME(name) #name,
constexpr const char* kFieldNames[] = {NUMATTN_SCORE_FIELDS(NUMATTN_SCORE_NAME)};
#undef NUMATTN_SCORE_NAME
constexpr std::size_t kFieldCount = sizeof(kFieldNames) / sizeof(*kFieldNames);

// The attributes of a numattn.position.Relative, whose arrays are contiguous and of the exact type.
std::optional<RelativeTerms> relative_terms(const py::object& relative) {
  if (relative.is_none()) return std::nullopt;
  const auto table = [&relative](const char* name) {
    return float_array(relative.attr(name)).value_or(FloatArray{});
  };
  RelativeTerms terms;
  terms.query_table = table("query_table");
  terms.key_table = table("key_table");
  terms.value_table = table("value_table");
  terms.content_bias = table("content_bias");
  terms.position_bias = table("position_bias");
  terms.distance_rows = int_array(relative.attr("distance_rows")).value_or(IntArray{});
  terms.first_distance = relative.attr("first_distance").cast<std::int64_t>();
  return terms;
}

// (2, batch entries, query heads, queries), as the Python layer has made them.
std::optional<KeySpans> key_spans(const py::object& object) {
  if (object.is_none()) return std::nullopt;
  const auto array = py::reinterpret_borrow<py::array>(object);
  KeySpans spans{int_array(object)->data, {}};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    spans.shape[axis] = array.shape(static_cast<py::ssize_t>(axis) + 1);
  }
  return spans;
}

}  // namespace

// The attributes of a numattn.BlockMask, whose arrays are contiguous, of the exact type, and its
// own.
std::optional<BlockLists> block_lists(const py::object& mask) {
  if (mask.is_none()) return std::nullopt;
  const auto data = [&mask](const char* name) {
    return py::reinterpret_borrow<py::array>(mask.attr(name)).data();
  };
  BlockLists lists;
  lists.starts = static_cast<const std::int64_t*>(data("starts"));
  lists.entries = static_cast<const std::int32_t*>(data("entries"));
  lists.words = static_cast<const std::uint64_t*>(data("words"));
  lists.shape = mask.attr("shape").cast<std::array<std::int64_t, 4>>();
  return lists;
}

py::tuple score_fields() {
  py::tuple names(kFieldCount);
  for (std::size_t i = 0; i < kFieldCount; ++i) names[i] = kFieldNames[i];
  return names;
}

ScoreArguments::ScoreArguments(const py::tuple& score) : score_(score) {
  using Field = ScoreField;
  const auto field = [&score](Field name) { return score[static_cast<std::size_t>(name)]; };
  params.mask = optional_view(field(Field::mask), "mask", mask_);
  params.bias = optional_view(field(Field::bias), "bias", bias_);
  params.spans.causal = field(Field::is_causal).cast<bool>();
  params.q_offset = int_array(field(Field::q_offset)).value_or(IntArray{});
  std::tie(params.spans.window_left, params.spans.window_right) =
      field(Field::window).cast<std::pair<std::int64_t, std::int64_t>>();
  params.key_spans = key_spans(field(Field::key_spans));
  params.spans.sink_tokens = field(Field::sink_tokens).cast<std::int64_t>();
  params.block_mask = block_lists(field(Field::block_mask));
  params.scale = field(Field::scale).cast<std::optional<double>>();
  params.softcap = field(Field::softcap).cast<std::optional<double>>();
  params.kv_lens = int_array(field(Field::kv_lens));
  params.alibi_slopes = float_array(field(Field::alibi_slopes));
  params.sinks = float_array(field(Field::sinks));
  params.relative = relative_terms(field(Field::relative));
  params.skip_below = field(Field::skip_below).cast<double>();
}

}  // namespace numattn::bind
