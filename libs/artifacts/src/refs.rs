//! References: names for digests that are given once and never moved.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectStoreExt, PutMode, PutPayload};

use crate::error::is_missing;
use crate::{Artifacts, Digest, Error, Result};

/// On a disk, lets the reference `a` and the folder of `a/b` stand side by side.
const SUFFIX: &str = ".ref";
/// For how long a claim whose answer was lost is made again. The client does not do it: of conditional puts in general it is not known
/// whether they may be repeated, of claims it is.
const CLAIMING: Duration = Duration::from_secs(2);

impl Artifacts {
    /// Gives a name to a digest. The same again changes nothing; another digest is [`Error::AlreadyExists`].
    pub async fn claim(&self, name: &str, digest: &Digest) -> Result<()> {
        let key = key(name)?;
        let begin = Instant::now();
        loop {
            match self.objects.put_opts(&key, PutPayload::from(digest.to_string()), PutMode::Create.into()).await {
                Ok(_) => return Ok(()),
                Err(object_store::Error::AlreadyExists { .. }) => match self.resolve(name).await? {
                    Some(present) if present == *digest => return Ok(()),
                    Some(present) => return Err(Error::AlreadyExists { name: name.to_owned(), present }),
                    // Released between the two: claim again.
                    None => {}
                },
                Err(object_store::Error::Generic { .. }) if begin.elapsed() < CLAIMING => {
                    tokio::time::sleep(CLAIMING / 20).await;
                }
                Err(error) => return Err(Error::store(&self.url, &format!("reference {name}"), error)),
            }
        }
    }

    /// What a name stands for.
    pub async fn resolve(&self, name: &str) -> Result<Option<Digest>> {
        let failed = |error| Error::store(&self.url, &format!("reference {name}"), error);
        let bytes = match self.objects.get(&key(name)?).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let digest = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
        match digest {
            Some(digest) => Ok(Some(digest)),
            None => Err(Error::Corrupt {
                what: format!("reference {name}"),
                reason: "it does not hold a digest; restore it from a backup, or delete it".to_owned(),
            }),
        }
    }

    /// The references whose names start with `prefix`, sorted by name.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, Digest)>> {
        let folder = match prefix.rsplit_once('/') {
            Some((folder, _)) => format!("refs/{folder}"),
            None => "refs".to_owned(),
        };
        let folder = Key::parse(&folder).map_err(|error| Error::invalid("prefix", error.to_string()))?;
        let failed = |error| Error::store(&self.url, "references", error);
        let metas: Vec<_> = self.objects.list(Some(&folder)).try_collect().await.map_err(failed)?;
        let mut names: Vec<String> = metas
            .iter()
            .filter_map(|meta| Some(meta.location.as_ref().strip_prefix("refs/")?.strip_suffix(SUFFIX)?.to_owned()))
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort_unstable();
        let resolved: Vec<_> = names
            .into_iter()
            .map(|name| async move { Ok::<_, Error>(self.resolve(&name).await?.map(|digest| (name, digest))) })
            .collect();
        let found: Vec<Option<(String, Digest)>> = futures::stream::iter(resolved).buffered(16).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Forgets a name; forgetting one that is not there changes nothing.
    pub async fn release(&self, name: &str) -> Result<()> {
        match self.objects.delete(&key(name)?).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(Error::store(&self.url, &format!("reference {name}"), error)),
        }
    }
}

fn key(name: &str) -> Result<Key> {
    let plain = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && !segment.ends_with(SUFFIX)
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !name.split('/').all(plain) {
        let reason = format!("{name:?} must be letters, digits, `-`, `_` and `.` in segments separated by `/`");
        return Err(Error::invalid("name", reason));
    }
    Key::parse(format!("refs/{name}{SUFFIX}")).map_err(|error| Error::invalid("name", error.to_string()))
}
