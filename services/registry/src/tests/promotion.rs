//! Evaluations and the gate.

use tidemill_proto::event::v1::AliasMoved;
use tidemill_proto::r#type::v1::threshold::Bound;
use tidemill_proto::r#type::v1::{ObjectiveSpec, Threshold};

use super::*;

impl Registry {
    async fn objective(&mut self, id: &str, bounds: &[(&str, Bound)]) -> String {
        let thresholds = bounds
            .iter()
            .map(|(metric, bound)| Threshold { metric: (*metric).to_owned(), bound: Some(bound.clone()) })
            .collect();
        let spec = ObjectiveSpec { task: "text-generation".to_owned(), thresholds, ..Default::default() };
        let objective = Objective { spec: Some(spec), ..Objective::default() };
        let request =
            CreateObjectiveRequest { objective_id: id.to_owned(), objective: Some(objective), ..Default::default() };
        self.client.create_objective(request).await.unwrap().into_inner().name
    }

    /// A version with one figure: bits per byte on a dataset.
    async fn measured(&mut self, content: &str, data: &str, bits: f64) -> ModelVersion {
        let digest = self.artifact("model", content).await;
        let version = self.version("m", &digest).await.unwrap();
        self.measure(&version, data, bits).await.unwrap()
    }

    async fn measure(&mut self, version: &ModelVersion, data: &str, bits: f64) -> Result<ModelVersion, Status> {
        let result = EvaluationResult {
            evaluation: format!("evaluations/{}-{data}", names_end(&version.name)),
            model_digest: version.digest.clone(),
            dataset_digest: digest(data),
            suite_digest: digest("suite"),
            metrics: [("bits_per_byte".to_owned(), bits), ("xz_bits_per_byte".to_owned(), 2.5)].into(),
        };
        let request = RecordEvaluationRequest { name: version.name.clone(), result: Some(result) };
        Ok(self.client.record_evaluation(request).await?.into_inner())
    }

    async fn promote(
        &mut self,
        version: &str,
        objective: &str,
        request_id: &str,
    ) -> Result<PromoteModelVersionResponse, Status> {
        let request = PromoteModelVersionRequest {
            name: version.to_owned(),
            alias: "champion".to_owned(),
            objective: objective.to_owned(),
            request_id: request_id.to_owned(),
        };
        Ok(self.client.promote_model_version(request).await?.into_inner())
    }

    async fn champion(&mut self) -> Result<Alias, Status> {
        let name = "models/m/aliases/champion".to_owned();
        Ok(self.client.get_alias(GetAliasRequest { name }).await?.into_inner())
    }

    async fn get(&mut self, name: &str) -> ModelVersion {
        let request = GetModelVersionRequest { name: name.to_owned() };
        self.client.get_model_version(request).await.unwrap().into_inner()
    }

    async fn moves(&self) -> Vec<AliasMoved> {
        let pending = self.platform.resources.pending(100).await.unwrap();
        pending.iter().map(|pending| prost::Message::decode(pending.event.payload.clone()).unwrap()).collect()
    }
}

fn names_end(name: &str) -> &str {
    tidemill_proto::names::last_id(name)
}

async fn with_model() -> Registry {
    let mut registry = registry().await;
    registry.model("m").await;
    registry
}

#[tokio::test]
async fn figures_belong_to_the_version_of_that_very_digest_and_are_kept_once() {
    let mut registry = with_model().await;
    let first = registry.measured("a", "data", 2.0).await;
    assert_eq!(registry.measure(&first, "data", 2.0).await.unwrap(), first);
    assert_eq!(first.evaluations.len(), 1);
    let impostor = ModelVersion { digest: digest("other"), ..first.clone() };
    let status = registry.measure(&impostor, "again", 1.0).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains(&digest("other")), "{}", status.message());
}

#[tokio::test]
async fn an_alias_moves_when_every_threshold_holds() {
    let mut registry = with_model().await;
    let bounds =
        [("bits_per_byte", Bound::BelowMetric("xz_bits_per_byte".to_owned())), ("bits_per_byte", Bound::Max(2.2))];
    let objective = registry.objective("good", &bounds).await;
    let version = registry.measured("a", "data", 2.0).await;
    let response = registry.promote(&version.name, &objective, "").await.unwrap();
    let alias = response.alias.unwrap();
    assert_eq!((alias.model_version.as_str(), alias.digest.as_str()), (version.name.as_str(), version.digest.as_str()));
    assert_eq!((alias.move_count, alias.evaluation.as_str()), (1, "evaluations/1-data"));
    assert_eq!(registry.champion().await.unwrap(), alias);
    let decision = response.decision.unwrap();
    assert!(decision.passed);
    assert_eq!(decision.findings[0], "bits_per_byte 2 is below xz_bits_per_byte 2.5: holds");
    assert_eq!(registry.get(&version.name).await.decisions, [decision]);
    let moves = registry.moves().await;
    assert_eq!(moves.len(), 1);
    assert_eq!((moves[0].digest.as_str(), moves[0].previous_digest.as_str()), (version.digest.as_str(), ""));
}

#[tokio::test]
async fn a_refusal_names_each_unmet_threshold_and_leaves_the_champion() {
    let mut registry = with_model().await;
    let first = registry.measured("a", "data", 2.0).await;
    let objective = registry.objective("easy", &[("bits_per_byte", Bound::Max(9.0))]).await;
    registry.promote(&first.name, &objective, "").await.unwrap();
    let before = registry.champion().await.unwrap();

    let second = registry.measured("b", "data", 3.0).await;
    let bounds = [
        ("bits_per_byte", Bound::Max(2.2)),
        ("bits_per_byte", Bound::Min(1.0)),
        ("toxicity", Bound::Max(0.1)),
        ("bits_per_byte", Bound::MaxChampionRatio(1.0)),
    ];
    let strict = registry.objective("strict", &bounds).await;
    let status = registry.promote(&second.name, &strict, "").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "GATE_REFUSED");
    let violations = &details.precondition_failure().unwrap().violations;
    assert_eq!(
        violations.iter().map(|v| v.subject.as_str()).collect::<Vec<_>>(),
        ["bits_per_byte", "toxicity", "bits_per_byte"]
    );
    assert!(violations[2].description.contains("the champion's 2"), "{violations:?}");

    assert_eq!(registry.champion().await.unwrap(), before);
    assert_eq!(registry.moves().await.len(), 1);
    let decisions = registry.get(&second.name).await.decisions;
    assert_eq!((decisions.len(), decisions[0].passed, decisions[0].findings.len()), (1, false, 4));
}

#[tokio::test]
async fn a_version_without_an_evaluation_is_refused() {
    let mut registry = with_model().await;
    let objective = registry.objective("easy", &[("bits_per_byte", Bound::Max(9.0))]).await;
    let content = registry.artifact("model", "a").await;
    let version = registry.version("m", &content).await.unwrap();
    let status = registry.promote(&version.name, &objective, "").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(registry.champion().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn promoting_the_champion_changes_nothing() {
    let mut registry = with_model().await;
    let objective = registry.objective("easy", &[("bits_per_byte", Bound::Max(9.0))]).await;
    let version = registry.measured("a", "data", 2.0).await;
    let first = registry.promote(&version.name, &objective, "").await.unwrap();
    let stored = registry.get(&version.name).await;
    for request_id in ["", "again", "again"] {
        assert_eq!(registry.promote(&version.name, &objective, request_id).await.unwrap(), first);
    }
    assert_eq!(registry.get(&version.name).await, stored);
    assert_eq!(registry.moves().await.len(), 1);

    // A retry of a promotion that changed nothing does not bring the version back after another took its place.
    let second = registry.measured("b", "data", 1.9).await;
    registry.promote(&second.name, &objective, "").await.unwrap();
    registry.promote(&version.name, &objective, "again").await.unwrap();
    assert_eq!(registry.champion().await.unwrap().digest, second.digest);
}

#[tokio::test]
async fn a_retried_promotion_gives_the_first_answer_even_after_the_alias_moved_on() {
    let mut registry = with_model().await;
    let objective = registry.objective("easy", &[("bits_per_byte", Bound::Max(2.5))]).await;
    let first = registry.measured("a", "data", 2.0).await;
    let second = registry.measured("b", "data", 1.9).await;
    let answer = registry.promote(&first.name, &objective, "r1").await.unwrap();
    registry.promote(&second.name, &objective, "r2").await.unwrap();
    let again = registry.promote(&first.name, &objective, "r1").await.unwrap();
    assert_eq!(again.decision, answer.decision);
    assert_eq!(registry.champion().await.unwrap().digest, second.digest);
    assert_eq!(registry.moves().await.len(), 2);

    let bad = registry.measured("c", "data", 3.0).await;
    let refused = registry.promote(&bad.name, &objective, "r3").await.unwrap_err();
    let again = registry.promote(&bad.name, &objective, "r3").await.unwrap_err();
    assert_eq!(again.message(), refused.message());
    assert_eq!(again.details(), refused.details());
    assert_eq!(registry.get(&bad.name).await.decisions.len(), 1);

    let status = registry.promote(&bad.name, &objective, "r1").await.unwrap_err();
    assert_eq!(fields(&status), ["request_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_promoted_at_the_same_time_move_the_alias_one_after_another() {
    let mut registry = with_model().await;
    let objective = registry.objective("easy", &[("bits_per_byte", Bound::Max(9.0))]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..6 {
        let version = registry.measured(&format!("model {index}"), "data", 2.0).await;
        let (mut client, objective) = (registry.client.clone(), objective.clone());
        tasks.spawn(async move {
            let name = version.name;
            let request =
                PromoteModelVersionRequest { name, alias: "champion".to_owned(), objective, ..Default::default() };
            client.promote_model_version(request).await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(registry.champion().await.unwrap().move_count, 6);
    let moves = registry.moves().await;
    for pair in moves.windows(2) {
        assert_eq!(pair[1].previous_digest, pair[0].digest);
    }
    assert_eq!(moves.len(), 6);
}
