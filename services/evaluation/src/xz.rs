//! Size of text after `xz -9e`, by the program of that name, beside the model's work.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::error::{Error, Result};

const PROGRAM: &str = "xz";

/// A compression that runs. Dropping it stops the program.
pub(crate) struct Compression {
    child: Child,
    writer: Option<JoinHandle<std::io::Result<()>>>,
    counter: Option<JoinHandle<std::io::Result<u64>>>,
}

impl Compression {
    /// Starts to compress `parts`, one after the other as one stream, with one thread: the same size everywhere.
    pub(crate) fn start(parts: Vec<Bytes>) -> Result<Self> {
        let spawn = |program: &str, before: &[&str]| {
            Command::new(program)
                .args(before)
                .args(["-9e", "-T1", "-c"])
                .env_remove("XZ_OPT")
                .env_remove("XZ_DEFAULTS")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        };
        check_installed()?;
        // The model's threads wait for one another: what runs beside them must give way.
        let spawned = spawn("nice", &["-n", "10", PROGRAM]).or_else(|_| spawn(PROGRAM, &[]));
        let mut child = spawned.map_err(failed)?;
        let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Program { program: PROGRAM, reason: "it has no input or output".to_owned() });
        };
        let writer = std::thread::spawn(move || parts.iter().try_for_each(|part| input.write_all(part)));
        let counter = std::thread::spawn(move || {
            let (mut size, mut buffer) = (0, vec![0; 64 << 10]);
            loop {
                match output.read(&mut buffer)? {
                    0 => return Ok(size),
                    count => size += count as u64,
                }
            }
        });
        Ok(Self { child, writer: Some(writer), counter: Some(counter) })
    }

    /// Whether [`Compression::size`] would answer at once.
    pub(crate) fn is_done(&self) -> bool {
        self.counter.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end and returns the bytes that came out.
    pub(crate) fn size(mut self) -> Result<u64> {
        let size = join(self.counter.take()).map_err(failed)?;
        let written = join(self.writer.take());
        let status = self.child.wait().map_err(failed)?;
        if !status.success() {
            return Err(Error::Program { program: PROGRAM, reason: status.to_string() });
        }
        written.map_err(failed)?;
        Ok(size)
    }
}

impl Drop for Compression {
    fn drop(&mut self) {
        // Nothing to do for one that has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn join<T: Default>(thread: Option<JoinHandle<std::io::Result<T>>>) -> std::io::Result<T> {
    let Some(thread) = thread else { return Ok(T::default()) };
    thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")))
}

fn check_installed() -> Result<()> {
    let ran = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match ran {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::MissingProgram { program: PROGRAM, package: "xz-utils" })
        }
        Err(error) => Err(failed(error)),
        Ok(_) => Ok(()),
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::Program { program: PROGRAM, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(parts: &[&'static [u8]]) -> u64 {
        Compression::start(parts.iter().map(|part| Bytes::from_static(part)).collect()).unwrap().size().unwrap()
    }

    #[test]
    fn parts_compress_as_one_stream() {
        let (text, other) =
            (b"to be or not to be, that is the question ".repeat(40).leak(), b"zq1x8w".repeat(9).leak());
        let (whole, alone) = (size(&[text, other]), size(&[text]));
        assert!(alone < whole && whole < text.len() as u64 / 4, "{alone} {whole}");
        // What follows its own repetition costs next to nothing.
        assert!(size(&[text, text]) - alone < 24);
        assert_eq!(size(&[text, other]), whole);
    }

    #[test]
    fn a_compression_that_is_dropped_stops() {
        let noise: Vec<u8> = (0..64u64 << 20).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 29) as u8).collect();
        let compression = Compression::start(vec![noise.into()]).unwrap();
        let pid = compression.child.id();
        assert!(!compression.is_done());
        drop(compression);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
