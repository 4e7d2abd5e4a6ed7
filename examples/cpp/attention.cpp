// Attention with a window, by the C++ interface: check, then run.
#include <numattn/attention.h>

#include <cstdio>
#include <vector>

namespace {

numattn::View view(std::vector<float>& numbers, const std::vector<std::int64_t>& shape) {
  numattn::View made = numattn::contiguous_view(shape, numattn::DType::kFloat32, "an array");
  made.data = numbers.data();
  made.writable = true;
  return made;
}

std::vector<float> numbers(int count, int step) {
  std::vector<float> made;
  for (int i = 0; i < count; ++i) made.push_back(static_cast<float>(i * step % 11 - 5) / 4);
  return made;
}

}  // namespace

int main() {
  const std::vector<std::int64_t> shape{1, 2, 4, 3};  // (batch, heads, length, width)
  std::vector<float> q = numbers(24, 7), k = numbers(24, 5), v = numbers(24, 3), out(24);
  try {
    numattn::AttentionParams params;
    params.q = view(q, shape);
    params.k.data = view(k, shape);
    params.v.data = view(v, shape);
    params.score.spans.window_left = 1;
    params.score.spans.window_right = 0;
    const numattn::AttentionCall call = numattn::check_attention(params);
    const numattn::View output = view(out, numattn::output_shape(call));
    numattn::check_attention_output(call, output);
    numattn::run_attention(call, output, nullptr, nullptr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  for (int i = 0; i < 24; ++i) std::printf("%9.6f%c", out[i], i % 3 < 2 ? ' ' : '\n');
}
