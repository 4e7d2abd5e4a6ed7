// What a kernel is given and what a table of kernels offers: plain structures, and the arithmetic
// on them that the front end needs as well.
//
// Kernels check nothing: the front end (cpp/api/check.h) has done that once.
#pragma once

#include <cstdint>

#include "panel_format.h"
#include "query_row.h"

#include "numattn/dtype.h"

namespace numattn {

// Element (row, column) of a matrix lies at data + row · row_stride + column · column_stride bytes.
struct Matrix {
  const char* data;
  DType dtype;
  std::int64_t row_stride;
  std::int64_t column_stride;
};

// Keys or values of one head, a row for each token. They may lie in pages of a pool, and be stored
// as 8-bit integers, which the token's scale makes numbers.
struct TokenRows {
  Matrix matrix;              // of all tokens; with pages, of those in page 0
  const std::int64_t* pages;  // token j is row j % page_rows of page pages[j / page_rows]; or null
  std::int64_t page_rows;
  std::int64_t page_stride;  // bytes, as the strides below
  const char* scales;        // float32, of row 0; null where elements are the numbers themselves
  std::int64_t scale_row_stride;
  std::int64_t scale_page_stride;
  // Of a row's integers, the number of channel wide_channels[e] is its own element and 256 times
  // that of wide_count behind the others; a channel of −1 is none.
  const std::int64_t* wide_channels;
  std::int64_t wide_count;
};

// The state of an online softmax over some of the keys, in base 2:
//   peak = max s₂,   sum = Σ 2^(s₂ − peak),   output = Σ 2^(s₂ − peak) · v,   s₂ = s · log2 e.
// States over disjoint keys combine exactly (kernels/combine.h).
struct PartialState {
  float* output;  // row_count × value_dim
  float* peak;    // row_count
  float* sum;     // row_count
};

// How a raw score becomes a logit, alike for all rows of a block.
struct ScoreRules {
  float scale;
  float softcap;     // 0 is none
  float skip_level;  // log2 of the weight below which a tile is left out; 0 is none
  bool alibi;
  DType bias_dtype;
  std::int64_t mask_key_stride;  // bytes from one key to the next; 0 repeats one element
  std::int64_t bias_key_stride;
};

// Where tiles of keys end: at multiples of `step`, and where the rows' heads end at most.
struct TileGrid {
  std::int64_t step;
  std::int64_t head;
};

struct AttendBlock;

// Heads whose tokens lie in the same rows and which see the same keys: one call computes them all,
// in the order of memory. Each has a block of its own.
struct JoinedHeads {
  int count;                     // 1 where a head is computed alone
  std::int64_t block_stride;     // bytes from one head's block to the next
  std::int64_t key_head_stride;  // and likewise its tokens
  std::int64_t value_head_stride;

  NUMATTN_INLINE const AttendBlock& block(const AttendBlock& first, int head) const {
    return *reinterpret_cast<const AttendBlock*>(reinterpret_cast<const char*>(&first) +
                                                 head * block_stride);
  }
};

// Heads of an item at most.
constexpr int kMostJoinedHeads = 16;

// Terms by the distance of a row's position from a key, of one query head. With
// row(δ) = distance_rows[clip(δ − first_distance, 0, distance_count − 1)], δ = position − key,
//
//   score[j] = scale · ((q + content_bias) · k_j + (q + position_bias) · query_table[row(δ)]
//                       + k_j · key_table[row(δ)])
//   output   = Σ_j weight_j · (v_j + value_table[row(δ)])
//
// The rows of a lane group are then neighbours: row i stands i positions behind the first.
struct RelativeBlock {
  const std::int64_t* distance_rows;  // null: no such terms
  std::int64_t distance_count;
  std::int64_t first_distance;
  const float* query_table;  // rows of head_dim floats; null without, like all that follow
  const float* key_table;
  const float* value_table;    // rows of value_dim floats
  const float* content_bias;   // head_dim floats
  const float* position_bias;  // head_dim floats
};

// What the kernels must lay out tile by tile.
struct TileNeeds {
  bool mask, bias;             // dense ones
  bool key_copy, value_copy;   // tiles that cannot be read in place
  bool relative;               // terms by distance
  std::int64_t wide_channels;  // of keys (TokenRows)
};

struct WorkspaceNeeds {
  int row_capacity;  // query rows of a block, whole lane groups (decode: rows)
  std::int64_t head_dim;
  std::int64_t value_dim;  // 0 where no output is accumulated
  TileNeeds tile;
  std::int64_t visit_keys = 0;  // keys of a visit at most
  bool one_visit = false;       // which sees all of them
  bool folds = false;  // more keys may be visited than a state takes (TileFacts::fold_keys)
};

// One query block of one key head. A block may be visited in several calls over successive key
// ranges: `begin` starts the state in the workspace, `end` writes the results.
struct AttendBlock {
  const QueryRow* rows;
  int row_count;
  std::int64_t head_dim;
  std::int64_t value_dim;
  DType query_dtype;
  std::int64_t query_column_stride;
  DType output_dtype;
  TokenRows key;
  TokenRows value;
  ScoreRules rules;
  RelativeBlock relative;
  TileGrid grid;
  KeyRange keys;  // this visit looks at these only
  bool begin;
  bool end;
  bool keeps_peaks;             // `begin` leaves them as an earlier visit has found them
  JoinedHeads heads;            // decode only
  bool fetch_ahead;             // keys and values come from afar: the first block of their head
  const PartialState* partial;  // where `end` writes; null: the rows' outputs
  float* workspace;             // as many floats as the kernel says
  WorkspaceNeeds needs;         // for which it says so: those of all blocks of the plan
};

// Exact weights of one query block: rows[i].output is a float32 row of key_count weights.
struct WeightsBlock {
  AttendBlock scores;  // value, value_dim, output_dtype and partial are not read
  std::int64_t key_count;
};

// Results of one row over several key splits, combined, normalised and written.
struct CombineRow {
  const float* outputs;  // split s: outputs + s · output_stride, value_dim floats
  const float* peaks;    // split s: peaks[s · peak_stride]
  const float* sums;
  std::int64_t output_stride;
  std::int64_t peak_stride;
  int split_count;
  std::int64_t value_dim;
  DType output_dtype;
  char* output;
  float* lse;
  float sink;
  float* workspace;  // combine_workspace() floats
};

enum class Activation : std::uint8_t { kNone, kRelu, kGelu, kGeluTanh, kSilu };

// output[i] = activation(x[i]), which is computed in float32; output may be x.
struct ActivatedElements {
  const char* x;
  std::int64_t stride;  // bytes from one to the next
  DType dtype;          // of both
  char* output;         // contiguous
  std::int64_t count;
  Activation activation;
};

// One panel of a weight (row_count, depth).
struct PackWeight {
  Matrix weight;
  std::int64_t row_count;
  std::int64_t depth;
  std::int64_t panel;  // which panel
  PanelFormat format;
  char* packed;  // panel_bytes()
};

// An array beside a block's results, of their dtype and shape: element (row, feature) lies as in a
// Matrix. No data: there is none.
struct Companion {
  const char* data;
  std::int64_t row_stride;
  std::int64_t column_stride;

  const char* at(std::int64_t row, std::int64_t column) const {
    return data == nullptr ? nullptr : data + row * row_stride + column * column_stride;
  }
  Companion from(std::int64_t row, std::int64_t column) const {
    return {at(row, column), row_stride, column_stride};
  }
};

// out[i][n] = activation(Σ_k x[i][k] · weight[n][k] + bias[n]) · factor[i][n] + residual[i][n] for
// one block of rows and successive panels of features.
struct GemmBlock {
  Matrix x;
  int row_count;
  std::int64_t depth;
  PanelFormat format;
  const char* panels;         // the first panel of the block
  std::int64_t column_count;  // features of the block
  const float* bias;          // of the first feature; null without
  Activation activation;
  Companion factor;  // from element (row 0, first feature) on, as residual and output
  Companion residual;
  DType output_dtype;  // of all three
  char* output;        // columns contiguous
  std::int64_t output_row_stride;
  float* workspace;
};

// Row by row, out = (x − mean) / sqrt(variance + epsilon) · weight + bias (layer_norm) or
// x / sqrt(mean of x² + epsilon) · weight (rms_norm). out may be x.
struct NormRows {
  Matrix x;
  std::int64_t row_count;
  std::int64_t width;
  const float* weight;
  const float* bias;  // layer_norm's; null without
  float epsilon;
  DType output_dtype;
  char* output;
  std::int64_t output_row_stride;
  float* workspace;  // width floats
};

// Rows of heads, turned by the angles of their positions. For 0 <= r < pairs and
// (a, b) = (r, r + pairs), or (2r, 2r + 1) where interleaved:
//   out[a] = x[a] · cos[r] − x[b] · sin[r],   out[b] = x[b] · cos[r] + x[a] · sin[r];
// elements from 2 · pairs on are copied. out may be x.
struct RopeBlock {
  Matrix x;  // of the first head: a row for each position
  std::int64_t x_head_stride;
  char* output;  // columns contiguous; x's dtype
  std::int64_t output_head_stride;
  std::int64_t output_row_stride;
  std::int64_t head_count;
  std::int64_t row_count;
  bool heads_inside;  // whether the heads of a position lie nearer to one another than its rows
  std::int64_t width;
  std::int64_t pairs;
  bool interleaved;
  Matrix cos;
  Matrix sin;
  const std::int64_t* table_rows;  // the tables' row for each of x; null: the same one
  float* workspace;                // rope_workspace() floats
};

// Sizes a kernel works in; they shape the plan, and the key block the result's rounding.
struct TileFacts {
  int lane_group;    // query rows that share a vector register group
  int key_block;     // keys per tile
  int block_rows;    // query rows of a block at most, where tiles are read in place
  int copied_rows;   // and where they are copied, so that a copy is used more often
  int vector_width;  // float32 lanes of a register
  // Bytes of an element of keys and values where these are packed for a visit as a whole, and used
  // by all of a block's rows; 0 where they are visited tile by tile.
  int packed_bytes = 0;
  // Keys, whole tiles, after which a block's state is folded into its total (fold.h); they shape
  // the result's rounding as well. By default there are never so many.
  std::int64_t fold_keys = INT64_MAX;
};

// One way to compute attention, and what it takes.
struct AttendKernel {
  const char* name;
  TileFacts facts;
  std::int64_t (*workspace)(const TileFacts&, const WorkspaceNeeds&);  // floats
  void (*attend)(const AttendBlock&);
};

// What a projection is given: rows of x and the format of its panels.
struct GemmOperands {
  Matrix x;
  std::int64_t rows;
  std::int64_t depth;
  PanelFormat format;
  std::int64_t columns;  // features of a block at most
};

struct GemmKernel {
  // Whether some rows must be copied before they are multiplied.
  bool (*copies)(const GemmOperands&);
  // Whether a block's panels pass strips of its rows, not its rows each panel (plan_strips()).
  bool (*in_strips)(const GemmOperands&);
  // Floats of workspace for blocks of so many rows.
  std::int64_t (*workspace)(const GemmOperands&, std::int64_t block_rows);
  void (*multiply)(const GemmBlock&);
};

struct Kernels {
  const char* isa;
  AttendKernel attend;           // any element type, float32 arithmetic
  AttendKernel attend_bfloat16;  // bfloat16 elements; the one above where no unit multiplies them
  AttendKernel
      attend_high;      // float32 elements as sums of two bfloat16; `attend` where that is no gain
  AttendKernel decode;  // few query rows
  void (*weights)(const WeightsBlock&);
  void (*combine)(const CombineRow&);
  void (*pack_weight)(const PackWeight&);
  GemmKernel gemm;
  bool splits_for_high;  // whether precision "high" is faster with split panels
  void (*layer_norm)(const NormRows&);
  void (*rms_norm)(const NormRows&);
  void (*rope)(const RopeBlock&);
  void (*activate)(const ActivatedElements&);
};

// Floats from one area of a workspace to the next: whole cache lines.
static inline std::int64_t padded_floats(std::int64_t count) { return (count + 15) / 16 * 16; }

// Two floats for each sum of a row that is combined.
static inline std::int64_t combine_workspace(std::int64_t value_dim) {
  return 2 * padded_floats(value_dim);
}

// True where the kernel may read the matrix as float32 rows where it lies.
static inline bool reads_in_place(const Matrix& matrix) {
  return matrix.dtype == DType::kFloat32 && matrix.column_stride == 4 &&
         matrix.row_stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(matrix.data) % 4 == 0;
}

static inline bool reads_in_place(const TokenRows& tokens) {
  return tokens.pages == nullptr && tokens.scales == nullptr && reads_in_place(tokens.matrix);
}

// Floats of a row of cos or sin in the workspace: interleaved, each number twice.
static inline std::int64_t rope_table_stride(const RopeBlock& block) {
  return padded_floats(block.interleaved ? 2 * block.pairs : block.pairs);
}

// Both tables where they cannot be read in place (room for them anyhow: what lies aligned in one
// batch entry may not in another), and a row of x as floats.
static inline std::int64_t rope_workspace(const RopeBlock& block) {
  return 2 * block.row_count * rope_table_stride(block) + padded_floats(2 * block.pairs);
}

// Rows whose sums gemm holds at a time: enough that a slice of a packed panel is used eight times.
constexpr int kGemmRows = 64;

// Lane groups of one query block at most.
constexpr int kMostLaneGroups = 24;

}  // namespace numattn
