// Projections of bfloat16 and of bytes in strips and by a few rows, over the lanes and the tile
// unit in software: the bits of panels multiplied one by one, and the instructions that this takes.
#include "emulated_avx512.h"

#include "float_panels.h"

#include "amx_tile.h"

#include "amx_gemm.h"

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "expect.h"
#include "tile_unit.h"

namespace numattn {
const Kernels& kernels_avx512() noexcept;
}  // namespace numattn

using namespace numattn;

namespace {

using Random = std::mt19937;

constexpr GemmKernel kGemm = with_strips<kernels_avx512>(Kernels{}).gemm;
constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};
constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu, Activation::kGelu,
                                       Activation::kGeluTanh, Activation::kSilu};

int below(Random& random, int end) {
  return static_cast<int>(random() % static_cast<unsigned>(end));
}
bool sometimes(Random& random) { return below(random, 3) == 0; }

// Bytes that begin on a cache line, or `offset` bytes behind one.
class Memory {
 public:
  explicit Memory(std::int64_t bytes, std::int64_t offset = 0)
      : bytes_(static_cast<std::size_t>(bytes)),
        memory_(bytes_ + 128),
        start_(static_cast<std::size_t>(
            (64 -
             static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(memory_.data()) % 64)) %
                64 +
            offset)) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  char* data() { return memory_.data() + start_; }
  const char* data() const { return memory_.data() + start_; }
  std::size_t size() const { return bytes_; }

 private:
  std::size_t bytes_;
  std::vector<char> memory_;
  std::size_t start_;
};

void write(char* to, DType dtype, float value) {
  const std::uint16_t brain = bfloat16_from_float(value);
  const std::uint16_t half = float16_from_float(value);
  if (dtype == DType::kFloat32) std::memcpy(to, &value, sizeof value);
  if (dtype == DType::kBFloat16) std::memcpy(to, &brain, sizeof brain);
  if (dtype == DType::kFloat16) std::memcpy(to, &half, sizeof half);
}

struct Shape {
  int rows;
  int columns;
  int depth;
};

// What a projection may be given, apart from its numbers.
struct Options {
  PanelFormat format = PanelFormat::kBFloat16;
  DType x = DType::kBFloat16;
  DType output = DType::kBFloat16;
  Activation activation = Activation::kNone;
  bool bias = false;
  bool factor = false;
  bool residual = false;
  int x_offset = 0;     // bytes behind a cache line
  int x_padding = 0;    // elements between rows
  int x_step = 1;       // elements from column to column
  int factor_step = 1;  // likewise
  int residual_step = 1;
  float scale = 1.0f;  // of x

  std::string text() const {
    return "format " + std::to_string(static_cast<int>(format)) + ", x dtype " +
           std::to_string(static_cast<int>(x)) + " offset " + std::to_string(x_offset) +
           " padding " + std::to_string(x_padding) + " step " + std::to_string(x_step) +
           ", output dtype " + std::to_string(static_cast<int>(output)) + ", activation " +
           std::to_string(static_cast<int>(activation)) + (bias ? ", bias" : "") +
           (factor ? ", factor by " + std::to_string(factor_step) : std::string()) +
           (residual ? ", residual by " + std::to_string(residual_step) : std::string());
  }
};

struct PanelsAlone {
  template <class Call>
  static auto with(PanelFormat format, const Call& call) {
    return format == PanelFormat::kW8A8 ? call(Type<BytePanels>{}) : call(Type<PairPanels<1>>{});
  }
};

class Projection {
 public:
  Projection(Random& random, Shape shape, const Options& options)
      : shape_(shape),
        options_(options),
        x_((shape.rows * x_row() + 1) * dtype_size(options.x), options.x_offset),
        panels_((shape.columns + kPanelColumns - 1) / kPanelColumns *
                panel_bytes(options.format, shape.depth)),
        bias_(static_cast<std::size_t>(shape.columns)),
        factor_(shape.rows * row_bytes(options.factor_step)),
        residual_(shape.rows * row_bytes(options.residual_step)) {
    std::normal_distribution<float> normal;
    const std::int64_t item = dtype_size(options.x);
    for (int i = 0; i < shape.rows; ++i) {
      for (int k = 0; k < shape.depth; ++k) {
        write(x_.data() + (i * x_row() + k * options.x_step) * item, options.x,
              options.scale * normal(random));
      }
    }
    std::vector<float> weight(static_cast<std::size_t>(shape.columns * shape.depth));
    for (float& element : weight) {
      element = normal(random) / std::sqrt(static_cast<float>(shape.depth));
    }
    const std::int64_t panel = panel_bytes(options.format, shape.depth);
    for (std::int64_t p = 0; p * kPanelColumns < shape.columns; ++p) {
      pack_weight(
          {{reinterpret_cast<const char*>(weight.data()), DType::kFloat32, shape.depth * 4, 4},
           shape.columns,
           shape.depth,
           p,
           options.format,
           panels_.data() + p * panel});
    }
    for (float& element : bias_) element = normal(random);
    const std::int64_t out_item = dtype_size(options.output);
    for (Memory* companion : {&factor_, &residual_}) {
      for (std::int64_t i = 0; i * out_item < static_cast<std::int64_t>(companion->size()); ++i) {
        write(companion->data() + i * out_item, options.output, normal(random));
      }
    }
  }

  GemmBlock block() const {
    GemmBlock block{};
    const std::int64_t item = dtype_size(options_.x);
    const std::int64_t out_item = dtype_size(options_.output);
    block.x = {x_.data(), options_.x, x_row() * item, options_.x_step * item};
    block.row_count = shape_.rows;
    block.depth = shape_.depth;
    block.format = options_.format;
    block.panels = panels_.data();
    block.column_count = shape_.columns;
    if (options_.bias) block.bias = bias_.data();
    block.activation = options_.activation;
    const auto companion = [&](const Memory& memory, int step) {
      return Companion{memory.data(), row_bytes(step), step * out_item};
    };
    if (options_.factor) block.factor = companion(factor_, options_.factor_step);
    if (options_.residual) block.residual = companion(residual_, options_.residual_step);
    block.output_dtype = options_.output;
    block.output_row_stride = (shape_.columns + 3) * out_item;
    return block;
  }

  // The results of a kernel, and what lies between their rows.
  template <class Kernel>
  std::vector<char> run(std::int64_t workspace, const Kernel& kernel) const {
    GemmBlock block = this->block();
    std::vector<char> output(static_cast<std::size_t>(shape_.rows * block.output_row_stride), 0x55);
    Memory memory(workspace * 4);
    block.output = output.data();
    block.workspace = reinterpret_cast<float*>(memory.data());
    kernel(block);
    return output;
  }

  GemmOperands operands() const {
    const GemmBlock block = this->block();
    return {block.x, block.row_count, block.depth, block.format, block.column_count};
  }
  std::vector<char> in_strips() const {
    return run(kGemm.workspace(operands(), shape_.rows), kGemm.multiply);
  }
  // Panels one by one, each row of x rounded as vec/bfloat16.h rounds, or as byte_panels.h.
  std::vector<char> by_panels() const {
    const GemmKernel kernel = gemm_kernel<PanelsAlone>();
    return run(kernel.workspace(operands(), shape_.rows), kernel.multiply);
  }

 private:
  std::int64_t x_row() const { return shape_.depth * options_.x_step + options_.x_padding; }
  std::int64_t row_bytes(int step) const {
    return shape_.columns * step * dtype_size(options_.output);
  }

  Shape shape_;
  Options options_;
  Memory x_;
  Memory panels_;
  std::vector<float> bias_;
  Memory factor_;
  Memory residual_;
};

void expect_same(Random& random, Shape shape, const Options& options) {
  const Projection projection(random, shape, options);
  expect(projection.in_strips() == projection.by_panels(), "%d x %d x %d: %s", shape.rows,
         shape.columns, shape.depth, options.text().c_str());
}

Options some_options(Random& random) {
  Options options;
  if (below(random, 2) == 0) options.format = PanelFormat::kW8A8;
  options.x = kDTypes[below(random, 3)];
  options.output = kDTypes[below(random, 3)];
  options.activation = kActivations[below(random, 5)];
  options.bias = below(random, 2) == 0;
  options.factor = below(random, 2) == 0;
  options.residual = below(random, 2) == 0;
  options.x_offset = sometimes(random) ? 16 : 0;
  options.x_padding = sometimes(random) ? below(random, 40) : 0;
  options.x_step = sometimes(random) ? 2 : 1;
  options.factor_step = sometimes(random) ? 2 : 1;
  options.residual_step = sometimes(random) ? 3 : 1;
  return options;
}

void bits_of_any_shape(Random& random) {
  for (int i = 0; i < 400; ++i) {
    const int depth = sometimes(random) ? 32 * (1 + below(random, 6)) : 1 + below(random, 200);
    const int rows = sometimes(random) ? 1 + below(random, 5) : 1 + below(random, 130);
    expect_same(random, {rows, 1 + below(random, 250), depth}, some_options(random));
  }
}

// The operands as a caller of bfloat16 has them, in whole blocks: what each specialised loop is
// for.
void bits_of_whole_blocks(Random& random) {
  for (int i = 0; i < 4; ++i) {
    const DType output = i % 2 == 0 ? DType::kFloat32 : DType::kBFloat16;
    for (const Activation activation : kActivations) {
      for (const bool residual : {false, true}) {
        Options options;
        if (i / 2 == 1) options.format = PanelFormat::kW8A8;
        options.output = output;
        options.activation = activation;
        options.residual = residual;
        options.bias = !residual;
        options.factor = residual == (activation == Activation::kSilu);
        expect_same(random, {96, 144, 96}, options);
      }
    }
  }
}

// Weights that are more than stay in the second level, with rows in place and copied.
void bits_of_several_column_blocks(Random& random) {
  for (const DType x : kDTypes) {
    for (const int rows : {4, 50, 64}) {
      for (const PanelFormat format : {PanelFormat::kBFloat16, PanelFormat::kW8A8}) {
        Options options;
        options.format = format;
        options.x = x;
        options.output = DType::kFloat32;
        expect_same(random, {rows, 420, 2048}, options);
      }
    }
  }
}

// Subnormal operands and sums count as zero in the unit, and so they must where a few rows leave
// it; the thread's own rounding is left as it was.
void bits_of_a_few_small_rows(Random& random) {
  constexpr unsigned kControl = 0xFFC0u;  // what is not the flags of exceptions that have occurred
  const unsigned before = _mm_getcsr() & kControl;
  for (const float scale : {1.0f, 1e-30f, 1e-37f, 1e-38f, 1e-39f}) {
    for (int rows = 1; rows <= kFewPairRows; ++rows) {
      Options options;
      options.output = DType::kFloat32;
      options.scale = scale;
      expect_same(random, {rows, 100, 320}, options);
    }
  }
  expect((_mm_getcsr() & kControl) == before, "the control register is %x", _mm_getcsr());
}

std::int64_t divide_up(std::int64_t count, std::int64_t step) { return (count + step - 1) / step; }

TileCounts counts_of(Random& random, Shape shape, const Options& options) {
  const Projection projection(random, shape, options);
  reset_tile_counts();
  projection.in_strips();
  return tile_counts();
}

// Whole strips and pairs of column tiles: a load for a product, half of them of weights, and these
// alone spare the first level; sums leave the tiles once.
void instructions_of_whole_blocks(Random& random) {
  for (const Shape shape : {Shape{64, 96, 128}, Shape{96, 480, 384}, Shape{64, 288, 2048}}) {
    for (const int kind : {0, 1, 2}) {
      Options options;
      options.x = kind == 0 ? DType::kBFloat16 : DType::kFloat32;
      if (kind == 2) options.format = PanelFormat::kW8A8;
      const TileCounts counts = counts_of(random, shape, options);
      const std::int64_t blocks = shape.rows / 32 * (shape.columns / 32);
      const std::int64_t steps = blocks * (shape.depth / (kind == 2 ? 64 : 32));
      expect(counts.products == 4 * steps, "products");
      expect(counts.loads == 4 * steps && counts.loads <= counts.products, "loads for a product");
      expect(counts.loads_t1 == 2 * steps, "weights past the first level");
      expect(counts.stores == 4 * blocks, "sums stored once");
    }
  }
}

// One tile of rows beside two of columns, and the reverse: which loads carry the hint tells that it
// is the weights'.
void instructions_of_single_tiles(Random& random) {
  const std::int64_t steps = 4;
  const TileCounts row = counts_of(random, {16, 32, 128}, Options{});
  expect(row.products == 2 * steps && row.loads == 3 * steps && row.loads_t1 == 2 * steps &&
             row.stores == 2,
         "a tile of rows beside two of columns");
  const TileCounts column = counts_of(random, {32, 16, 128}, Options{});
  expect(column.products == 2 * steps && column.loads == 3 * steps && column.loads_t1 == steps &&
             column.stores == 2,
         "two tiles of rows beside one of columns");
}

void instructions_of_ragged_shapes(Random& random) {
  for (const Shape shape : {Shape{33, 40, 33}, Shape{70, 100, 65}, Shape{5, 17, 31}}) {
    for (const PanelFormat format : {PanelFormat::kBFloat16, PanelFormat::kW8A8}) {
      Options options;
      options.format = format;
      const TileCounts counts = counts_of(random, shape, options);
      const std::int64_t row_tiles = divide_up(shape.rows, 16);
      const std::int64_t column_tiles = divide_up(shape.columns, 16);
      const int step = format == PanelFormat::kW8A8 ? 64 : 32;
      expect(counts.products == row_tiles * column_tiles * divide_up(shape.depth, step),
             "no product of padding alone: %d", static_cast<int>(counts.products));
      expect(counts.stores == row_tiles * column_tiles, "sums stored once");
    }
  }
}

void a_few_rows_need_no_tile(Random& random) {
  for (int rows = 1; rows <= kFewPairRows; ++rows) {
    for (const PanelFormat format : {PanelFormat::kBFloat16, PanelFormat::kW8A8}) {
      Options options;
      options.format = format;
      const TileCounts counts = counts_of(random, {rows, 96, 64}, options);
      expect(counts.products == 0 && counts.loads == 0 && counts.stores == 0, "%d rows", rows);
    }
  }
}

}  // namespace

int main() {
  install_tile_unit();  // the processor's own tiles are not asked for, or nothing would be counted
  Random random(1);
  bits_of_any_shape(random);
  bits_of_whole_blocks(random);
  bits_of_several_column_blocks(random);
  bits_of_a_few_small_rows(random);
  instructions_of_whole_blocks(random);
  instructions_of_single_tiles(random);
  instructions_of_ragged_shapes(random);
  a_few_rows_need_no_tile(random);
  return report();
}
