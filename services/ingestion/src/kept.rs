//! Pages of the records of a finished version, kept or quarantined, read from its shards.

use sha2::{Digest as _, Sha256};
use tidemill_artifacts::Artifacts;
use tidemill_chassis::Fault;
use tidemill_dataset::{Quarantined, Row, count_rows, read_page};
use tidemill_platform::fault_of_artifacts;
use tidemill_proto::ingestion::v1::{DatasetVersion, ListRecordsRequest, ListRecordsResponse, Record};
use tidemill_proto::r#type::v1::State;

const USUAL: usize = 50;
const MOST: usize = 1000;
const EXCERPT_CHARACTERS: usize = 256;

/// One page.
pub(crate) async fn list(
    artifacts: &Artifacts,
    version: &DatasetVersion,
    request: &ListRecordsRequest,
) -> Result<ListRecordsResponse, Fault> {
    let limit = match usize::try_from(request.page_size) {
        Ok(0) => USUAL,
        Ok(size) => size.min(MOST),
        Err(_) => return Err(Fault::invalid("page_size", "it is negative; use 0 for the usual size")),
    };
    let quarantined = match request.filter.replace(' ', "").as_str() {
        "" => false,
        "quarantined=true" => true,
        _ => {
            return Err(Fault::invalid(
                "filter",
                format!("{:?} should be `quarantined = true` or empty", request.filter),
            ));
        }
    };
    if version.state() != State::Succeeded {
        let text = format!("{} has no records yet: it is {}", version.name, version.state().as_str_name());
        return Err(Fault::precondition("VERSION_NOT_READY", &version.name, text));
    }
    let seal = seal(&version.digest, quarantined);
    let offset = match request.page_token.as_str() {
        "" => 0,
        token => position(token, &seal)
            .ok_or_else(|| Fault::invalid("page_token", "it does not belong to this request; start without it"))?,
    };
    let (records, more) = if quarantined {
        let (rows, more) = rows::<Quarantined>(artifacts, &version.digest, "quarantine/", offset, limit).await?;
        (rows.into_iter().map(refused).collect(), more)
    } else {
        let (rows, more) = rows::<tidemill_dataset::Record>(artifacts, &version.digest, "data/", offset, limit).await?;
        (rows.into_iter().map(kept).collect(), more)
    };
    let next_page_token = if more { format!("{seal}{:016x}", offset + limit) } else { String::new() };
    Ok(ListRecordsResponse { records, next_page_token })
}

async fn rows<T: Row>(
    artifacts: &Artifacts,
    digest: &str,
    prefix: &str,
    mut offset: usize,
    limit: usize,
) -> Result<(Vec<T>, bool), Fault> {
    let digest = digest.parse().map_err(fault_of_artifacts)?;
    let manifest = artifacts.manifest(&digest).await.map_err(fault_of_artifacts)?;
    let mut paths: Vec<&str> = manifest.entries.iter().map(|entry| entry.path.as_str()).collect();
    paths.retain(|path| path.starts_with(prefix));
    paths.sort_unstable();
    let damaged =
        |error: tidemill_dataset::Error| Fault::new(tonic::Code::DataLoss, "ARTIFACT_CORRUPT", error.to_string());
    let mut found = Vec::new();
    for path in paths {
        if found.len() > limit {
            break;
        }
        let bytes = artifacts.get_entry(&digest, path).await.map_err(fault_of_artifacts)?;
        let count = count_rows(bytes.clone(), path).map_err(damaged)?;
        if offset >= count {
            offset -= count;
            continue;
        }
        // One more than asked for tells whether there is a next page.
        found.extend(read_page::<T>(bytes, path, offset, limit + 1 - found.len()).map_err(damaged)?);
        offset = 0;
    }
    let more = found.len() > limit;
    found.truncate(limit);
    Ok((found, more))
}

fn kept(row: tidemill_dataset::Record) -> Record {
    Record {
        digest: row.id.to_string(),
        origin: row.origin,
        text_bytes: row.text.len() as i64,
        excerpt: row.text.chars().take(EXCERPT_CHARACTERS).collect(),
        metadata: row.metadata,
        ..Record::default()
    }
}

fn refused(row: Quarantined) -> Record {
    Record {
        origin: row.origin,
        text_bytes: i64::try_from(row.size).unwrap_or(i64::MAX),
        excerpt: row.excerpt,
        reason: row.reason,
        detail: row.detail,
        ..Record::default()
    }
}

/// Ties a token to its version and filter.
fn seal(digest: &str, quarantined: bool) -> String {
    hex::encode(&Sha256::digest(format!("{digest} {quarantined}"))[..8])
}

fn position(token: &str, seal: &str) -> Option<usize> {
    usize::from_str_radix(token.strip_prefix(seal)?, 16).ok()
}
