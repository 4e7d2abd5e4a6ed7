//! Causal attention from Rust, by the C interface.
//!
//!     rustc attention.rs -L <prefix>/lib -l numattn && LD_LIBRARY_PATH=<prefix>/lib ./attention

use std::ffi::{c_char, c_void, CStr};
use std::ptr::null;

#[repr(C)]
#[derive(Clone, Copy)]
struct Tensor {
    data: *const c_void,
    dtype: i32,
    rank: i32,
    shape: [i64; 4],
    strides: [i64; 4],
}

const NOT_GIVEN: Tensor =
    Tensor { data: null(), dtype: 0, rank: 0, shape: [0; 4], strides: [0; 4] };

#[repr(C)]
struct Integers {
    data: *const i64,
    count: i64,
}

/// numattn_attention_args, to its end in version 0.1.
#[repr(C)]
struct AttentionArgs {
    struct_size: usize,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    k_scale: Tensor,
    v_scale: Tensor,
    mask: Tensor,
    bias: Tensor,
    alibi_slopes: Tensor,
    sinks: Tensor,
    layout: i32,
    precision: i32,
    num_threads: i32,
    is_causal: i32,
    has_window: i32,
    has_scale: i32,
    window_left: i64,
    window_right: i64,
    sink_tokens: i64,
    scale: f64,
    softcap: f64,
    skip_below: f64,
    q_offset: Integers,
    kv_lens: Integers,
    key_spans: *const i64,
    key_spans_shape: [i64; 3],
    interrupt: Option<extern "C" fn(*mut c_void) -> i32>,
    interrupt_context: *mut c_void,
    parallel: Option<
        extern "C" fn(*mut c_void, i32, extern "C" fn(*const c_void, i32), *const c_void),
    >,
    parallel_context: *mut c_void,
}

extern "C" {
    fn numattn_attention(args: *const AttentionArgs) -> i32;
    fn numattn_contiguous(data: *const c_void, dtype: i32, rank: i32, shape: *const i64) -> Tensor;
    fn numattn_last_error() -> *const c_char;
}

const SHAPE: [i64; 4] = [1, 2, 4, 3]; // (batch, heads, length, width)

fn tensor(numbers: *const f32) -> Tensor {
    unsafe { numattn_contiguous(numbers.cast(), 0, 4, SHAPE.as_ptr()) }
}

fn numbers(step: i32, modulus: i32, divisor: f32) -> Vec<f32> {
    (0..24).map(|i| (i * step % modulus - modulus / 2) as f32 / divisor).collect()
}

fn main() {
    let (q, k, v) = (numbers(7, 11, 4.0), numbers(5, 13, 4.0), numbers(3, 7, 2.0));
    let mut out = vec![0f32; 24];
    let args = AttentionArgs {
        struct_size: std::mem::size_of::<AttentionArgs>(),
        q: tensor(q.as_ptr()),
        k: tensor(k.as_ptr()),
        v: tensor(v.as_ptr()),
        out: tensor(out.as_mut_ptr()),
        lse: NOT_GIVEN,
        k_scale: NOT_GIVEN,
        v_scale: NOT_GIVEN,
        mask: NOT_GIVEN,
        bias: NOT_GIVEN,
        alibi_slopes: NOT_GIVEN,
        sinks: NOT_GIVEN,
        layout: 0,
        precision: 0,
        num_threads: 0,
        is_causal: 1,
        has_window: 0,
        has_scale: 0,
        window_left: 0,
        window_right: 0,
        sink_tokens: 0,
        scale: 0.0,
        softcap: 0.0,
        skip_below: 0.0,
        q_offset: Integers { data: null(), count: 0 },
        kv_lens: Integers { data: null(), count: 0 },
        key_spans: null(),
        key_spans_shape: [0; 3],
        interrupt: None,
        interrupt_context: std::ptr::null_mut(),
        parallel: None,
        parallel_context: std::ptr::null_mut(),
    };
    if unsafe { numattn_attention(&args) } != 0 {
        let words = unsafe { CStr::from_ptr(numattn_last_error()) };
        eprintln!("{}", words.to_string_lossy());
        std::process::exit(1);
    }
    for row in out.chunks(3) {
        println!("{:9.6} {:9.6} {:9.6}", row[0], row[1], row[2]);
    }
}
