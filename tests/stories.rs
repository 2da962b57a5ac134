//! User stories: one file each, in one test binary.

mod architecture;
mod bad_input;
mod daemon_life;
mod full_disk;
mod kills;
mod real_clients;
mod the_loop;
