// numattn_attention and its kin: arguments in, the checked call run.
#include "numattn/attention.h"

#include "arguments.h"

namespace numattn::c {
namespace {

// What the structure had in version 0.1.0, the first one.
constexpr std::size_t kFirstSize =
    offsetof(numattn_attention_args, interrupt_context) + sizeof(void*);

ScoreParams score_of(const numattn_attention_args& args) {
  ScoreParams score;
  score.mask = optional_view(args.mask, "mask");
  score.bias = optional_view(args.bias, "bias");
  score.spans.causal = args.is_causal != 0;
  if (args.has_window != 0) {
    score.spans.window_left = args.window_left;
    score.spans.window_right = args.window_right;
  }
  score.spans.sink_tokens = args.sink_tokens;
  if (args.key_spans != nullptr) {
    const int64_t* shape = args.key_spans_shape;
    score.key_spans = KeySpans{args.key_spans, {shape[0], shape[1], shape[2]}};
  }
  score.q_offset = int_array(args.q_offset, "q_offset");
  if (args.has_scale != 0) score.scale = args.scale;
  if (args.softcap != 0.0) score.softcap = args.softcap;
  if (args.kv_lens.data != nullptr || args.kv_lens.count != 0) {
    score.kv_lens = int_array(args.kv_lens, "kv_lens");
  }
  score.alibi_slopes = float_array(args.alibi_slopes, "alibi_slopes");
  score.sinks = float_array(args.sinks, "sinks");
  score.skip_below = args.skip_below;
  return score;
}

AttentionParams params_of(const numattn_attention_args& args, const char* k_name,
                          const char* v_name) {
  AttentionParams params;
  params.q = view_of(args.q, "q");
  params.k.data = view_of(args.k, k_name);
  params.v.data = view_of(args.v, v_name);
  params.k.scale = optional_view(args.k_scale, "k_scale");
  params.v.scale = optional_view(args.v_scale, "v_scale");
  params.score = score_of(args);
  params.layout = parse_layout(layout_name(args.layout));
  params.precision = parse_precision(precision_name(args.precision));
  params.num_threads = args.num_threads;
  return params;
}

std::string shape_text(const std::int64_t* shape, std::size_t rank) {
  std::string text;
  for (std::size_t axis = 0; axis < rank; ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
  }
  return "(" + text + ")";
}

float* lse_of(const numattn_attention_args& args, const AttentionCall& call) {
  const std::optional<View> lse = optional_floats(args.lse, "lse");
  if (!lse) return nullptr;
  const std::vector<std::int64_t> wanted = lse_shape(call);
  const std::vector<std::int64_t> shape(lse->shape.begin(), lse->shape.begin() + lse->rank);
  if (shape != wanted) {
    refuse("lse", "must have shape " + shape_text(wanted.data(), wanted.size()) + ", not " +
                      shape_text(shape.data(), shape.size()));
  }
  return static_cast<float*>(lse->data);
}

numattn_status run(const numattn_attention_args& args, const AttentionCall& call) {
  const View output = view_of(args.out, "out");
  check_attention_output(call, output);
  float* lse = lse_of(args, call);
  const OnCallersThreads on_threads(args.parallel, args.parallel_context, args.interrupt);
  const Interruptible interruptible(args.interrupt, args.interrupt_context);
  return finished_or_interrupted(run_attention(call, output, lse, interruptible.check()));
}

// Arrays that come as a pointer and a length of their own.
void check_list(const void* data, const char* name, std::int64_t count) {
  if (data == nullptr) refuse(name, "must not be NULL");
  if (count < 0) refuse(name, "has the negative length " + std::to_string(count));
}

}  // namespace
}  // namespace numattn::c

using namespace numattn::c;

extern "C" numattn_status numattn_attention(const numattn_attention_args* args) {
  return guarded([&] {
    const numattn_attention_args own = args_of(args, kFirstSize);
    return run(own, numattn::check_attention(params_of(own, "k", "v")));
  });
}

extern "C" numattn_status numattn_attention_varlen(const numattn_attention_args* args,
                                                   const int64_t* query_starts,
                                                   const int64_t* key_starts, int64_t sequences) {
  return guarded([&] {
    const numattn_attention_args own = args_of(args, kFirstSize);
    check_list(query_starts, "query_starts", sequences);
    check_list(key_starts, "key_starts", sequences);
    numattn::RaggedParams params;
    params.shared = params_of(own, "k", "v");
    params.query_starts = {query_starts, sequences + 1};
    params.key_starts = {key_starts, sequences + 1};
    return run(own, numattn::check_ragged(params));
  });
}

extern "C" numattn_status numattn_attention_paged(const numattn_attention_args* args,
                                                  const int64_t* block_table, int64_t rows,
                                                  int64_t columns) {
  return guarded([&] {
    const numattn_attention_args own = args_of(args, kFirstSize);
    check_list(block_table, "block_table", rows);
    check_list(block_table, "block_table", columns);
    numattn::PagedParams params;
    params.shared = params_of(own, "k_pages", "v_pages");
    params.table = {block_table, rows, columns};
    return run(own, numattn::check_paged(params));
  });
}
