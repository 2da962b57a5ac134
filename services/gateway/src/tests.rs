//! The gateway as HTTP clients see it: over a real socket.

mod feedback;
mod generating;
mod world;
