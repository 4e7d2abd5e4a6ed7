/* numattn: attention on the CPU, exact and computed block by block. The C interface (C11, C++).
 *
 * Structures whose first member is struct_size grow at their end: a program sets it to their size,
 * all else to zero (as numattn_..._defaults() does), and then what it wants; a zero always is "not
 * given" or the default. So a program runs with any later library of the same NUMATTN_ABI_VERSION.
 * A later program runs with an earlier library as long as it sets nothing that this does not know
 * (NUMATTN_INVALID_ARGUMENT).
 *
 * What returns a numattn_status never ends the process or throws. Any number of threads may call at
 * once. Errors come before anything is written, but for NUMATTN_INTERRUPTED, which leaves results
 * unspecified. Arrays are only borrowed, for as long as the call takes; results must not overlap
 * what the call reads, where nothing else is said.
 */
#ifndef NUMATTN_H
#define NUMATTN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NUMATTN_VERSION_MAJOR 0
#define NUMATTN_VERSION_MINOR 1
#define NUMATTN_VERSION_PATCH 0
#define NUMATTN_ABI_VERSION 1

#if defined(NUMATTN_EXPORTS) && defined(__GNUC__)
#define NUMATTN_API __attribute__((visibility("default")))
#else
#define NUMATTN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* --- Errors ----------------------------------------------------------------------------------- */

typedef int32_t numattn_status;
enum {
  NUMATTN_OK = 0,
  NUMATTN_INVALID_ARGUMENT = 1,
  NUMATTN_OUT_OF_MEMORY = 2,
  NUMATTN_INTERRUPTED = 3, /* by the call's own `interrupt` */
  NUMATTN_INTERNAL_ERROR = 4
};

/* What was wrong with the last call of this thread that failed, in English: which argument, what it
 * is, and what it should be. Never NULL; holds until the next failure in the same thread. */
NUMATTN_API const char *numattn_last_error(void);

/* --- Version ---------------------------------------------------------------------------------- */

/* Of the library that runs: "0.1.0"; and its NUMATTN_ABI_VERSION. */
NUMATTN_API const char *numattn_version(void);
NUMATTN_API int32_t numattn_abi_version(void);

/* --- Arrays ----------------------------------------------------------------------------------- */

enum {
  NUMATTN_FLOAT32 = 0,
  NUMATTN_FLOAT16 = 1,
  NUMATTN_BFLOAT16 = 2,
  NUMATTN_BOOL = 3, /* one byte; masks */
  NUMATTN_INT8 = 4  /* keys and values with a scale for each token and head */
};

/* An array of one to four dimensions; of rank 0 it is "not given". What is read may have any
 * strides, 0 and negative ones too; of what is written the last dimension must be contiguous. */
typedef struct numattn_tensor {
  void *data; /* of inputs only read */
  int32_t dtype;
  int32_t rank;
  int64_t shape[4];
  int64_t strides[4]; /* in bytes */
} numattn_tensor;

/* The C-contiguous array of that shape. Of a rank that there is not, or an unknown dtype, it is one
 * that calls refuse. */
NUMATTN_API numattn_tensor numattn_contiguous(const void *data, int32_t dtype, int32_t rank,
                                              const int64_t *shape);

/* Contiguous numbers; without data "not given". */
typedef struct numattn_ints {
  const int64_t *data;
  int64_t count;
} numattn_ints;

/* Asked every 20 ms or so by the thread that called; a result other than 0 stops the call. */
typedef int (*numattn_interrupt)(void *context);

/* Threads of the caller's own: runs part(argument, index) for every index below `count`, in any
 * order, at once as far as it can, and returns when all have ended. */
typedef void (*numattn_parallel)(void *context, int32_t count,
                                 void (*part)(const void *argument, int32_t index),
                                 const void *argument);

/* --- Attention -------------------------------------------------------------------------------- */

enum { NUMATTN_BHSD = 0, NUMATTN_BSHD = 1 };

/* NUMATTN_HIGH allows float32 products as three of bfloat16 where that is faster (AMX). */
enum { NUMATTN_HIGHEST = 0, NUMATTN_HIGH = 1 };

/* out = softmax(scale · q·kᵀ …) · v, with what changes or hides scores:
 * scale → softcap → + bias + alibi → mask, causal, window, spans, lengths → softmax with sinks.
 * A row that may attend nothing is 0, its lse −∞. */
typedef struct numattn_attention_args {
  size_t struct_size;

  /* (B, Hq, Sq, D), (B, Hkv, Sk, D), (B, Hkv, Sk, Dv), (B, Hq, Sq, Dv), or (B, S, H, D) where
   * layout says so; or all without B. Hq is a multiple of Hkv. One of float32, float16 and
   * bfloat16. */
  numattn_tensor q, k, v, out;
  numattn_tensor lse;              /* (B, Hq, Sq), (B, Sq, Hq) in layout bshd; contiguous float32 */
  numattn_tensor k_scale, v_scale; /* (B, Hkv, Sk) float32, if k and v are int8 */

  numattn_tensor mask;         /* bool, broadcasts to (B, Hq, Sq, Sk): nonzero may attend */
  numattn_tensor bias;         /* float32 or q's dtype, likewise */
  numattn_tensor alibi_slopes; /* (Hq) or (B, Hq), contiguous float32 */
  numattn_tensor sinks;        /* (Hq), contiguous float32: logits beside the keys */

  int32_t layout;
  int32_t precision;
  int32_t num_threads; /* upper limit for this call; 0: none of its own */
  int32_t is_causal;
  int32_t has_window; /* key j is visible iff pos − window_left <= j <= pos + window_right */
  int32_t has_scale;  /* or else it is 1 / √D */
  int64_t window_left, window_right; /* −1: unbounded */
  int64_t sink_tokens;               /* first keys that the window does not hide */
  double scale;
  double softcap;        /* 0: none */
  double skip_below;     /* approximate where above 0; see docs/approximations.md */
  numattn_ints q_offset; /* position of the first query, one or B; not given: 0 */
  numattn_ints kv_lens;  /* B: how many keys each entry has; not given: Sk */

  /* Keys [begin, end) for each query row: contiguous, all begins and then all ends, each of
   * key_spans_shape, which broadcasts to (B, Hq, Sq). */
  const int64_t *key_spans;
  int64_t key_spans_shape[3];

  numattn_interrupt interrupt; /* NULL: none */
  void *interrupt_context;
  numattn_parallel parallel; /* NULL: threads of the library's; not with an interrupt */
  void *parallel_context;
} numattn_attention_args;

/* With its size, and else nothing given. */
static inline numattn_attention_args numattn_attention_defaults(void) {
  numattn_attention_args args;
  memset(&args, 0, sizeof args);
  args.struct_size = sizeof args;
  return args;
}

NUMATTN_API numattn_status numattn_attention(const numattn_attention_args *args);

/* Sequences one after the other, without any padding: q, k, v and out are (total, H, D). Sequence i
 * has the queries [query_starts[i], query_starts[i + 1]), and its keys and values by key_starts;
 * each has `sequences` + 1 numbers. lse is (total, Hq). layout, mask, bias and kv_lens have no
 * meaning. */
NUMATTN_API numattn_status numattn_attention_varlen(const numattn_attention_args *args,
                                                    const int64_t *query_starts,
                                                    const int64_t *key_starts, int64_t sequences);

/* Keys and values in pages: k and v are pools (pages, page rows, Hkv, D), their scales (pages, page
 * rows, Hkv). Token j of entry b is in page block_table[b · columns + j / page rows]; kv_lens says
 * how many tokens each entry has. */
NUMATTN_API numattn_status numattn_attention_paged(const numattn_attention_args *args,
                                                   const int64_t *block_table, int64_t rows,
                                                   int64_t columns);

/* --- Rotary positions ------------------------------------------------------------------------- */

/* For 0 <= r < R and (a, b) = (r, r + R), or (2r, 2r + 1) where interleaved:
 * out[a] = x[a] cos[r] - x[b] sin[r], out[b] = x[b] cos[r] + x[a] sin[r];
 * out[i] = x[i] for i >= 2R. */
typedef struct numattn_rope_args {
  size_t struct_size;
  numattn_tensor x;        /* (B, H, S, D) or (H, S, D), or as the layout says */
  numattn_tensor out;      /* of x's shape and dtype; may be x itself */
  numattn_tensor cos, sin; /* (S, R) or (B, S, R); (P, R) with positions, which choose rows */
  numattn_ints positions;  /* S, or B times S; not given: rows as they come */
  int32_t layout;
  int32_t interleaved;
  int32_t num_threads;
  int32_t reserved; /* 0 */
  numattn_interrupt interrupt;
  void *interrupt_context;
  numattn_parallel parallel;
  void *parallel_context;
} numattn_rope_args;

static inline numattn_rope_args numattn_rope_defaults(void) {
  numattn_rope_args args;
  memset(&args, 0, sizeof args);
  args.struct_size = sizeof args;
  return args;
}

NUMATTN_API numattn_status numattn_rope(const numattn_rope_args *args);

/* --- Projections ------------------------------------------------------------------------------ */

enum {
  NUMATTN_NO_ACTIVATION = 0,
  NUMATTN_RELU = 1,
  NUMATTN_GELU = 2, /* by the error function */
  NUMATTN_GELU_TANH = 3,
  NUMATTN_SILU = 4
};

/* A storage of weights, besides dtypes: as NUMATTN_INT8, and rows of x become integers of 8 bits,
 * too, instead of 16: an instruction multiplies twice as many, and results are less exact. */
enum { NUMATTN_W8A8 = 256 };

/* A weight, packed once. It never changes: any number of threads may run it. */
typedef struct numattn_linear numattn_linear;

/* Packs a weight (out_features, in_features) of float32, float16 or bfloat16, and a bias
 * (out_features), contiguous float32, or NULL. `storage` is NUMATTN_FLOAT32, NUMATTN_BFLOAT16,
 * NUMATTN_INT8 or NUMATTN_W8A8. Both arrays are copied. *linear is NULL where this fails. */
NUMATTN_API numattn_status numattn_linear_create(const numattn_tensor *weight,
                                                 const numattn_tensor *bias, int32_t storage,
                                                 int32_t precision, numattn_linear **linear);

/* NULL is allowed. */
NUMATTN_API void numattn_linear_destroy(numattn_linear *linear);

/* out = activation(x · weightᵀ + bias) · factor + residual */
typedef struct numattn_linear_args {
  size_t struct_size;
  numattn_tensor x;   /* (rows, in_features) */
  numattn_tensor out; /* (rows, out_features) of x's dtype, or any where storage is not float32 */
  numattn_tensor factor, residual; /* like out; the residual may be out itself */
  int32_t activation;
  int32_t num_threads;
  numattn_interrupt interrupt;
  void *interrupt_context;
  const numattn_linear *factor_layer; /* instead of `factor`: what it makes of x; NULL for none */
} numattn_linear_args;

static inline numattn_linear_args numattn_linear_defaults(void) {
  numattn_linear_args args;
  memset(&args, 0, sizeof args);
  args.struct_size = sizeof args;
  return args;
}

NUMATTN_API numattn_status numattn_linear_run(const numattn_linear *linear,
                                              const numattn_linear_args *args);

/* --- Instruction sets and threads ------------------------------------------------------------- */

/* The instruction set in force: the best available, unless numattn_isa_use() or the environment's
 * NUMATTN_ISA chose another. NULL where NUMATTN_ISA names none that is available: then every call
 * that computes fails, and the message says so. */
NUMATTN_API const char *numattn_isa_current(void);

/* Those that this machine can run, by number, slowest first; NULL behind the last one. */
NUMATTN_API const char *numattn_isa_available(int32_t index);

/* For the whole process. */
NUMATTN_API numattn_status numattn_isa_use(const char *name);

/* How many threads a call without a limit of its own would use here and now; and the limit for the
 * whole process, 0 for none. */
NUMATTN_API int32_t numattn_get_num_threads(void);
NUMATTN_API numattn_status numattn_set_num_threads(int32_t count);

#ifdef __cplusplus
}
#endif

#endif
