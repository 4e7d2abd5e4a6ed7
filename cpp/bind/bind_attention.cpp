// attention, attention_weights and plan for the Python layer, which has coerced the small
// arguments.
#include <pybind11/stl.h>

#include "numpy_view.h"
#include "score.h"

namespace numattn::bind {
namespace {

// What a call's computation is told beside its arrays.
void set_options(AttentionParams& params, const ScoreArguments& score, const std::string& layout,
                 const std::string& precision, int num_threads) {
  params.score = score.params;
  params.layout = parse_layout(layout);
  params.precision = parse_precision(precision);
  params.num_threads = num_threads;
}

std::vector<py::ssize_t> output_shape(const AttentionProblem& problem) {
  return {problem.output_shape.begin(), problem.output_shape.begin() + problem.rank};
}

// q, keys and values, and the scales of the latter if these are integers; keeps the arrays alive.
class Operands {
 public:
  // `pages`: keys and values are pools of pages.
  Operands(const py::object& q, const py::object& k, const py::object& v, const py::object& k_scale,
           const py::object& v_scale, bool pages)
      : q_(as_array(q)), k_(as_array(k)), v_(as_array(v)) {
    params.q = view_of(q_, "q");
    params.k = view_of(k_, pages ? "k_pages" : "k");
    params.v = view_of(v_, pages ? "v_pages" : "v");
    params.k_scale = optional_view(k_scale, "k_scale", k_scale_);
    params.v_scale = optional_view(v_scale, "v_scale", v_scale_);
  }

  const py::array& q() const { return q_; }

  AttentionParams params;

 private:
  py::array q_, k_, v_, k_scale_, v_scale_;
};

// `out`, or a new array of that shape and the model's dtype.
py::array output_or_new(const py::object& out, const py::array& model,
                        const std::vector<py::ssize_t>& shape) {
  return out.is_none() ? empty_like_dtype(model, shape) : py::reinterpret_borrow<py::array>(out);
}

// Computes all parts; the output, and with it the lse if that is wanted.
py::object run_parts(const std::vector<AttentionPart>& parts, int num_threads,
                     const py::array& output, const py::array& lse, bool return_lse) {
  run_unlocked([&] {
    return run_attention(parts.data(), static_cast<std::int64_t>(parts.size()), num_threads,
                         interrupted);
  });
  if (return_lse) return py::make_tuple(output, lse);
  return output;
}

py::object attention(const py::object& q, const py::object& k, const py::object& v,
                     const py::object& k_scale, const py::object& v_scale,
                     const py::tuple& score_tuple, const std::string& layout,
                     const std::string& precision, int num_threads, const py::object& out,
                     bool return_lse) {
  Operands operands(q, k, v, k_scale, v_scale, false);
  AttentionParams& params = operands.params;
  const ScoreArguments score(score_tuple);
  set_options(params, score, layout, precision, num_threads);
  const AttentionProblem problem = check_attention(params);
  const py::array output = output_or_new(out, operands.q(), output_shape(problem));
  const View result = output_view(output, "out");
  if (!out.is_none()) check_attention_output(problem, result);
  py::array lse;
  float* lse_data = nullptr;
  if (return_lse) {
    std::vector<py::ssize_t> shape{problem.batch, problem.query_heads, problem.queries};
    if (problem.rank == 3) shape.erase(shape.begin());
    lse = empty_float32(shape);
    lse_data = static_cast<float*>(lse.mutable_data());
  }
  const AttentionPart part{&problem, result, lse_data, problem.query_heads * problem.queries,
                           problem.queries};
  return run_parts({part}, params.num_threads, output, lse, return_lse);
}

// q, k, v (total, H, D) in rows; the starts of the sequences in them.
py::object attention_varlen(const py::object& q, const py::object& k, const py::object& v,
                            const py::object& query_starts, const py::object& key_starts,
                            const py::tuple& score_tuple, const std::string& precision,
                            int num_threads, const py::object& out, bool return_lse) {
  Operands operands(q, k, v, py::none(), py::none(), false);
  const ScoreArguments score(score_tuple);
  set_options(operands.params, score, "bshd", precision, num_threads);
  RaggedParams params;
  params.shared = operands.params;
  params.query_starts = *int_array(query_starts);
  params.key_starts = *int_array(key_starts);
  const std::vector<AttentionProblem> problems = check_ragged(params);
  const View& queries = params.shared.q;
  const std::int64_t total = queries.shape[0];
  const std::vector<py::ssize_t> shape{total, queries.shape[1], params.shared.v.shape[2]};
  const py::array output = output_or_new(out, operands.q(), shape);
  const View result = output_view(output, "out");
  if (!out.is_none()) check_ragged_output(params, result);
  py::array lse;
  if (return_lse) lse = empty_float32({queries.shape[1], total});
  float* lse_data = return_lse ? static_cast<float*>(lse.mutable_data()) : nullptr;
  std::vector<AttentionPart> parts;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    const std::int64_t first = params.query_starts.data[i];
    View part = result;
    part.data = static_cast<char*>(result.data) + first * result.strides[0];
    part.shape[0] = problems[i].queries;
    parts.push_back({&problems[i], part, return_lse ? lse_data + first : nullptr, 0, total});
  }
  return run_parts(parts, params.shared.num_threads, output, lse, return_lse);
}

// k and v are pools of pages, `table` (B, n) says which of them each entry has.
py::object attention_paged(const py::object& q, const py::object& k, const py::object& v,
                           const py::object& k_scale, const py::object& v_scale,
                           const py::array& table, const py::tuple& score_tuple,
                           const std::string& layout, const std::string& precision, int num_threads,
                           const py::object& out, bool return_lse) {
  Operands operands(q, k, v, k_scale, v_scale, true);
  PagedParams params;
  const ScoreArguments score(score_tuple);
  set_options(operands.params, score, layout, precision, num_threads);
  params.shared = operands.params;
  params.block_table = *int_array(table);
  params.table_rows = table.shape(0);
  params.table_columns = table.shape(1);
  const std::vector<AttentionProblem> problems = check_paged(params);
  const View& queries = params.shared.q;
  std::vector<py::ssize_t> shape(queries.shape.begin(), queries.shape.end());
  shape[3] = params.shared.v.shape[3];
  const py::array output = output_or_new(out, operands.q(), shape);
  const View result = output_view(output, "out");
  if (!out.is_none()) check_paged_output(params, result);
  const bool heads_first = params.shared.layout == Layout::kBhsd;
  const std::int64_t heads = queries.shape[heads_first ? 1 : 2];
  const std::int64_t length = queries.shape[heads_first ? 2 : 1];
  py::array lse;
  if (return_lse) lse = empty_float32({queries.shape[0], heads, length});
  float* lse_data = return_lse ? static_cast<float*>(lse.mutable_data()) : nullptr;
  std::vector<AttentionPart> parts;
  for (std::size_t b = 0; b < problems.size(); ++b) {
    const auto entry = static_cast<std::int64_t>(b);
    View part = result;
    part.data = static_cast<char*>(result.data) + entry * result.strides[0];
    part.shape[0] = 1;
    float* own_lse = return_lse ? lse_data + entry * heads * length : nullptr;
    parts.push_back({&problems[b], part, own_lse, 0, length});
  }
  return run_parts(parts, params.shared.num_threads, output, lse, return_lse);
}

py::array attention_weights(const py::object& q_object, const py::object& k_object,
                            const py::object& rows_object, const py::tuple& score_tuple,
                            const std::string& layout, int num_threads) {
  const py::array q = as_array(q_object);
  const py::array k = as_array(k_object);
  AttentionParams params;
  params.q = view_of(q, "q");
  params.k = view_of(k, "k");
  params.v = params.k;  // no values are read; the keys' shape always fits
  const ScoreArguments score(score_tuple);
  set_options(params, score, layout, "highest", num_threads);
  if (params.score.relative) params.score.relative->value_table = {};
  const AttentionProblem problem = check_attention(params);
  const std::optional<IntArray> rows = int_array(rows_object);
  const auto lengths = weights_shape(problem, rows ? rows->size : problem.queries);
  std::vector<py::ssize_t> shape(lengths.begin() + (problem.rank == 3 ? 1 : 0), lengths.end());
  py::array weights = empty_float32(shape);
  float* data = static_cast<float*>(weights.mutable_data());
  run_unlocked([&] { return run_attention_weights(problem, rows, data, interrupted); });
  return weights;
}

py::dict plan(const std::vector<std::int64_t>& q_shape, const std::vector<std::int64_t>& k_shape,
              const std::vector<std::int64_t>& v_shape, const py::array& dtype_model,
              const py::tuple& score_tuple, const std::string& layout, const std::string& precision,
              int num_threads) {
  const DType dtype = dtype_of(dtype_model, "dtype");
  AttentionParams params;
  params.q = contiguous_view(q_shape, dtype, "q");
  params.k = contiguous_view(k_shape, dtype, "k");
  params.v = contiguous_view(v_shape, dtype, "v");
  const ScoreArguments score(score_tuple);
  set_options(params, score, layout, precision, num_threads);
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
  module.def("plan", &plan);
  module.attr("score_fields") = score_fields();
}

}  // namespace numattn::bind
