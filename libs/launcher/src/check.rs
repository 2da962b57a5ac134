//! What every launcher refuses, whatever runs its workers.

use crate::{Error, Result, Worker};

/// Refuses an id that could leave its place.
pub(crate) fn id(id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if id.is_empty() || id.len() > 100 || !id.bytes().all(plain) {
        let reason = "its id must be 1 to 100 letters, digits, `-` and `_`".to_owned();
        return Err(Error::Invalid { id: id.to_owned(), reason });
    }
    Ok(())
}

/// Refuses what a shell or a cluster would drop silently or misunderstand.
pub(crate) fn worker(worker: &Worker) -> Result<()> {
    id(&worker.id)?;
    let invalid = |reason: String| Err(Error::Invalid { id: worker.id.clone(), reason });
    if worker.command.first().is_none_or(String::is_empty) {
        return invalid("its command is empty".to_owned());
    }
    if worker.ranks == 0 {
        return invalid("it has no ranks; one is the least".to_owned());
    }
    for (name, _) in &worker.env {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || !name.bytes().all(plain) {
            return invalid(format!("the environment variable {name:?} is not a name of letters, digits and `_`"));
        }
    }
    Ok(())
}
