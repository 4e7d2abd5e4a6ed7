// Attention in the tile unit: what the unit is told to do for each body of 32 queries and 64 keys,
// and that the results are right meanwhile. The kernels are those of AMX over the lanes and tiles
// in software.
#include <xmmintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <vector>

#include "expect.h"
#include "kernels.h"
#include "tile_unit.h"

namespace numattn {
const Kernels& kernels_amx() noexcept;
}

using namespace numattn;

namespace {

// One head of queries that see all keys, or all up to their own position.
struct Problem {
  int queries, keys, head_dim, value_dim;
  bool causal;
  DType dtype;
};

template <class Element>
Element from_float(float a);
template <>
float from_float<float>(float a) {
  return a;
}
template <>
BFloat16 from_float<BFloat16>(float a) {
  return {bfloat16_from_float(a)};
}

template <class Element>
std::vector<Element> normal_numbers(std::mt19937& random, std::int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<Element> numbers(static_cast<std::size_t>(count));
  for (Element& number : numbers) number = from_float<Element>(normal(random));
  return numbers;
}

template <class Element>
TokenRows tokens_of(const std::vector<Element>& data, int width) {
  constexpr std::int64_t kSize = sizeof(Element);
  TokenRows tokens{};
  tokens.matrix = {reinterpret_cast<const char*>(data.data()), element_dtype(Element{}),
                   width * kSize, kSize};
  return tokens;
}

// ‖o − exact‖ / ‖exact‖ of the problem by the kernel, in one visit.
template <class Element>
double error_of(const AttendKernel& kernel, const Problem& problem) {
  std::mt19937 random(1);
  const auto q = normal_numbers<Element>(random, problem.queries * problem.head_dim);
  const auto k = normal_numbers<Element>(random, problem.keys * problem.head_dim);
  const auto v = normal_numbers<Element>(random, problem.keys * problem.value_dim);
  std::vector<Element> o(static_cast<std::size_t>(problem.queries * problem.value_dim));
  std::vector<QueryRow> rows(static_cast<std::size_t>(problem.queries));
  for (int i = 0; i < problem.queries; ++i) {
    QueryRow& row = rows[static_cast<std::size_t>(i)];
    row.query = reinterpret_cast<const char*>(q.data() + i * problem.head_dim);
    row.output = reinterpret_cast<char*>(o.data() + i * problem.value_dim);
    row.span = {0, problem.causal ? std::min(problem.keys, i + 1) : problem.keys};
    row.sink = -INFINITY;
  }
  AttendBlock block{};
  block.rows = rows.data();
  block.row_count = problem.queries;
  block.head_dim = problem.head_dim;
  block.value_dim = problem.value_dim;
  block.query_dtype = block.output_dtype = problem.dtype;
  block.query_column_stride = sizeof(Element);
  block.key = tokens_of(k, problem.head_dim);
  block.value = tokens_of(v, problem.value_dim);
  block.rules.scale = 1.0f / std::sqrt(static_cast<float>(problem.head_dim));
  block.keys = {0, problem.keys};
  block.begin = block.end = true;
  WorkspaceNeeds needs{problem.queries, problem.head_dim, problem.value_dim, {}};
  needs.visit_keys = problem.keys;
  needs.one_visit = true;
  block.needs = needs;
  const auto floats = static_cast<std::size_t>(kernel.workspace(kernel.facts, needs));
  void* const memory = std::aligned_alloc(64, floats * 4);
  block.workspace = static_cast<float*>(memory);
  reset_tile_counts();
  kernel.attend(block);
  std::free(memory);

  double error = 0.0;
  double size = 0.0;
  for (int i = 0; i < problem.queries; ++i) {
    const KeyRange seen = rows[static_cast<std::size_t>(i)].span;
    std::vector<double> sums(static_cast<std::size_t>(problem.value_dim));
    double total = 0.0;
    for (std::int64_t j = 0; j < seen.end; ++j) {
      double score = 0.0;
      for (int d = 0; d < problem.head_dim; ++d) {
        score +=
            static_cast<double>(to_float(q[static_cast<std::size_t>(i * problem.head_dim + d)])) *
            static_cast<double>(to_float(k[static_cast<std::size_t>(j * problem.head_dim + d)]));
      }
      const double weight = std::exp(score * static_cast<double>(block.rules.scale));
      total += weight;
      for (int d = 0; d < problem.value_dim; ++d) {
        sums[static_cast<std::size_t>(d)] +=
            weight *
            static_cast<double>(to_float(v[static_cast<std::size_t>(j * problem.value_dim + d)]));
      }
    }
    for (int d = 0; d < problem.value_dim; ++d) {
      const double exact = sums[static_cast<std::size_t>(d)] / total;
      const double got =
          static_cast<double>(to_float(o[static_cast<std::size_t>(i * problem.value_dim + d)]));
      error += (got - exact) * (got - exact);
      size += exact * exact;
    }
  }
  return std::sqrt(error / size);
}

long sum_of(const std::int64_t (&tiles)[8], int first, int last) {
  std::int64_t all = 0;
  for (int tile = first; tile <= last; ++tile) all += tiles[tile];
  return static_cast<long>(all);
}

// `terms` products of tiles for each product of numbers: 1, or 3 of numbers in two parts.
template <class Element>
void a_body_takes_what_was_designed(const AttendKernel& kernel, const Problem& problem, int terms,
                                    double largest_error) {
  const double error = error_of<Element>(kernel, problem);
  expect(error < largest_error, "%s of %d x %d, %d and %d: error %g", kernel.name, problem.queries,
         problem.keys, problem.head_dim, problem.value_dim, error);
  const long key_steps = (problem.head_dim + 31) / 32;
  const long value_steps = (problem.value_dim + 31) / 32;
  const long unit = std::min(value_steps, 4l);
  long bodies = 0;
  long units = 0;
  const long blocks = (problem.queries + 31) / 32;
  for (long block = 0; block < blocks; ++block) {
    const long last = std::min<long>(problem.queries, 32 * block + 32);
    const long seen = problem.causal ? std::min<long>(problem.keys, last) : problem.keys;
    bodies += (seen + 63) / 64;
    units += ((seen + 63) / 64 + unit - 1) / unit;
  }
  const TileCounts counts = tile_counts();
  const long products = terms * 8 * (key_steps + value_steps) * bodies;
  expect(counts.products == products, "%ld products, not %ld", static_cast<long>(counts.products),
         products);
  // Each of a's and b's tiles meets two of the other.
  expect(sum_of(counts.loads_of, 4, 5) == products / 2, "%ld loads of queries and weights",
         sum_of(counts.loads_of, 4, 5));
  expect(sum_of(counts.loads_t1_of, 6, 7) == products / 2, "%ld streamed loads of keys and values",
         sum_of(counts.loads_t1_of, 6, 7));
  expect(sum_of(counts.loads_of, 6, 7) == 0 && sum_of(counts.loads_t1_of, 0, 5) == 0,
         "keys and values alone are streamed");
  // Outputs are loaded and stored once a unit; scores are stored once, and never loaded.
  const long outputs = 4 * value_steps;
  expect(sum_of(counts.loads_of, 0, 3) == outputs * (units - blocks), "%ld loads of outputs",
         sum_of(counts.loads_of, 0, 3));
  expect(sum_of(counts.stores_of, 0, 3) == 8 * bodies + outputs * units, "%ld stores",
         sum_of(counts.stores_of, 0, 3));
  expect(sum_of(counts.stores_of, 4, 7) == 0, "operands are not stored");
  expect(counts.zeroed == 8 * bodies + outputs * blocks, "%ld tiles cleared",
         static_cast<long>(counts.zeroed));
}

}  // namespace

int main() {
  install_tile_unit();
  if (request_processor_tiles()) return 77;  // the processor counts nothing
  const Kernels& kernels = kernels_amx();
  constexpr unsigned kFlags = 0x3F;  // of exceptions; all else is how the thread computes
  const unsigned before = _mm_getcsr() | kFlags;
  for (const bool causal : {false, true}) {
    for (const int width : {32, 64, 80, 128, 256}) {
      a_body_takes_what_was_designed<BFloat16>(
          kernels.attend_bfloat16, {96, 320, width, width, causal, DType::kBFloat16}, 1, 4e-3);
    }
    a_body_takes_what_was_designed<BFloat16>(kernels.attend_bfloat16,
                                             {77, 100, 40, 129, causal, DType::kBFloat16}, 1, 4e-3);
    a_body_takes_what_was_designed<float>(kernels.attend_high,
                                          {96, 320, 64, 64, causal, DType::kFloat32}, 3, 2e-5);
  }
  const unsigned after = _mm_getcsr() | kFlags;
  expect(after == before, "the control register is as before: %x", after);
  return report();
}
