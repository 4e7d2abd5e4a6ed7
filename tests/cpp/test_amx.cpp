// The tile instructions against scalar loops: on the processor's own tile unit where there is one,
// elsewhere on the one in software.
#include "amx.h"

#include <xmmintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "expect.h"
#include "numattn/dtype.h"
#include "tile_unit.h"

using namespace numattn;

namespace {

using Random = std::mt19937;
using Bytes = std::vector<unsigned char>;

// c[m][n] += Σ_k a[m][k] · b[k][n], and b as the unit wants it.
struct Product {
  std::uint16_t a[kAmxRows][kAmxDepth];
  std::uint16_t b[kAmxDepth][kAmxRowFloats];
  std::uint16_t b_pairs[kAmxRowPairs][kAmxRowFloats][2];

  template <class Draw>
  explicit Product(Draw draw) {
    for (auto& row : a) {
      for (std::uint16_t& element : row) element = bfloat16_from_float(draw());
    }
    for (int k = 0; k < kAmxDepth; ++k) {
      for (int n = 0; n < kAmxRowFloats; ++n) {
        b[k][n] = bfloat16_from_float(draw());
        b_pairs[k / 2][n][k % 2] = b[k][n];
      }
    }
  }

  float left(int m, int k) const { return float_from_bfloat16(a[m][k]); }
  float right(int k, int n) const { return float_from_bfloat16(b[k][n]); }
};

struct Sums {
  float at[kAmxRows][kAmxRowFloats];
};

Product normal_product(Random& random) {
  std::normal_distribution<float> normal;
  return Product([&] { return normal(random); });
}

template <int C = 0, int A = 1, int B = 2>
void multiply(const Product& product) {
  tile_load<A>(product.a, kAmxRowBytes);
  tile_load<B>(product.b_pairs, kAmxRowBytes);
  tile_dot_bf16<C, A, B>();
}

template <int C = 0>
Sums stored() {
  Sums sums;
  tile_store<C>(sums.at, kAmxRowBytes);
  return sums;
}

Bytes random_bytes(Random& random, int count) {
  Bytes bytes(static_cast<std::size_t>(count));
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
  return bytes;
}

template <int Tile>
void rows_come_back(Random& random) {
  for (const int from_stride : {64, 68, 128, 1000, 0, -64, -320}) {
    for (const int to_stride : {64, 65, 200, -64}) {
      const int from_start = from_stride < 0 ? -15 * from_stride : 0;
      const int to_start = to_stride < 0 ? -15 * to_stride : 0;
      const Bytes from = random_bytes(random, 15 * std::abs(from_stride) + kAmxRowBytes);
      Bytes to = random_bytes(random, 15 * std::abs(to_stride) + kAmxRowBytes);
      Bytes wanted = to;
      for (int r = 0; r < kAmxRows; ++r) {
        std::memcpy(wanted.data() + to_start + r * to_stride,
                    from.data() + from_start + r * from_stride, kAmxRowBytes);
      }
      tile_load<Tile>(from.data() + from_start, from_stride);
      tile_store<Tile>(to.data() + to_start, to_stride);
      expect(to == wanted, "tile %d by strides %d and %d", Tile, from_stride, to_stride);
      tile_zero<Tile>();
      tile_load_streamed<Tile>(from.data() + from_start, from_stride);
      tile_store<Tile>(to.data() + to_start, to_stride);
      expect(to == wanted, "tile %d streamed by stride %d", Tile, from_stride);
    }
  }
}

template <int... Tiles>
void tiles_are_apart(Random& random, std::integer_sequence<int, Tiles...>) {
  const Bytes from = random_bytes(random, kAmxTiles * 1024);
  Bytes to(from.size());
  (rows_come_back<Tiles>(random), ...);
  (tile_load<Tiles>(from.data() + 1024 * Tiles, kAmxRowBytes), ...);
  (tile_store<Tiles>(to.data() + 1024 * Tiles, kAmxRowBytes), ...);
  expect(to == from, "all eight tiles at once");
  tile_zero<3>();
  Bytes wanted = from;
  std::memset(wanted.data() + 3 * 1024, 0, 1024);
  (tile_store<Tiles>(to.data() + 1024 * Tiles, kAmxRowBytes), ...);
  expect(to == wanted, "one tile becomes zero");
  configure_tiles();
  (tile_store<Tiles>(to.data() + 1024 * Tiles, kAmxRowBytes), ...);
  expect(to == Bytes(from.size()), "configuring makes all of them zero");
}

// Bytes of all values, among them −128 throughout, in a chain that passes 2^31 and wraps; a's
// signed or not.
template <class Byte>
void bytes_are_exact(Random& random) {
  constexpr bool kSigned = std::is_signed_v<Byte>;
  Byte a[kAmxRows][kAmxBytes];
  std::int8_t b[kAmxRowPairs][kAmxRowFloats][4];
  const Bytes drawn = random_bytes(random, sizeof a + sizeof b);
  std::memcpy(a, drawn.data(), sizeof a);
  std::memcpy(b, drawn.data() + sizeof a, sizeof b);
  std::memset(a[5], kSigned ? -128 : 255, sizeof a[5]);
  for (auto& row : b) std::memset(row[7], -128, sizeof row[7]);
  constexpr int kLinks = 2100;  // 2100 · 64 · 2^14 > 2^31
  tile_zero<2>();
  tile_load<5>(a, kAmxRowBytes);
  tile_load<7>(b, kAmxRowBytes);
  for (int link = 0; link < kLinks; ++link) {
    if constexpr (kSigned) {
      tile_dot_int8<2, 5, 7>();
    } else {
      tile_dot_uint8<2, 5, 7>();
    }
  }
  std::int32_t sums[kAmxRows][kAmxRowFloats];
  tile_store<2>(sums, kAmxRowBytes);
  for (int m = 0; m < kAmxRows; ++m) {
    for (int n = 0; n < kAmxRowFloats; ++n) {
      std::int64_t wanted = 0;
      for (int k = 0; k < kAmxBytes; ++k) wanted += a[m][k] * b[k / 4][n][k % 4];
      wanted *= kLinks;
      expect(static_cast<std::uint32_t>(sums[m][n]) == static_cast<std::uint32_t>(wanted),
             "sum of bytes %d %d: %d", m, n, sums[m][n]);
    }
  }
}

// Sums of small integers are exact in any order; every tile has a turn in every role.
template <int C, int A, int B>
void integers_are_exact(Random& random) {
  std::uniform_int_distribution<int> digit(-8, 8);
  const Product product([&] { return static_cast<float>(digit(random)); });
  tile_zero<C>();
  multiply<C, A, B>(product);
  tile_dot_bf16<C, A, B>();
  const Sums sums = stored<C>();
  for (int m = 0; m < kAmxRows; ++m) {
    for (int n = 0; n < kAmxRowFloats; ++n) {
      float wanted = 0.0f;
      for (int k = 0; k < kAmxDepth; ++k) wanted += 2 * product.left(m, k) * product.right(k, n);
      expect(sums.at[m][n] == wanted, "tiles %d %d %d, sum %d %d: %g, not %g", C, A, B, m, n,
             static_cast<double>(sums.at[m][n]), static_cast<double>(wanted));
    }
  }
}

// A chain of `links` products onto a start of c. A term meets at most 16 roundings within its even
// or odd sum, one where these meet and one for each link that is added to c:
//   |sum − exact| <= γ · (|c| + Σ |a · b|),  γ = r·u / (1 − r·u),  r = 17 + links,  u = 2^-24.
bool chain_is_near(Random& random, int links) {
  Sums start;
  std::normal_distribution<float> normal;
  for (auto& row : start.at) {
    for (float& element : row) element = normal(random);
  }
  double exact[kAmxRows][kAmxRowFloats];
  double size[kAmxRows][kAmxRowFloats];
  for (int m = 0; m < kAmxRows; ++m) {
    for (int n = 0; n < kAmxRowFloats; ++n) {
      exact[m][n] = static_cast<double>(start.at[m][n]);
      size[m][n] = std::abs(exact[m][n]);
    }
  }
  tile_load<0>(start.at, kAmxRowBytes);
  for (int link = 0; link < links; ++link) {
    const Product product = normal_product(random);
    multiply(product);
    for (int m = 0; m < kAmxRows; ++m) {
      for (int n = 0; n < kAmxRowFloats; ++n) {
        for (int k = 0; k < kAmxDepth; ++k) {
          const double term = static_cast<double>(product.left(m, k) * product.right(k, n));
          exact[m][n] += term;
          size[m][n] += std::abs(term);
        }
      }
    }
  }
  const Sums sums = stored();
  const double roundings = std::ldexp(17 + links, -24);
  bool near = true;
  for (int m = 0; m < kAmxRows; ++m) {
    for (int n = 0; n < kAmxRowFloats; ++n) {
      const double error = std::abs(static_cast<double>(sums.at[m][n]) - exact[m][n]);
      near = near && error <= roundings / (1 - roundings) * size[m][n];
    }
  }
  return near;
}

// The order of the manual, to the last bit.
void sums_in_the_stated_order(Random& random) {
  const Product product = normal_product(random);
  tile_zero<0>();
  multiply(product);
  const Sums start = stored();
  tile_dot_bf16<0, 1, 2>();
  const Sums sums = stored();
  for (int m = 0; m < kAmxRows; ++m) {
    for (int n = 0; n < kAmxRowFloats; ++n) {
      float parts[2] = {};
      for (int k = 0; k < kAmxDepth; ++k) {
        parts[k % 2] = std::fma(product.left(m, k), product.right(k, n), parts[k % 2]);
      }
      expect(sums.at[m][n] == start.at[m][n] + (parts[0] + parts[1]), "order of sum %d %d", m, n);
    }
  }
}

// Of the element 0 0, with a[0][0] = left, b[0][0] = right and c as given.
float single_sum(std::uint16_t left, std::uint16_t right, float c) {
  Product product([] { return 0.0f; });
  Sums start = {};
  product.a[0][0] = left;
  product.b_pairs[0][0][0] = right;
  start.at[0][0] = c;
  tile_load<0>(start.at, kAmxRowBytes);
  multiply(product);
  return stored().at[0][0];
}

void subnormals_are_zero() {
  const std::uint16_t one = bfloat16_from_float(1.0f);
  const std::uint16_t smallest_normal = 0x0080;
  const std::uint16_t half = bfloat16_from_float(0.5f);
  const float tiny = float_from_bfloat16(smallest_normal);
  expect(single_sum(smallest_normal, one, 0.0f) == tiny, "the smallest normal number stays");
  expect(single_sum(0x007F, bfloat16_from_float(1e30f), 0.0f) == 0.0f, "subnormal operand");
  expect(single_sum(one, 0x0001, 2.0f) == 2.0f, "subnormal operand beside a sum");
  expect(single_sum(smallest_normal, half, 0.0f) == 0.0f, "subnormal product");
  expect(single_sum(0, one, float_from_bits(0x007FFFFF)) == 0.0f, "subnormal start");
  expect(single_sum(0x00C0, one, -tiny) == 0.0f, "subnormal difference of normal numbers");
  expect(std::isinf(single_sum(0x7F80, one, 0.0f)), "infinity stays");
  expect(std::isnan(single_sum(0x7F80, 0, 0.0f)), "infinity times zero");
}

void rounding_of_the_thread_is_left_alone(Random& random) {
  const Product product = normal_product(random);
  tile_zero<0>();
  multiply(product);
  const Sums nearest = stored();
  constexpr unsigned kTowardsZero = 0x1F80u | 0x6000u;
  const unsigned saved = _mm_getcsr();
  _mm_setcsr(kTowardsZero);
  tile_zero<0>();
  multiply(product);
  const Sums other = stored();
  const unsigned afterwards = _mm_getcsr();
  _mm_setcsr(saved);
  expect(std::memcmp(&nearest, &other, sizeof other) == 0, "rounded to nearest in any mode");
  expect(afterwards == kTowardsZero, "the thread's own mode stays: %x", afterwards);
}

// Tiles of 5 rows: C 5 × 3, A 5 × 7 pairs, B 7 pairs × 3. Bytes around them are not touched.
void small_shapes(Random& random) {
  constexpr int kRows = 5;
  constexpr int kPairs = 7;
  constexpr int kColumns = 3;
  TileConfig config;
  const int shapes[3][2] = {{kRows, kColumns}, {kRows, kPairs}, {kPairs, kColumns}};
  for (int tile = 0; tile < 3; ++tile) {
    config.rows[tile] = static_cast<std::uint8_t>(shapes[tile][0]);
    config.row_bytes[tile] = static_cast<std::uint16_t>(4 * shapes[tile][1]);
  }
  load_tile_config(config);
  TileConfig read;
  __asm__ volatile("sttilecfg %0" : "=m"(read));
  expect(std::memcmp(&read, &config, sizeof read) == 0, "the configuration can be read");
  std::uniform_int_distribution<int> digit(-8, 8);
  const Product product([&] { return static_cast<float>(digit(random)); });
  multiply(product);
  Sums sums = {};
  for (auto& row : sums.at) {
    for (float& element : row) element = -0.5f;
  }
  tile_store<0>(sums.at, kAmxRowBytes);
  for (int m = 0; m < kAmxRows; ++m) {
    for (int n = 0; n < kAmxRowFloats; ++n) {
      float wanted = m < kRows && n < kColumns ? 0.0f : -0.5f;
      for (int k = 0; k < 2 * kPairs && wanted != -0.5f; ++k) {
        wanted += product.left(m, k) * product.right(k, n);
      }
      expect(sums.at[m][n] == wanted, "sum %d %d of a small shape", m, n);
    }
  }
  configure_tiles();
}

void instructions_are_counted(Random& random) {
  const Product product = normal_product(random);
  reset_tile_counts();
  tile_load<1>(product.a, kAmxRowBytes);
  tile_load_streamed<2>(product.b_pairs, kAmxRowBytes);
  for (int i = 0; i < 3; ++i) tile_dot_bf16<0, 1, 2>();
  stored();
  const TileCounts counts = tile_counts();
  expect(counts.loads == 2 && counts.loads_t1 == 1, "%d loads, %d of them streamed",
         static_cast<int>(counts.loads), static_cast<int>(counts.loads_t1));
  expect(counts.products == 3 && counts.stores == 1, "%d products, %d stores",
         static_cast<int>(counts.products), static_cast<int>(counts.stores));
  reset_tile_counts();
  expect(tile_counts().products == 0 && tile_counts().loads == 0, "counted from zero again");
}

// Expectations are counted without a lock: threads only report back.
void threads_have_their_own_tiles() {
  bool near[2] = {true, true};
  std::thread threads[2];
  for (unsigned t = 0; t < 2; ++t) {
    threads[t] = std::thread([t, &near] {
      Random random(100 + t);
      configure_tiles();
      for (int round = 0; round < 200; ++round) near[t] = near[t] && chain_is_near(random, 2);
      release_tiles();
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect(near[0] && near[1], "two threads at once");
}

}  // namespace

int main() {
  const bool hardware = request_processor_tiles();
  if (!hardware) install_tile_unit();
  Random random(1);
  configure_tiles();
  tiles_are_apart(random, std::make_integer_sequence<int, kAmxTiles>());
  bytes_are_exact<std::int8_t>(random);
  bytes_are_exact<std::uint8_t>(random);
  integers_are_exact<0, 1, 2>(random);
  integers_are_exact<3, 4, 5>(random);
  integers_are_exact<6, 7, 0>(random);
  integers_are_exact<1, 6, 3>(random);
  integers_are_exact<2, 3, 7>(random);
  integers_are_exact<4, 0, 6>(random);
  integers_are_exact<5, 2, 4>(random);
  integers_are_exact<7, 5, 1>(random);
  for (const int links : {1, 2, 8, 64}) {
    expect(chain_is_near(random, links), "a chain of %d products", links);
  }
  if (!hardware) {
    sums_in_the_stated_order(random);
    instructions_are_counted(random);
  }
  subnormals_are_zero();
  rounding_of_the_thread_is_left_alone(random);
  small_shapes(random);
  release_tiles();
  threads_have_their_own_tiles();
  return report();
}
