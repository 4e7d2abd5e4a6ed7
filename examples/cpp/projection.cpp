// A projection with packed weights and a GELU, by the C interface.
#include <numattn.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

struct Destroy {
  void operator()(numattn_linear* linear) const { numattn_linear_destroy(linear); }
};
using Linear = std::unique_ptr<numattn_linear, Destroy>;

void check(numattn_status status) {
  if (status != NUMATTN_OK) throw std::runtime_error(numattn_last_error());
}

numattn_tensor matrix(std::vector<float>& numbers, std::int64_t rows) {
  const std::int64_t shape[] = {rows, static_cast<std::int64_t>(numbers.size()) / rows};
  return numattn_contiguous(numbers.data(), NUMATTN_FLOAT32, 2, shape);
}

std::vector<float> numbers(int count, int step) {
  std::vector<float> made;
  for (int i = 0; i < count; ++i) made.push_back(static_cast<float>(i * step % 11 - 5) / 4);
  return made;
}

}  // namespace

int main() {
  constexpr int kRows = 2, kIn = 5, kOut = 3;
  std::vector<float> weight = numbers(kOut * kIn, 7), x = numbers(kRows * kIn, 5);
  std::vector<float> out(kRows * kOut);
  try {
    const numattn_tensor packed = matrix(weight, kOut);
    numattn_linear* made = nullptr;
    check(numattn_linear_create(&packed, nullptr, NUMATTN_FLOAT32, NUMATTN_HIGHEST, &made));
    const Linear linear(made);
    numattn_linear_args args = numattn_linear_defaults();
    args.x = matrix(x, kRows);
    args.out = matrix(out, kRows);
    args.activation = NUMATTN_GELU;
    check(numattn_linear_run(linear.get(), &args));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  for (int i = 0; i < kRows * kOut; ++i) std::printf("%9.6f%c", out[i], i % kOut < 2 ? ' ' : '\n');
}
