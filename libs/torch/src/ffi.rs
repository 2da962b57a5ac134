//! The C functions of `shim/cpu`, and the two conversions that every call needs.

use std::ffi::{CStr, c_char, c_void};

use tch::Tensor;

use crate::{Error, Result};

/// An `at::Tensor*`.
pub(crate) type RawTensor = *mut c_void;

/// What the shim calls: `data`, an input, a place for the output, and one of some bytes for text; 0 is success.
pub(crate) type Body =
    unsafe extern "C" fn(*mut c_void, *const RawTensor, i64, *mut RawTensor, *mut c_char, i64) -> i32;

/// The same for a call that gives no tensor.
pub(crate) type Leave = unsafe extern "C" fn(*mut c_void, *mut c_char, i64) -> i32;

unsafe extern "C" {
    fn tm_free(text: *mut c_char);
    pub(crate) fn tm_autocast_enter(cuda: i32) -> *mut c_char;
    pub(crate) fn tm_autocast_exit(cuda: i32) -> *mut c_char;
    pub(crate) fn tm_set_deterministic(on: i32) -> *mut c_char;
    pub(crate) fn tm_open_library(library: *const c_char) -> *mut c_char;
    pub(crate) fn tm_table_open(library: *const c_char, table: *mut *const c_void) -> *mut c_char;
    pub(crate) fn tm_table_prove(table: *const c_void, family: i32, cuda: i32) -> *mut c_char;
    pub(crate) fn tm_table_use(table: *const c_void, family: i32) -> *mut c_char;
    #[cfg(test)]
    pub(crate) fn tm_host_table(threads: i32, together: i32) -> *const c_void;
    pub(crate) fn tm_cuda_memory(device: i32, reset: i32, allocated: *mut i64, reserved: *mut i64) -> *mut c_char;
    pub(crate) fn tm_cuda_devices(count: *mut i64) -> *mut c_char;
    pub(crate) fn tm_take_gradients(parameters: *const RawTensor, count: i64, gradients: *mut RawTensor)
    -> *mut c_char;
    pub(crate) fn tm_set_bfloat16(on: i32) -> i32;
    pub(crate) fn tm_set_fp8(on: i32) -> i32;
    pub(crate) fn tm_fp8_linear(x: RawTensor, weight: RawTensor, bias: RawTensor, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn tm_linear(x: RawTensor, weight: RawTensor, bias: RawTensor, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn tm_rms_norm(x: RawTensor, weight: RawTensor, epsilon: f64, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn tm_swiglu(gate_up: RawTensor, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn tm_rotate_qkv(
        qkv: RawTensor,
        cosines: RawTensor,
        sines: RawTensor,
        heads: i64,
        kv_heads: i64,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn tm_causal_attention(q: RawTensor, k: RawTensor, v: RawTensor, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn tm_cross_entropy_sum(
        x: RawTensor,
        weight: RawTensor,
        targets: RawTensor,
        ignored: i64,
        z: f64,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn tm_token_losses(
        x: RawTensor,
        weight: RawTensor,
        targets: RawTensor,
        ignored: i64,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn tm_nf4_quantize(matrix: RawTensor, tensors: *mut RawTensor) -> *mut c_char;
    pub(crate) fn tm_nf4_dequantize(
        tensors: *const RawTensor,
        shapes: *const i64,
        count: i64,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn tm_nf4_linear(
        x: RawTensor,
        tensors: *const RawTensor,
        shapes: *const i64,
        count: i64,
        bias: RawTensor,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn tm_recompute(
        xs: *const RawTensor,
        count: i64,
        body: Body,
        leave: Leave,
        release: unsafe extern "C" fn(*mut c_void),
        data: *mut c_void,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn tm_storage_release(tensor: RawTensor) -> *mut c_char;
    pub(crate) fn tm_storage_restore(tensor: RawTensor) -> *mut c_char;
    pub(crate) fn tm_storage_bytes(tensor: RawTensor) -> i64;
    pub(crate) fn tm_store_serve(
        host: *const c_char,
        port: i32,
        listener: i32,
        timeout_ms: i64,
        store: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn tm_store_free(store: *mut c_void);
    pub(crate) fn tm_ranks_join(
        host: *const c_char,
        port: i32,
        own: *const c_char,
        rank: i32,
        size: i32,
        timeout_ms: i64,
        ranks: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn tm_ranks_add_gpu(ranks: *mut c_void, library: *const c_char, timeout_ms: i64) -> *mut c_char;
    pub(crate) fn tm_ranks_free(ranks: *mut c_void);
    pub(crate) fn tm_ranks_sum(ranks: *mut c_void, tensor: RawTensor) -> *mut c_char;
    pub(crate) fn tm_ranks_broadcast(
        ranks: *mut c_void,
        tensors: *const RawTensor,
        roots: *const i32,
        count: i64,
    ) -> *mut c_char;
    pub(crate) fn tm_ranks_reduce(
        ranks: *mut c_void,
        tensors: *const RawTensor,
        roots: *const i32,
        count: i64,
    ) -> *mut c_char;
    pub(crate) fn tm_ranks_send(ranks: *mut c_void, tensor: RawTensor, to: i32) -> *mut c_char;
    pub(crate) fn tm_ranks_receive(ranks: *mut c_void, tensor: RawTensor, from: i32) -> *mut c_char;
    pub(crate) fn tm_reducer_new(
        ranks: *mut c_void,
        parameters: *const RawTensor,
        count: i64,
        bucket_bytes: i64,
        reducer: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn tm_reducer_free(reducer: *mut c_void);
    pub(crate) fn tm_reducer_prepare(reducer: *mut c_void, loss: RawTensor) -> *mut c_char;
    pub(crate) fn tm_global_norm(tensors: *const RawTensor, count: i64, norm: *mut f64) -> *mut c_char;
    pub(crate) fn tm_fused_adamw(
        parameters: *const RawTensor,
        gradients: *const RawTensor,
        first_moments: *const RawTensor,
        second_moments: *const RawTensor,
        steps: *const RawTensor,
        count: i64,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        epsilon: f64,
        gradient_divisor: RawTensor,
    ) -> *mut c_char;
    pub(crate) fn tm_adamw_8bit(
        parameters: *const RawTensor,
        gradients: *const RawTensor,
        first_codes: *const RawTensor,
        first_sizes: *const RawTensor,
        second_codes: *const RawTensor,
        second_sizes: *const RawTensor,
        count: i64,
        step: i64,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        epsilon: f64,
        gradient_divisor: RawTensor,
    ) -> *mut c_char;
}

/// Turns the shim's answer (null, or text that we own) into a result.
pub(crate) fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns either null or a NUL-terminated string from strdup, which nobody else holds.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        tm_free(message);
        text
    };
    Err(Error::Shim(text))
}

/// The pointer behind a tensor; valid as long as the tensor is.
pub(crate) fn raw(tensor: &Tensor) -> RawTensor {
    tensor.as_ptr().cast_mut().cast()
}

/// The pointers behind tensors; valid as long as the tensors are.
pub(crate) fn raw_all(tensors: &[Tensor]) -> Vec<RawTensor> {
    tensors.iter().map(raw).collect()
}

/// Takes ownership of a tensor that the shim made with `new at::Tensor`.
pub(crate) fn adopt(tensor: RawTensor) -> Tensor {
    // SAFETY: the shim hands out each pointer once, from `new at::Tensor`, which is what tch's destructor deletes.
    unsafe { Tensor::from_ptr(tensor.cast()) }
}
