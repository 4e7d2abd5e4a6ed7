// Attention of every instruction set that the machine has against its definition in double: where
// the Python tests do not run (make test-aarch64), these alone see whole kernels.
#include "numattn/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "expect.h"
#include "numattn/isa.h"

namespace {

using numattn::DType;

struct Shape {
  std::int64_t heads, queries, keys, width;
};

// Elements of one array as the kernels read them, and as numbers.
class Numbers {
 public:
  Numbers(std::mt19937& random, std::int64_t rows, std::int64_t width, DType dtype)
      : width_(width), dtype_(dtype) {
    std::normal_distribution<float> normal;
    for (std::int64_t i = 0; i < rows * width; ++i) append(normal(random));
  }

  void set(std::int64_t row, std::int64_t column, float number) {
    const auto at = static_cast<std::size_t>(row * width_ + column);
    shorts_[at] = numattn::bfloat16_from_float(number);
    floats_[at] = dtype_ == DType::kFloat32 ? number : numattn::float_from_bfloat16(shorts_[at]);
  }
  double at(std::int64_t row, std::int64_t column) const {
    return static_cast<double>(floats_[static_cast<std::size_t>(row * width_ + column)]);
  }
  numattn::View view(const std::vector<std::int64_t>& shape) {
    numattn::View view = numattn::contiguous_view(shape, dtype_, "an array");
    view.data = dtype_ == DType::kFloat32 ? static_cast<void*>(floats_.data()) : shorts_.data();
    view.writable = true;
    return view;
  }
  // After the array has been written to.
  void read_back() {
    if (dtype_ == DType::kFloat32) return;
    for (std::size_t i = 0; i < shorts_.size(); ++i) {
      floats_[i] = numattn::float_from_bfloat16(shorts_[i]);
    }
  }

 private:
  void append(float number) {
    shorts_.push_back(numattn::bfloat16_from_float(number));
    floats_.push_back(dtype_ == DType::kFloat32 ? number
                                                : numattn::float_from_bfloat16(shorts_.back()));
  }

  std::int64_t width_;
  DType dtype_;
  std::vector<float> floats_;
  std::vector<std::uint16_t> shorts_;
};

// Rows see the keys up to their own place, as many before the end as there are queries behind it.
std::int64_t seen_keys(const Shape& shape, std::int64_t query) {
  return std::min(shape.keys, query + 1);
}

// The results of one row: Σ_j softmax(q · k / √width)_j · v_j.
std::vector<double> row_of(const Shape& shape, const Numbers& q, const Numbers& k, const Numbers& v,
                           std::int64_t head, std::int64_t query) {
  const std::int64_t first = head * shape.keys;
  std::vector<double> scores;
  double peak = -std::numeric_limits<double>::infinity();
  for (std::int64_t j = 0; j < seen_keys(shape, query); ++j) {
    double score = 0.0;
    for (std::int64_t d = 0; d < shape.width; ++d) {
      score += q.at(head * shape.queries + query, d) * k.at(first + j, d);
    }
    scores.push_back(score / std::sqrt(static_cast<double>(shape.width)));
    peak = std::max(peak, scores.back());
  }
  std::vector<double> result(static_cast<std::size_t>(shape.width));
  double sum = 0.0;
  for (std::size_t j = 0; j < scores.size(); ++j) {
    const double weight = std::exp(scores[j] - peak);
    sum += weight;
    for (std::int64_t d = 0; d < shape.width; ++d) {
      result[static_cast<std::size_t>(d)] += weight * v.at(first + static_cast<std::int64_t>(j), d);
    }
  }
  for (double& number : result) number /= sum;
  return result;
}

void compare(const Shape& shape, DType dtype, const char* isa) {
  std::mt19937 random(1);
  Numbers q(random, shape.heads * shape.queries, shape.width, dtype);
  Numbers k(random, shape.heads * shape.keys, shape.width, dtype);
  Numbers v(random, shape.heads * shape.keys, shape.width, dtype);
  // What a unit of bfloat16 would spread or lose: later rows see the infinity, and no other's
  // result has a NaN.
  const std::int64_t last = shape.keys - 1;
  v.set(last, 0, std::numeric_limits<float>::infinity());
  v.set(0, shape.width - 1, 0x1p-120f);
  Numbers output(random, shape.heads * shape.queries, shape.width, dtype);
  numattn::AttentionParams params;
  params.q = q.view({1, shape.heads, shape.queries, shape.width});
  params.k.data = k.view({1, shape.heads, shape.keys, shape.width});
  params.v.data = v.view({1, shape.heads, shape.keys, shape.width});
  params.score.spans.causal = true;
  const numattn::AttentionCall call = numattn::check_attention(params);
  numattn::run_attention(call, output.view(numattn::output_shape(call)), nullptr, nullptr);
  output.read_back();
  // A rounding of the result and of weights, or of a few sums.
  const double allowed = dtype == DType::kFloat32 ? 4e-6 : 0.02;
  for (std::int64_t head = 0; head < shape.heads; ++head) {
    for (std::int64_t query = 0; query < shape.queries; ++query) {
      const std::vector<double> exact = row_of(shape, q, k, v, head, query);
      for (std::int64_t d = 0; d < shape.width; ++d) {
        const double got = output.at(head * shape.queries + query, d);
        const double wanted = exact[static_cast<std::size_t>(d)];
        expect(got == wanted || std::fabs(got - wanted) <= allowed,
               "%s: head %d, query %d, element %d of %d is %g, not %g", isa, static_cast<int>(head),
               static_cast<int>(query), static_cast<int>(d), static_cast<int>(shape.width), got,
               wanted);
      }
    }
  }
}

}  // namespace

int main() {
  for (const std::string& isa : numattn::available_isas()) {
    numattn::use_isa(isa);
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      // Few rows; whole squares of a register's width; parts of them; more than one tile.
      for (const Shape& shape : {Shape{2, 1, 1, 32}, Shape{1, 64, 64, 64}, Shape{2, 37, 37, 40},
                                 Shape{1, 130, 130, 16}, Shape{1, 230, 230, 80}}) {
        compare(shape, dtype, isa.c_str());
      }
    }
  }
  return report();
}
