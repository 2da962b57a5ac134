//! Messages, clients and servers generated from `proto/`; resource names; the table of topics.

mod descriptors;
pub mod names;
mod resource;
pub mod topics;

pub use descriptors::{FILE_DESCRIPTOR_SET, pool};
pub use resource::{Job, Meta, Resource};

/// Generated code: its documentation is in the proto files.
macro_rules! package {
    ($($name:ident)*) => {$(
        #[allow(missing_docs, unreachable_pub, clippy::all)]
        #[doc = concat!("Package `tidemill.", stringify!($name), ".v1`.")]
        pub mod $name {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/tidemill.", stringify!($name), ".v1.rs"));
            }
        }
    )*};
}

package! { event evaluation inference ingestion pipeline preprocessing registry training r#type }
