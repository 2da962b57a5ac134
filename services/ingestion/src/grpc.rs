//! The service's API: validate, call the store or the jobs, map errors.

use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_artifacts::Artifacts;
use tidemill_chassis::Fault;
use tidemill_platform::{Jobs, Platform, event, fault_of_resources};
use tidemill_proto::event::v1::FeedbackCreated;
use tidemill_proto::ingestion::v1::dataset_version::Origin;
use tidemill_proto::ingestion::v1::ingestion_service_server::IngestionService;
use tidemill_proto::ingestion::v1::*;
use tidemill_proto::{Meta, Resource, names, topics};
use tidemill_resources::{Collection, ListPage, OutboxEvent, Page};
use tonic::{Request, Response, Status};

use crate::feedback::is_usable;
use crate::settings::IngestionSettings;
use crate::{kept, validate};

type Answer<T> = Result<Response<T>, Status>;

/// The handlers' state.
pub(crate) struct Handlers {
    sources: Collection<DataSource>,
    datasets: Collection<Dataset>,
    feedback: Collection<Feedback>,
    jobs: Jobs<DatasetVersion>,
    artifacts: Artifacts,
    settings: IngestionSettings,
}

impl Handlers {
    pub(crate) fn new(settings: &IngestionSettings, platform: &Platform, jobs: Jobs<DatasetVersion>) -> Self {
        Self {
            settings: settings.clone(),
            sources: platform.collection(),
            datasets: platform.collection(),
            feedback: platform.collection(),
            jobs,
            artifacts: platform.artifacts.clone(),
        }
    }

    async fn feedback_page(&self, request: ListFeedbacksRequest) -> Result<Page<Feedback>, Fault> {
        let model = match request.filter.split_once('=') {
            None if request.filter.trim().is_empty() => None,
            Some((field, value)) if field.trim() == "model" => Some(value.trim().trim_matches('"').to_owned()),
            _ => {
                let text = format!("{:?} should look like `model = models/sotu`, or be empty", request.filter);
                return Err(Fault::invalid("filter", text));
            }
        };
        let mut page = page(String::new(), request.page_size, request.page_token);
        page.arguments_hash = request.filter;
        let mut found = self.feedback.list(page).await.map_err(fault_of_resources)?;
        found.items.retain(|feedback| model.as_ref().is_none_or(|model| feedback.model == *model));
        Ok(found)
    }

    /// Refuses an origin that does not exist.
    async fn check_origin(&self, origin: Option<&Origin>) -> Result<(), Fault> {
        match origin {
            Some(Origin::DataSource(name)) => drop(self.sources.get(name).await.map_err(fault_of_resources)?),
            Some(Origin::Feedback(selection)) => {
                for name in &selection.feedback {
                    self.feedback.get(name).await.map_err(fault_of_resources)?;
                }
            }
            None => {}
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl IngestionService for Handlers {
    type WatchDatasetVersionStream = BoxStream<'static, Result<DatasetVersion, Status>>;

    async fn create_data_source(&self, request: Request<CreateDataSourceRequest>) -> Answer<DataSource> {
        let request = request.into_inner();
        let source = request.data_source.unwrap_or_default();
        validate::check(validate::source(source.spec.as_ref(), &self.settings))?;
        create(&self.sources, source, &request.data_source_id, &request.request_id, |_| Vec::new()).await
    }

    async fn get_data_source(&self, request: Request<GetDataSourceRequest>) -> Answer<DataSource> {
        get(&self.sources, &request.get_ref().name).await
    }

    async fn list_data_sources(&self, request: Request<ListDataSourcesRequest>) -> Answer<ListDataSourcesResponse> {
        let request = request.into_inner();
        let page = page(String::new(), request.page_size, request.page_token);
        let Page { items: data_sources, next_page_token } =
            self.sources.list(page).await.map_err(fault_of_resources)?;
        Ok(Response::new(ListDataSourcesResponse { data_sources, next_page_token }))
    }

    async fn create_dataset(&self, request: Request<CreateDatasetRequest>) -> Answer<Dataset> {
        let request = request.into_inner();
        let dataset = request.dataset.unwrap_or_default();
        create(&self.datasets, dataset, &request.dataset_id, &request.request_id, |_| Vec::new()).await
    }

    async fn get_dataset(&self, request: Request<GetDatasetRequest>) -> Answer<Dataset> {
        get(&self.datasets, &request.get_ref().name).await
    }

    async fn list_datasets(&self, request: Request<ListDatasetsRequest>) -> Answer<ListDatasetsResponse> {
        let request = request.into_inner();
        let page = page(String::new(), request.page_size, request.page_token);
        let Page { items: datasets, next_page_token } = self.datasets.list(page).await.map_err(fault_of_resources)?;
        Ok(Response::new(ListDatasetsResponse { datasets, next_page_token }))
    }

    async fn create_dataset_version(&self, request: Request<CreateDatasetVersionRequest>) -> Answer<DatasetVersion> {
        let request = request.into_inner();
        let version = request.dataset_version.unwrap_or_default();
        let mut wrong = validate::origin(version.origin.as_ref());
        wrong.extend(validate::topic_end(&version));
        if let Err(reason) = validate::one_name(&request.parent, "datasets/-") {
            wrong.push(("parent".to_owned(), reason));
        }
        validate::check(wrong)?;
        self.datasets.get(&request.parent).await.map_err(fault_of_resources)?;
        self.check_origin(version.origin.as_ref()).await?;
        let DatasetVersion { labels, origin, topic_end, .. } = version;
        let version = DatasetVersion { labels, origin, topic_end, ..DatasetVersion::default() };
        let id = request.dataset_version_id.as_str();
        Ok(Response::new(self.jobs.create(version, &request.parent, id, &request.request_id).await?))
    }

    async fn get_dataset_version(&self, request: Request<GetDatasetVersionRequest>) -> Answer<DatasetVersion> {
        Ok(Response::new(self.jobs.get(&request.get_ref().name).await?))
    }

    async fn list_dataset_versions(
        &self,
        request: Request<ListDatasetVersionsRequest>,
    ) -> Answer<ListDatasetVersionsResponse> {
        let request = request.into_inner();
        let ids = names::ids(&request.parent, "datasets/-").map_err(|e| Fault::invalid("parent", e.to_string()))?;
        let prefix = if ids[0] == "-" { String::new() } else { format!("{}/versions/", request.parent) };
        let found = self.jobs.list(page(prefix, request.page_size, request.page_token)).await?;
        let Page { items: dataset_versions, next_page_token } = found;
        Ok(Response::new(ListDatasetVersionsResponse { dataset_versions, next_page_token }))
    }

    async fn watch_dataset_version(
        &self,
        request: Request<WatchDatasetVersionRequest>,
    ) -> Answer<Self::WatchDatasetVersionStream> {
        Ok(Response::new(self.jobs.watch(&request.get_ref().name).await?.boxed()))
    }

    async fn cancel_dataset_version(&self, request: Request<CancelDatasetVersionRequest>) -> Answer<DatasetVersion> {
        Ok(Response::new(self.jobs.cancel(&request.get_ref().name).await?))
    }

    async fn list_records(&self, request: Request<ListRecordsRequest>) -> Answer<ListRecordsResponse> {
        let request = request.into_inner();
        validate::one_name(&request.parent, "datasets/-/versions/-").map_err(|text| Fault::invalid("parent", text))?;
        let version = self.jobs.get(&request.parent).await?;
        Ok(Response::new(kept::list(&self.artifacts, &version, &request).await?))
    }

    async fn create_feedback(&self, request: Request<CreateFeedbackRequest>) -> Answer<Feedback> {
        let request = request.into_inner();
        let feedback = request.feedback.unwrap_or_default();
        validate::check(validate::feedback(&feedback))?;
        // An answer may be empty, because a model may end at once; a prompt too. Both at once is text that nobody kept.
        if feedback.prompt.is_empty() && feedback.completion.is_empty() {
            let text =
                format!("the text of {} was not kept: send feedback.prompt and feedback.completion", feedback.answer);
            return Err(Fault::precondition("ANSWER_TEXT_MISSING", &feedback.answer, text).into());
        }
        create(&self.feedback, feedback, &request.feedback_id, &request.request_id, |feedback| {
            let payload = FeedbackCreated {
                feedback: feedback.name.clone(),
                model: feedback.model.clone(),
                usable: is_usable(feedback),
            };
            vec![event(topics::FEEDBACK_EVENTS, &feedback.name, &payload)]
        })
        .await
    }

    async fn get_feedback(&self, request: Request<GetFeedbackRequest>) -> Answer<Feedback> {
        get(&self.feedback, &request.get_ref().name).await
    }

    async fn list_feedbacks(&self, request: Request<ListFeedbacksRequest>) -> Answer<ListFeedbacksResponse> {
        let Page { items: feedback, next_page_token } = self.feedback_page(request.into_inner()).await?;
        Ok(Response::new(ListFeedbacksResponse { feedback, next_page_token }))
    }
}

fn page(name_prefix: String, page_size: i32, page_token: String) -> ListPage {
    ListPage { name_prefix, page_size, page_token, arguments_hash: String::new() }
}

async fn get<R: Resource>(collection: &Collection<R>, name: &str) -> Answer<R> {
    Ok(Response::new(collection.get(name).await.map_err(fault_of_resources)?))
}

/// Stores a resource under an id that the caller or, for a retry's sake, the request id gives.
async fn create<R: Resource>(
    collection: &Collection<R>,
    mut resource: R,
    id: &str,
    request_id: &str,
    events: impl FnOnce(&R) -> Vec<OutboxEvent>,
) -> Answer<R> {
    let id = match id {
        "" if !request_id.is_empty() => {
            uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, request_id.as_bytes()).simple().to_string()
        }
        "" => uuid::Uuid::now_v7().simple().to_string(),
        id => id.to_owned(),
    };
    names::check_id(&id).map_err(|error| Fault::invalid("id", error.to_string()))?;
    let name = R::COLLECTION.replace('-', &id);
    resource.set_meta(Meta { name, ..Meta::default() });
    let events = events(&resource);
    let request_id = (!request_id.is_empty()).then_some(request_id);
    let (resource, _created) = collection.create(&resource, request_id, events).await.map_err(fault_of_resources)?;
    Ok(Response::new(resource))
}
