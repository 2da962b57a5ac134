use super::*;

const DIGEST: &str = "sha256:candidate";

fn result(model: &str, dataset: &str, metrics: &[(&str, f64)]) -> EvaluationResult {
    EvaluationResult {
        evaluation: format!("evaluations/{}", dataset.replace(':', "-")),
        model_digest: model.to_owned(),
        dataset_digest: dataset.to_owned(),
        suite_digest: "sha256:suite".to_owned(),
        metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
    }
}

fn one(bound: Bound, candidate: Option<&EvaluationResult>, champion: Option<Champion<'_>>) -> Finding {
    let threshold = Threshold { metric: "bits_per_byte".to_owned(), bound: Some(bound) };
    let objective =
        ObjectiveSpec { task: "text-generation".to_owned(), thresholds: vec![threshold], ..Default::default() };
    judge(&objective, candidate, champion).remove(0)
}

#[test]
fn each_bound_holds_on_its_side_and_not_on_the_other() {
    let figures = result(DIGEST, "sha256:a", &[("bits_per_byte", 2.0), ("xz", 2.5), ("tied", 2.0), ("low", 1.0)]);
    for (bound, holds, words) in [
        (Bound::Max(2.0), true, "bits_per_byte 2 is at most 2: holds"),
        (Bound::Max(1.9), false, "bits_per_byte 2 is not at most 1.9: does not hold"),
        (Bound::Min(2.0), true, "bits_per_byte 2 is at least 2: holds"),
        (Bound::Min(2.1), false, "bits_per_byte 2 is not at least 2.1: does not hold"),
        (Bound::BelowMetric("xz".to_owned()), true, "bits_per_byte 2 is below xz 2.5: holds"),
        (Bound::BelowMetric("tied".to_owned()), false, "bits_per_byte 2 is not below tied 2: does not hold"),
        (Bound::BelowMetric("low".to_owned()), false, "bits_per_byte 2 is not below low 1: does not hold"),
        (Bound::AboveMetric("low".to_owned()), true, "bits_per_byte 2 is above low 1: holds"),
        (Bound::AboveMetric("tied".to_owned()), false, "bits_per_byte 2 is not above tied 2: does not hold"),
    ] {
        let finding = one(bound, Some(&figures), None);
        assert_eq!((finding.holds, finding.text.as_str()), (holds, words));
    }
}

#[test]
fn what_was_not_measured_does_not_hold() {
    let figures = result(DIGEST, "sha256:a", &[("loss", 1.0)]);
    let nothing = one(Bound::Max(9.0), None, None);
    assert!(!nothing.holds && nothing.text.contains("no evaluation"), "{nothing:?}");
    let missing = one(Bound::Max(9.0), Some(&figures), None);
    assert!(!missing.holds && missing.text.contains("was not measured by evaluations/sha256-a"), "{missing:?}");
    let other = result(DIGEST, "sha256:a", &[("bits_per_byte", 1.0)]);
    let missing = one(Bound::BelowMetric("xz_bits_per_byte".to_owned()), Some(&other), None);
    assert!(!missing.holds && missing.text.contains("xz_bits_per_byte was not measured"), "{missing:?}");
}

#[test]
fn what_is_not_a_finite_number_does_not_hold() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let figures = result(DIGEST, "sha256:a", &[("bits_per_byte", value), ("xz", 2.0)]);
        for bound in
            [Bound::Max(9.0), Bound::Min(-9.0), Bound::BelowMetric("xz".to_owned()), Bound::MaxChampionRatio(1.0)]
        {
            let finding = one(bound, Some(&figures), None);
            assert!(!finding.holds && finding.text.contains("not a figure"), "{finding:?}");
        }
    }
    let figures = result(DIGEST, "sha256:a", &[("bits_per_byte", 1.0), ("xz", f64::NAN)]);
    assert!(!one(Bound::BelowMetric("xz".to_owned()), Some(&figures), None).holds);
    assert!(!one(Bound::Max(f64::NAN), Some(&figures), None).holds);
}

#[test]
fn the_first_champion_needs_no_comparison() {
    let figures = result(DIGEST, "sha256:a", &[("bits_per_byte", 2.0)]);
    let finding = one(Bound::MaxChampionRatio(0.5), Some(&figures), None);
    assert!(finding.holds && finding.text.contains("no champion"), "{finding:?}");
}

#[test]
fn the_champion_is_compared_on_the_same_data_only() {
    let figures = result(DIGEST, "sha256:b", &[("bits_per_byte", 2.0)]);
    let champion = |evaluations| Champion { name: "models/m/versions/1", digest: "sha256:old", evaluations };

    // Better on other data is no proof.
    let elsewhere = [result("sha256:old", "sha256:a", &[("bits_per_byte", 9.0)])];
    let finding = one(Bound::MaxChampionRatio(1.0), Some(&figures), Some(champion(&elsewhere)));
    assert!(!finding.holds && finding.text.contains("models/m/versions/1 was not measured on sha256:b"), "{finding:?}");
    assert!(finding.text.contains("it was on sha256:a"), "{finding:?}");

    // Nor are figures of another model on the same data.
    let another = [result("sha256:other", "sha256:b", &[("bits_per_byte", 9.0)])];
    assert!(!one(Bound::MaxChampionRatio(1.0), Some(&figures), Some(champion(&another))).holds);

    let same = [elsewhere[0].clone(), result("sha256:old", "sha256:b", &[("bits_per_byte", 2.1)])];
    let better = one(Bound::MaxChampionRatio(1.0), Some(&figures), Some(champion(&same)));
    assert!(better.holds && better.text.contains("the champion's 2.1"), "{better:?}");
    assert!(!one(Bound::MaxChampionRatio(0.9), Some(&figures), Some(champion(&same))).holds);

    let broken = [result("sha256:old", "sha256:b", &[("bits_per_byte", f64::NAN)])];
    assert!(!one(Bound::MaxChampionRatio(1.0), Some(&figures), Some(champion(&broken))).holds);
}

#[test]
fn the_newest_figures_of_the_very_digest_count() {
    let all = [
        result(DIGEST, "sha256:1", &[("x", 1.0)]),
        result(DIGEST, "sha256:2", &[("x", 2.0)]),
        result("sha256:other", "sha256:3", &[("x", 3.0)]),
    ];
    assert_eq!(newest(&all, DIGEST).unwrap().dataset_digest, "sha256:2");
    assert!(newest(&all, "sha256:none").is_none());
}

#[test]
fn every_threshold_gets_its_finding() {
    let figures = result(DIGEST, "sha256:a", &[("a", 1.0), ("b", 2.0)]);
    let threshold = |metric: &str, bound| Threshold { metric: metric.to_owned(), bound };
    let objective = ObjectiveSpec {
        thresholds: vec![
            threshold("a", Some(Bound::Max(1.0))),
            threshold("b", Some(Bound::Max(1.0))),
            threshold("a", None),
        ],
        ..Default::default()
    };
    let findings = judge(&objective, Some(&figures), None);
    assert_eq!(findings.iter().map(|finding| finding.holds).collect::<Vec<_>>(), [true, false, false]);
}
