//! The service over its generated client, with a registry that only writes down what it is told.

mod bad_input;
mod bench;
mod rows;
mod stories;
