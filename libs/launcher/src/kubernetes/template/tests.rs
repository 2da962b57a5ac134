use super::*;

const TEMPLATE: &str = "
apiVersion: batch/v1
kind: Job
metadata:
  name: worker
  labels: {kueue.x-k8s.io/queue-name: gpu}
spec:
  backoffLimit: 3
  ttlSecondsAfterFinished: 86400
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions: [{type: DisruptionTarget, status: \"True\"}]
  template:
    metadata:
      labels: {app.kubernetes.io/component: training-worker}
    spec:
      restartPolicy: OnFailure
      nodeSelector: {pool: gpu}
      tolerations: [{key: nvidia.com/gpu, operator: Exists}]
      containers:
        - name: worker
          image: registry/tidemill-training:1
          args: [--old]
          env:
            - {name: KEPT, value: $(HOME)}
            - {name: TOLD, value: template}
          resources: {limits: {nvidia.com/gpu: 1}}
        - name: side
          image: side
";

fn worker() -> Worker {
    Worker {
        id: "training-1_A".to_owned(),
        command: vec!["/bin/x".to_owned(), "a $(b) $c $".to_owned()],
        env: vec![("TOLD".to_owned(), "$(KEPT)".to_owned())],
        ranks: 1,
    }
}

#[test]
fn what_the_template_says_of_the_pod_is_kept() {
    let job = Template::parse(TEMPLATE).unwrap().job(&worker()).unwrap();
    assert_eq!(job.metadata.labels.as_ref().unwrap()["kueue.x-k8s.io/queue-name"], "gpu");
    let spec = job.spec.unwrap();
    assert_eq!(spec.ttl_seconds_after_finished, Some(86400));
    assert_eq!(spec.pod_failure_policy.unwrap().rules[0].action, "Ignore");
    assert_eq!(spec.template.metadata.unwrap().labels.unwrap()["app.kubernetes.io/component"], "training-worker");
    let pod = spec.template.spec.unwrap();
    assert_eq!(pod.node_selector.unwrap()["pool"], "gpu");
    assert_eq!(pod.tolerations.unwrap()[0].key.as_deref(), Some("nvidia.com/gpu"));
    assert_eq!(pod.containers[0].resources.as_ref().unwrap().limits.as_ref().unwrap()["nvidia.com/gpu"].0, "1");
    assert_eq!(pod.containers[1].command, None);
}

#[test]
fn a_job_runs_its_worker_once_and_by_its_exact_words() {
    let template = Template::parse(TEMPLATE).unwrap();
    assert_eq!(template.container(), "worker");
    let job = template.job(&worker()).unwrap();
    let name = job.metadata.name.unwrap();
    assert_eq!(job.metadata.annotations.unwrap()[WORKER_ID], "training-1_A");
    let spec = job.spec.unwrap();
    assert_eq!((spec.completions, spec.parallelism, spec.backoff_limit), (Some(1), Some(1), Some(0)));
    assert_eq!((spec.completion_mode.as_deref(), spec.backoff_limit_per_index), (Some("Indexed"), None));
    assert_eq!(spec.pod_replacement_policy.as_deref(), Some("Failed"));
    assert_eq!(spec.template.metadata.unwrap().labels.unwrap()[WORKER], name);
    let pod = spec.template.spec.unwrap();
    assert_eq!((pod.restart_policy.as_deref(), pod.automount_service_account_token), (Some("Never"), Some(false)));
    let container = &pod.containers[0];
    assert_eq!(container.command.as_deref().unwrap(), ["/bin/x", "a $$(b) $$c $$"]);
    assert_eq!(container.args, None);
    assert_eq!(environment(container), [("KEPT", "$(HOME)"), ("TOLD", "$$(KEPT)"), ("WORLD_SIZE", "1")]);
}

fn environment(container: &k8s_openapi::api::core::v1::Container) -> Vec<(&str, &str)> {
    let variables = container.env.as_deref().unwrap_or_default();
    variables.iter().map(|variable| (variable.name.as_str(), variable.value.as_deref().unwrap_or_default())).collect()
}

#[test]
fn a_worker_of_several_ranks_has_a_pod_for_each_that_finds_the_first_and_is_never_replaced() {
    let template =
        Template::parse(&TEMPLATE.replace("nodeSelector:", "subdomain: ranks\n      nodeSelector:")).unwrap();
    let job = template.job(&Worker { ranks: 3, ..worker() }).unwrap();
    let (name, spec) = (job.metadata.name.unwrap(), job.spec.unwrap());
    assert_eq!(
        (spec.completion_mode.as_deref(), spec.completions, spec.parallelism),
        (Some("Indexed"), Some(3), Some(3))
    );
    assert_eq!((spec.backoff_limit, spec.backoff_limit_per_index, spec.pod_failure_policy), (None, Some(0), None));
    let pod = spec.template.spec.unwrap();
    let env = environment(&pod.containers[0]);
    assert_eq!(env[2..], [("WORLD_SIZE", "3"), ("MASTER_ADDR", &format!("{name}-0.ranks"))]);
    // The longest name of a host that a Job can ask for.
    assert!(job_name(&"a".repeat(100)).len() + "-4294967295".len() <= 63);

    let text = Template::parse(TEMPLATE).unwrap().job(&Worker { ranks: 2, ..worker() }).unwrap_err();
    assert!(text.contains("spec.template.spec.subdomain"), "{text}");
    let told = TEMPLATE.replace("{name: KEPT, value: $(HOME)}", "{name: MASTER_ADDR, value: rank.example}");
    let job = Template::parse(&told).unwrap().job(&Worker { ranks: 2, ..worker() }).unwrap();
    let pod = job.spec.unwrap().template.spec.unwrap();
    assert_eq!(environment(&pod.containers[0])[0], ("MASTER_ADDR", "rank.example"));
}

#[test]
fn ids_become_names_that_a_cluster_accepts_and_that_differ() {
    let long = "Training_".repeat(11);
    let ids = ["a", "A", "a-", "a_", "-", "1", "0193c5c2-7a60-7000-8000-000000000000", &long];
    let names: std::collections::BTreeSet<String> = ids.iter().map(|id| job_name(id)).collect();
    assert_eq!(names.len(), ids.len());
    for name in names {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(name.len() <= 57 && name.bytes().all(plain), "{name}");
        assert!(name.starts_with(|first: char| first.is_ascii_lowercase()), "{name}");
    }
    assert_eq!(job_name("a"), job_name("a"));
}

#[test]
fn a_wrong_template_is_refused_by_field() {
    for (from, to, hint) in [
        ("nodeSelector", "nodeSelectr", "spec.template.spec.nodeSelectr"),
        ("image: side", "imag: side", "spec.template.spec.containers[1].imag"),
        ("kind: Job", "kind: Pod", "Job"),
        ("name: worker\n          image", "image", "containers[0].name"),
    ] {
        let text = TEMPLATE.replacen(from, to, 1);
        assert_ne!(text, TEMPLATE);
        let error = Template::parse(&text).unwrap_err();
        assert!(error.contains(hint), "{error}");
    }
    let error = Template::parse("apiVersion: batch/v1\nkind: Job\nspec: {template: {spec: {}}}").unwrap_err();
    assert!(error.contains("containers"), "{error}");
}
