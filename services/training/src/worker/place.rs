//! Which of its job's ranks a worker process is, and where it finds the others. The environment says it, and is asked here alone.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A [`ChildPlace`] as JSON, from rank 0.
pub(super) const CHILD: &str = "TIDEMILL_RANK";
/// A pod's rank; the cluster gives it to every pod of an Indexed Job.
pub(super) const INDEX: &str = "JOB_COMPLETION_INDEX";
/// How many ranks there are; the launcher gives it to pods.
pub(super) const SIZE: &str = "WORLD_SIZE";
/// Where pods find rank 0: its host, from the launcher, and its port, from the Job's template.
pub(super) const HOST: &str = "MASTER_ADDR";
/// See [`HOST`].
pub(super) const PORT: &str = "MASTER_PORT";

/// A worker process among those of its job.
#[derive(Debug, PartialEq)]
pub(crate) enum Place {
    /// Rank 0, which the launcher started; it starts the others as its children.
    First,
    /// A process that rank 0 started.
    Child(ChildPlace),
    /// A pod of a Job that has one for each rank.
    Pod(PodPlace),
}

/// A child of rank 0, and where the store of the ranks is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChildPlace {
    pub(crate) rank: usize,
    pub(crate) size: usize,
    pub(crate) store: SocketAddr,
}

/// A rank on a host of its own, and where rank 0 awaits the others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodPlace {
    pub(crate) rank: usize,
    pub(crate) size: usize,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Place {
    /// That of this process.
    ///
    /// # Errors
    /// A variable is missing, or is not what it should be.
    pub(crate) fn from_environment() -> Result<Self> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        if let Some(text) = variable(CHILD) {
            let child = serde_json::from_str(&text);
            return child.map(Self::Child).map_err(|error| Error::Ranks(format!("{CHILD} cannot be read: {error}")));
        }
        let (Some(rank), Some(size)) = (variable(INDEX), variable(SIZE)) else { return Ok(Self::First) };
        let (rank, size) = (number(INDEX, &rank)?, number(SIZE, &size)?);
        if rank >= size {
            return Err(Error::Ranks(format!("{INDEX} is {rank}, but {SIZE} is {size}")));
        }
        let (host, port) = match size {
            1 => (String::new(), 0),
            _ => {
                let given = |name| variable(name).ok_or_else(|| Error::Ranks(format!("{name} is not set; {REMEDY}")));
                (given(HOST)?, number(PORT, &given(PORT)?)?)
            }
        };
        Ok(Self::Pod(PodPlace { rank, size, host, port }))
    }

    /// This process's number.
    pub(crate) fn rank(&self) -> usize {
        match self {
            Self::First => 0,
            Self::Child(child) => child.rank,
            Self::Pod(pod) => pod.rank,
        }
    }
}

/// Who sets what a pod with others lacks.
const REMEDY: &str = "the template of the Job sets MASTER_PORT, and the launcher MASTER_ADDR";

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::Ranks(format!("{name} is {text:?}, which is no number of its kind")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Place> {
        Place::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_tells_a_worker_its_place() {
        assert_eq!(read(&[]).unwrap(), Place::First);
        // As any pod of an Indexed Job has it; it need not be one that our launcher made.
        assert_eq!(read(&[(INDEX, "3")]).unwrap(), Place::First);
        let child = ChildPlace { rank: 2, size: 3, store: "127.0.0.1:4000".parse().unwrap() };
        let text = serde_json::to_string(&child).unwrap();
        assert_eq!(read(&[(CHILD, &text), (INDEX, "0"), (SIZE, "1")]).unwrap(), Place::Child(child));
        let pod = |rank, size, host: &str, port| Place::Pod(PodPlace { rank, size, host: host.to_owned(), port });
        let given = [(INDEX, "1"), (SIZE, "2"), (HOST, "a-0.workers"), (PORT, "29500")];
        assert_eq!(read(&given).unwrap(), pod(1, 2, "a-0.workers", 29500));
        assert_eq!(read(&[(INDEX, "0"), (SIZE, "1")]).unwrap(), pod(0, 1, "", 0));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (variables, hint) in [
            (&[(CHILD, "{}")][..], CHILD),
            (&[(INDEX, "1"), (SIZE, "2"), (HOST, "a")], PORT),
            (&[(INDEX, "1"), (SIZE, "2"), (PORT, "1")], HOST),
            (&[(INDEX, "1"), (SIZE, "2"), (HOST, "a"), (PORT, "70000")], "70000"),
            (&[(INDEX, "2"), (SIZE, "2")], SIZE),
            (&[(INDEX, "x"), (SIZE, "2")], INDEX),
        ] {
            let text = read(variables).unwrap_err().to_string();
            assert!(text.contains(hint), "{text}");
        }
    }
}
