//! The memory of a tensor, let go and taken again: what refers to the tensor, a layer or a graph, keeps it.

use tch::{Device, Tensor};

use crate::{Error, Result, ffi};

/// Lets go of a tensor's memory: it has its shape and no values until [`restore`].
///
/// # Errors
/// The tensor is a view of another one's memory.
pub fn release(tensor: &Tensor) -> Result<()> {
    // SAFETY: the tensor outlives the call. Libtorch itself refuses to read a storage that is too small.
    ffi::check(unsafe { ffi::tm_storage_release(ffi::raw(tensor)) })
}

/// Takes memory for it again; nothing is known of its values until they are written. One that has its memory keeps it, values and all.
pub fn restore(tensor: &Tensor) -> Result<()> {
    // SAFETY: the tensor outlives the call.
    ffi::check(unsafe { ffi::tm_storage_restore(ffi::raw(tensor)) })
}

/// Bytes of memory that it has now.
pub fn size(tensor: &Tensor) -> usize {
    // SAFETY: the tensor outlives the call; a tensor that computes with numbers has a storage.
    usize::try_from(unsafe { ffi::tm_storage_bytes(ffi::raw(tensor)) }).unwrap_or_default()
}

/// The values of a contiguous tensor on the CPU, as they lie there. Nobody may write them while they are read: the tensor, and whatever
/// shares its memory, is lent.
///
/// # Errors
/// It is not contiguous, on a GPU, or without its memory.
pub fn bytes(tensor: &Tensor) -> Result<&[u8]> {
    let length = tensor.numel() * tensor.f_kind()?.elt_size_in_bytes();
    if tensor.device() != Device::Cpu || !tensor.is_contiguous() || size(tensor) < length {
        return Err(Error::Shim(
            "only a contiguous tensor on the CPU that has its memory can be read as bytes".to_owned(),
        ));
    }
    if length == 0 {
        return Ok(&[]);
    }
    // SAFETY: the tensor's memory begins there, has at least `length` bytes behind its offset, and lives as long as the borrow of the
    // tensor; the caller promises that nobody writes it.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn a_tensor_without_memory_keeps_its_shape_its_handles_and_its_gradient() {
        let weight = Tensor::from_slice(&[1f32, 2.0, 3.0]).set_requires_grad(true);
        let handle = weight.shallow_clone();
        (&weight * 2.0).sum(Kind::Float).backward();
        release(&weight).unwrap();
        assert_eq!((handle.size(), size(&handle)), (vec![3], 0));
        restore(&handle).unwrap();
        tch::no_grad(|| weight.detach().copy_(&Tensor::from_slice(&[4f32, 5.0, 6.0])));
        assert_eq!(Vec::<f32>::try_from(&handle.detach()).unwrap(), [4.0, 5.0, 6.0]);
        restore(&handle).unwrap();
        (&handle * &handle).sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(&weight.grad()).unwrap(), [10.0, 12.0, 14.0]);
    }

    #[test]
    fn values_are_read_as_they_lie_and_only_from_where_they_lie_together() {
        let whole = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]);
        assert_eq!(bytes(&whole).unwrap()[4..8], 2f32.to_le_bytes());
        assert_eq!(bytes(&whole.select(0, 1)).unwrap(), [3f32.to_le_bytes(), 4f32.to_le_bytes()].concat());
        assert!(bytes(&whole.transpose(0, 1)).is_err());
        release(&whole).unwrap();
        assert!(bytes(&whole).is_err());
    }

    #[test]
    fn a_view_keeps_the_memory_that_is_not_its_own() {
        let whole = Tensor::zeros([4, 2], (Kind::Float, Device::Cpu));
        let error = release(&whole.narrow(0, 1, 2)).unwrap_err().to_string();
        assert!(error.contains("a view cannot let go"), "{error}");
    }
}
