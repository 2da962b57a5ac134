//! `tidemill lineage`: from an answer to the records behind it, and from a record to the models that saw it.

use serde_json::json;
use tidemill_proto::inference::v1::{Answer, GetAnswerRequest};
use tidemill_proto::ingestion::v1::ListRecordsRequest;
use tidemill_proto::registry::v1::lineage_node::Type;
use tidemill_proto::registry::v1::{GetLineageRequest, GetLineageResponse};
use tonic::{Code, Status};

use super::{Context, answer_name};
use crate::arguments::Lineage;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::{self, json};
use crate::view::tree;
use crate::words;

/// Draws the tree, and records where asked for.
pub(super) async fn execute(context: &Context, lineage: &Lineage) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let (answer, response) = walk(&connection, &lineage.of).await?;
    let mut records = Vec::new();
    if let Some(count) = lineage.records {
        records = behind(&connection, &response, count, &lineage.page_token).await?;
    }
    if !context.output.for_people() {
        context.output.value(&json!({
            "answer": answer.as_ref().map(json),
            "lineage": json(&response),
            "records": records.iter().map(|(dataset, page)| json!({"dataset": dataset, "page": json(page)})).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    if let Some(answer) = &answer {
        let text = if answer.completion.is_empty() {
            String::new()
        } else {
            format!(" “{}”", words::excerpt(&answer.completion, 60))
        };
        output::line(&format!("answer {}{text}\nwritten by", answer.name));
    }
    output::line(&tree::draw(&response));
    for (dataset, page) in &records {
        let rows = page.records.iter().map(|record| {
            let about = record.metadata.values().map(String::as_str).collect::<Vec<_>>().join(" ");
            vec![
                record.digest.clone(),
                record.origin.clone(),
                words::count(record.text_bytes),
                about,
                words::excerpt(&record.excerpt, 40),
            ]
        });
        output::line(&format!("\nrecords of {dataset}"));
        output::line(&output::table(&["RECORD", "ORIGIN", "BYTES", "METADATA", "BEGINS"], rows.collect()));
        if !page.next_page_token.is_empty() {
            output::line(&format!("  more: --page-token {}", page.next_page_token));
        }
    }
    Ok(())
}

/// The answer, where one is meant, and the lineage of it or of what else is meant.
async fn walk(connection: &Connection, of: &str) -> Result<(Option<Answer>, GetLineageResponse), Failure> {
    let lineage = async |id: &str| {
        let request = GetLineageRequest { id: id.to_owned(), ..Default::default() };
        Ok::<_, Status>(connection.registry().get_lineage(request).await?.into_inner())
    };
    let not_found = match is_answer(of) {
        true => None,
        false => match lineage(of).await {
            // An answer's bare id looks like digits of a digest.
            Err(status) if status.code() == Code::NotFound && !of.contains(['/', ':']) => Some(status),
            response => return Ok((None, response?)),
        },
    };
    let request = GetAnswerRequest { name: answer_name(of) };
    match (connection.inference().get_answer(request).await, not_found) {
        (Ok(answer), _) => {
            let answer = answer.into_inner();
            let response = lineage(&answer.model_digest).await?;
            Ok((Some(answer), response))
        }
        (Err(_), Some(status)) => Err(status.into()),
        (Err(status), None) => Err(status.into()),
    }
}

/// Answers are named by their collection, or by the ids that the HTTP API gives them.
fn is_answer(of: &str) -> bool {
    of.starts_with("answers/") || of.starts_with("cmpl-") || of.starts_with("chatcmpl-")
}

type Page = tidemill_proto::ingestion::v1::ListRecordsResponse;

/// A page of records of each raw dataset version reached.
async fn behind(
    connection: &Connection,
    lineage: &GetLineageResponse,
    page_size: i32,
    page_token: &str,
) -> Result<Vec<(String, Page)>, Failure> {
    let mut found = Vec::new();
    let raw =
        lineage.nodes.iter().filter(|node| node.r#type() == Type::Dataset && node.resource.contains("/versions/"));
    let mut failed = None;
    for node in raw {
        let request = ListRecordsRequest {
            parent: node.resource.clone(),
            page_size,
            page_token: page_token.to_owned(),
            filter: String::new(),
        };
        match connection.ingestion().list_records(request).await {
            Ok(page) => found.push((node.resource.clone(), page.into_inner())),
            // A page token belongs to one dataset; the others refuse it.
            Err(status) => failed = Some(status),
        }
    }
    match failed {
        Some(status) if found.is_empty() => Err(status.into()),
        _ => Ok(found),
    }
}
