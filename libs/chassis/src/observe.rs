//! What listeners and calls tell about themselves: a span for every request, in the trace of its caller, and its rate, errors and duration.

mod body;
mod grpc;
mod http;

pub(crate) use grpc::{Observe, outgoing};
pub(crate) use http::observe;

#[cfg(test)]
mod tests;
