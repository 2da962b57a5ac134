//! Pages of what became of the records of a finished job, read from the result's shards.

use sha2::{Digest as _, Sha256};
use tidemill_artifacts::Artifacts;
use tidemill_chassis::Fault;
use tidemill_dataset::{Fate, count_rows, read_shard};
use tidemill_platform::fault_of_artifacts;
use tidemill_proto::preprocessing::v1::{
    ListRecordFatesRequest, ListRecordFatesResponse, PreprocessingJob, RecordFate,
};
use tidemill_proto::r#type::v1::State;

const USUAL: usize = 50;
const MOST: usize = 1000;

/// One page.
pub(crate) async fn list(
    artifacts: &Artifacts,
    job: &PreprocessingJob,
    request: &ListRecordFatesRequest,
) -> Result<ListRecordFatesResponse, Fault> {
    let limit = match usize::try_from(request.page_size) {
        Ok(0) => USUAL,
        Ok(size) => size.min(MOST),
        Err(_) => return Err(Fault::invalid("page_size", "it is negative; use 0 for the usual size")),
    };
    let dropped = match request.filter.replace(' ', "").as_str() {
        "" => false,
        "dropped=true" => true,
        _ => return Err(Fault::invalid("filter", format!("{:?} should be `dropped = true` or empty", request.filter))),
    };
    if job.state() != State::Succeeded {
        let text = format!("{} has no result yet: it is {}", job.name, job.state().as_str_name());
        return Err(Fault::precondition("JOB_NOT_READY", &job.name, text));
    }
    let seal = hex::encode(&Sha256::digest(format!("{} {dropped}", job.digest))[..8]);
    let offset = match request.page_token.as_str() {
        "" => 0,
        token => token
            .strip_prefix(&seal)
            .and_then(|place| usize::from_str_radix(place, 16).ok())
            .ok_or_else(|| Fault::invalid("page_token", "it does not belong to this request; start without it"))?,
    };
    // One more than asked for tells whether there is a next page.
    let mut record_fates = rows(artifacts, &job.digest, dropped, offset, limit + 1).await?;
    let more = record_fates.len() > limit;
    record_fates.truncate(limit);
    let next_page_token = if more { format!("{seal}{:016x}", offset + limit) } else { String::new() };
    Ok(ListRecordFatesResponse { record_fates, next_page_token })
}

async fn rows(
    artifacts: &Artifacts,
    digest: &str,
    dropped: bool,
    mut offset: usize,
    limit: usize,
) -> Result<Vec<RecordFate>, Fault> {
    let digest = digest.parse().map_err(fault_of_artifacts)?;
    let manifest = artifacts.manifest(&digest).await.map_err(fault_of_artifacts)?;
    let mut paths: Vec<&str> = manifest.entries.iter().map(|entry| entry.path.as_str()).collect();
    paths.retain(|path| path.starts_with("fates/"));
    paths.sort_unstable();
    let damaged =
        |error: tidemill_dataset::Error| Fault::new(tonic::Code::DataLoss, "ARTIFACT_CORRUPT", error.to_string());
    let mut found = Vec::new();
    for path in paths {
        let bytes = artifacts.get_entry(&digest, path).await.map_err(fault_of_artifacts)?;
        let count = count_rows(bytes.clone(), path).map_err(damaged)?;
        if !dropped && offset >= count {
            offset -= count;
            continue;
        }
        for fate in read_shard::<Fate>(bytes, path).map_err(damaged)? {
            let fate = fate.map_err(damaged)?;
            if dropped && fate.reason.is_empty() {
                continue;
            }
            if offset > 0 {
                offset -= 1;
                continue;
            }
            found.push(told(fate));
            if found.len() == limit {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

fn told(fate: Fate) -> RecordFate {
    RecordFate {
        record: fate.id.to_string(),
        split: fate.split.map_or_else(String::new, |split| split.to_string()),
        reason: fate.reason,
        detail: fate.detail,
        redacted_count: fate.redacted_count as i64,
        token_count: fate.token_count as i64,
    }
}
