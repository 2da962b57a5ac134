//! User stories: one file each, in one test binary.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod cluster_workers;
#[cfg(test)]
mod daemon_life;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod real_clients;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod rolling_restart;
#[cfg(test)]
mod studies;
#[cfg(test)]
mod the_loop;
#[cfg(test)]
mod tracing;
