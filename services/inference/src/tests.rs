//! The service as its callers see it: over a real socket, with real tiny models.

mod deploying;
mod generating;
mod world;
