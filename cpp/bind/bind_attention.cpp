// attention, attention_weights and plan for the Python layer, which has coerced the small
// arguments.
#include <pybind11/stl.h>

#include "attention_call.h"
#include "interpreter.h"
#include "numpy_view.h"
#include "score.h"
#include "steps.h"

namespace numattn::bind {
namespace {

// q, keys and values, and the scales of the latter if these are integers; keeps the arrays alive.
class Operands {
 public:
  Operands(const py::object& q, const py::object& k, const py::object& v, const char* k_name,
           const char* v_name)
      : q_(as_array(q)), k_(as_array(k)), v_(as_array(v)) {
    params.q = view_of(q_, "q");
    params.k.data = view_of(k_, k_name);
    params.v.data = view_of(v_, v_name);
  }

  void set_scales(const py::object& k_scale, const py::object& v_scale) {
    params.k.scale = optional_view(k_scale, "k_scale", k_scale_);
    params.v.scale = optional_view(v_scale, "v_scale", v_scale_);
  }

  const py::array& q() const { return q_; }

  AttentionParams params;

 private:
  py::array q_, k_, v_, k_scale_, v_scale_;
};

}  // namespace

py::object run_call(const AttentionCall& call, const py::array& q, const py::object& out,
                    bool return_lse, const Append* append) {
  const py::array output = output_or_new(out, q, output_shape(call));
  const View result = output_view(output, "out");
  if (!out.is_none()) check_attention_output(call, result);
  py::array lse;
  if (return_lse) lse = empty_float32(lse_shape(call));
  float* lse_data = return_lse ? static_cast<float*>(lse.mutable_data()) : nullptr;
  run_unlocked([&] {
    if (append != nullptr) append_tokens(*append);
    return run_attention(call, result, lse_data, interrupted);
  });
  if (return_lse) return py::make_tuple(output, lse);
  return output;
}

namespace {

py::object attention(const py::object& q, const py::object& k, const py::object& v,
                     const py::object& k_scale, const py::object& v_scale, const py::object& k_wide,
                     const py::tuple& score, const std::string& layout,
                     const std::string& precision, int num_threads, const py::object& out,
                     bool return_lse) {
  Operands operands(q, k, v, "k", "v");
  operands.set_scales(k_scale, v_scale);
  operands.params.k.wide = wide_channels(k_wide);
  const ScoreArguments arguments(score);
  AttentionParams& params = operands.params;
  params.score = arguments.params;
  params.layout = parse_layout(layout);
  params.precision = parse_precision(precision);
  params.num_threads = num_threads;
  return run_call(check_attention(params), operands.q(), out, return_lse);
}

// A checked call whose arrays `kept` keeps alive.
void add_call(Steps& steps, AttentionCall call, const py::array& out,
              std::initializer_list<py::object> kept) {
  const View result = output_view(out, "out");
  check_attention_output(call, result);
  steps.add([call = std::move(call),
             result] { return run_attention(call, result, nullptr, interrupted); },
            kept);
}

// In layout bshd.
void add_attention(Steps& steps, const py::array& q, const py::array& k, const py::array& v,
                   const py::tuple& score, const py::array& out) {
  Operands operands(q, k, v, "k", "v");
  const ScoreArguments arguments(score);
  AttentionParams& params = operands.params;
  params.score = arguments.params;
  params.layout = Layout::kBshd;
  params.num_threads = steps.num_threads();
  add_call(steps, check_attention(params), out, {q, k, v, score, out});
}

// The same sequences of queries and of keys.
void add_attention_varlen(Steps& steps, const py::array& q, const py::array& k, const py::array& v,
                          const py::array& starts, const py::tuple& score, const py::array& out) {
  Operands operands(q, k, v, "k", "v");
  const ScoreArguments arguments(score);
  RaggedParams params;
  params.shared = operands.params;
  params.shared.score = arguments.params;
  params.shared.num_threads = steps.num_threads();
  params.query_starts = params.key_starts = *int_array(starts);
  add_call(steps, check_ragged(params), out, {q, k, v, score, out});
}

// q, k, v (total, H, D) in rows; the starts of the sequences in them, and a mask or None of each,
// or None for all.
py::object attention_varlen(const py::object& q, const py::object& k, const py::object& v,
                            const py::object& query_starts, const py::object& key_starts,
                            const py::tuple& score, const py::object& masks,
                            const std::string& precision, int num_threads, const py::object& out,
                            bool return_lse) {
  Operands operands(q, k, v, "k", "v");
  const ScoreArguments arguments(score);
  RaggedParams params;
  params.shared = operands.params;
  params.shared.score = arguments.params;
  params.shared.precision = parse_precision(precision);
  params.shared.num_threads = num_threads;
  params.query_starts = *int_array(query_starts);
  params.key_starts = *int_array(key_starts);
  if (!masks.is_none()) {
    params.block_masks.emplace();
    for (const py::handle mask : py::reinterpret_borrow<py::tuple>(masks)) {
      const auto object = py::reinterpret_borrow<py::object>(mask);
      params.block_masks->push_back(block_lists(object).value_or(BlockLists{}));
    }
  }
  return run_call(check_ragged(params), operands.q(), out, return_lse);
}

// k and v are pools of pages, `table` (B, n) says which of them each entry has.
py::object attention_paged(const py::object& q, const py::object& k, const py::object& v,
                           const py::object& k_scale, const py::object& v_scale,
                           const py::object& k_wide, const py::array& table, const py::tuple& score,
                           const std::string& layout, const std::string& precision, int num_threads,
                           const py::object& out, bool return_lse) {
  Operands operands(q, k, v, "k_pages", "v_pages");
  operands.set_scales(k_scale, v_scale);
  operands.params.k.wide = wide_channels(k_wide);
  const ScoreArguments arguments(score);
  PagedParams params;
  params.shared = operands.params;
  params.shared.score = arguments.params;
  params.shared.layout = parse_layout(layout);
  params.shared.precision = parse_precision(precision);
  params.shared.num_threads = num_threads;
  params.table = page_table(table);
  return run_call(check_paged(params), operands.q(), out, return_lse);
}

py::array attention_weights(const py::object& q_object, const py::object& k_object,
                            const py::object& rows_object, const py::tuple& score,
                            const std::string& layout, int num_threads) {
  const py::array q = as_array(q_object);
  const py::array k = as_array(k_object);
  const ScoreArguments arguments(score);
  AttentionParams params;
  params.q = view_of(q, "q");
  params.k.data = view_of(k, "k");
  params.score = arguments.params;
  params.layout = parse_layout(layout);
  params.num_threads = num_threads;
  const AttentionCall call = check_weights(params);
  const std::optional<IntArray> rows = int_array(rows_object);
  py::array weights = empty_float32(weights_shape(call, rows ? rows->size : call.whole.queries));
  float* data = static_cast<float*>(weights.mutable_data());
  run_unlocked([&] { return run_attention_weights(call, rows, data, interrupted); });
  return weights;
}

py::dict plan(const std::vector<std::int64_t>& q_shape, const std::vector<std::int64_t>& k_shape,
              const std::vector<std::int64_t>& v_shape, const py::array& dtype_model,
              const py::tuple& score, const std::string& layout, const std::string& precision,
              int num_threads) {
  const DType dtype = dtype_of(dtype_model, "dtype");
  const ScoreArguments arguments(score);
  AttentionParams params;
  params.q = contiguous_view(q_shape, dtype, "q");
  params.k.data = contiguous_view(k_shape, dtype, "k");
  params.v.data = contiguous_view(v_shape, dtype, "v");
  params.score = arguments.params;
  params.layout = parse_layout(layout);
  params.precision = parse_precision(precision);
  params.num_threads = num_threads;
  const AttentionReport report = report_attention(check_attention(params));
  py::dict result;
  result["kernel"] = report.kernel;
  result["isa"] = report.isa;
  result["query_block"] = report.query_block;
  result["key_block"] = report.key_block;
  result["split_keys"] = report.split_keys;
  result["is_split"] = report.is_split;
  result["work_items"] = report.work_items;
  result["threads"] = report.threads;
  result["scratch_bytes"] = report.scratch_bytes;
  result["flops"] = report.flops;
  return result;
}

}  // namespace

void bind_attention(py::module_& module) {
  module.def("attention", &attention);
  module.def("attention_paged", &attention_paged);
  module.def("attention_varlen", &attention_varlen);
  module.def("attention_weights", &attention_weights);
  module.def("add_attention", &add_attention);
  module.def("add_attention_varlen", &add_attention_varlen);
  module.def("plan", &plan);
  module.attr("score_fields") = score_fields();
}

}  // namespace numattn::bind
