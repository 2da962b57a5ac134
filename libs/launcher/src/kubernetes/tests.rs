//! The promises, through a real API server and a node that runs pods (`tests/cluster/run` starts both), as a service account with
//! README.md's Role. Each test has a namespace of its own, which enforces the `restricted` pod security standard.

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, EvictParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use super::*;
use crate::contract;

mod ranks;

/// Names the kubeconfig of an administrator.
const CLUSTER: &str = "TIDEMILL_TEST_KUBERNETES";

const TEMPLATE: &str = r#"
apiVersion: batch/v1
kind: Job
spec:
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions: [{type: DisruptionTarget, status: "True"}]
  template:
    spec:
      subdomain: ranks
      shareProcessNamespace: true
      securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: worker
          image: tidemill-training
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
"#;

macro_rules! promises {
    ($($promise:ident)*) => {
        mod promises {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let Some(here) = Here::new().await else { return };
                contract::$promise(&here.launcher(TEMPLATE).await).await;
                here.remove().await;
            })*
        }
    };
}

promises! {
    starting_an_id_twice_gives_one_worker
    an_exit_code_is_seen
    a_missing_program_is_seen
    a_killed_worker_is_seen
    a_terminated_worker_finishes
    a_signal_to_nobody_changes_nothing
    output_is_kept
    a_worker_gets_its_arguments_and_environment
    a_reaped_worker_is_forgotten
    many_may_wait
    a_strange_worker_is_refused
}

/// A namespace with a service account that has the Role.
struct Here {
    admin: Client,
    namespace: String,
    /// The service account's kubeconfig.
    account: serde_json::Value,
}

impl Here {
    /// `None` without a cluster.
    async fn new() -> Option<Here> {
        let Ok(kubeconfig) = std::env::var(CLUSTER) else {
            println!("skipped: kubernetes contract: {CLUSTER} is not set; run tests/cluster/run");
            return None;
        };
        let admin = Kubeconfig::read_from(kubeconfig).unwrap();
        let cluster = admin.clusters[0].cluster.clone().unwrap();
        let admin = client(admin).await;
        let namespace: Namespace = of(json!({ "metadata": {
            "generateName": "launcher-",
            "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
        } }));
        let namespace = Api::all(admin.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let namespace = namespace.metadata.name.unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &namespace);
        accounts.create(&PostParams::default(), &of(json!({ "metadata": { "name": "launcher" } }))).await.unwrap();
        let roles: Api<Role> = Api::namespaced(admin.clone(), &namespace);
        roles.create(&PostParams::default(), &role()).await.unwrap();
        let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), &namespace);
        let binding = of(json!({
            "metadata": { "name": "launcher" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "launcher" },
            "subjects": [{ "kind": "ServiceAccount", "name": "launcher", "namespace": namespace }],
        }));
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        let request: TokenRequest = of(json!({ "spec": { "audiences": [] } }));
        let request = serde_json::to_value(&request).unwrap();
        let granted: serde_json::Value =
            accounts.create_subresource("token", "launcher", &PostParams::default(), &request).await.unwrap();
        let account = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{ "name": "a", "cluster": cluster }],
            "users": [{ "name": "a", "user": { "token": granted["status"]["token"] } }],
            "contexts": [{ "name": "a", "context": { "cluster": "a", "user": "a", "namespace": namespace } }],
        });
        Some(Here { admin, namespace, account })
    }

    async fn client(&self) -> Client {
        client(of(self.account.clone())).await
    }

    async fn launcher(&self, template: &str) -> Arc<dyn Launcher> {
        let template = Template::parse(template).unwrap();
        Arc::new(KubernetesLauncher::new("kubernetes:///", self.client().await, &self.namespace, template))
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Not on failure: what is there then tells why.
    async fn remove(self) {
        let namespaces: Api<Namespace> = Api::all(self.admin);
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

async fn client(kubeconfig: Kubeconfig) -> Client {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// The Role that README.md asks operators for.
fn role() -> Role {
    let readme = include_str!("../../README.md");
    let block = readme.split("```yaml\n").find(|block| block.contains("kind: Role")).unwrap();
    serde_saphyr::from_str(block.split("```").next().unwrap()).unwrap()
}

fn script(id: &str, script: &str) -> Worker {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Worker { id: id.to_owned(), command, env: Vec::new(), ranks: 1 }
}

async fn handle(launcher: &Arc<dyn Launcher>, id: &str) -> String {
    match launcher.status(id).await.unwrap() {
        Status::Running { handle } => handle,
        other => panic!("{other:?}"),
    }
}

async fn until_output(launcher: &Arc<dyn Launcher>, id: &str, expected: &str) {
    let reached = async {
        while launcher.log(id, 0).await.unwrap() != expected.as_bytes() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
}

#[tokio::test]
async fn the_service_account_may_do_what_the_role_says_and_nothing_wider() {
    let Some(here) = Here::new().await else { return };
    let review: SelfSubjectRulesReview = of(json!({ "spec": { "namespace": here.namespace } }));
    let account = here.client().await;
    let review = Api::all(account.clone()).create(&PostParams::default(), &review).await.unwrap();
    let rules = |rules: Vec<(Vec<String>, Vec<String>, Vec<String>)>| -> std::collections::BTreeSet<String> {
        let each = |(groups, resources, verbs): (Vec<String>, Vec<String>, Vec<String>)| {
            let mut each = Vec::new();
            for (group, resource) in groups.iter().flat_map(|group| resources.iter().map(move |r| (group, r))) {
                each.extend(verbs.iter().map(|verb| format!("{group}/{resource} {verb}")));
            }
            each
        };
        rules.into_iter().flat_map(each).collect()
    };
    let may = review
        .status
        .unwrap()
        .resource_rules
        .into_iter()
        .map(|rule| (rule.api_groups.unwrap_or_default(), rule.resources.unwrap_or_default(), rule.verbs));
    // Everybody may ask what he himself may.
    let may: std::collections::BTreeSet<String> =
        rules(may.collect()).into_iter().filter(|rule| !rule.contains("/self")).collect();
    let role = role()
        .rules
        .unwrap()
        .into_iter()
        .map(|rule| (rule.api_groups.unwrap_or_default(), rule.resources.unwrap_or_default(), rule.verbs));
    assert_eq!(may, rules(role.collect()));
    // Said, and done: other namespaces, other resources, other verbs.
    let elsewhere: Api<Job> = Api::namespaced(account.clone(), "default");
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(account.clone(), &here.namespace);
    let pods: Api<Pod> = Api::namespaced(account.clone(), &here.namespace);
    let pod = of(json!({ "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "a", "image": "a" }] } }));
    for refused in [
        elsewhere.list(&ListParams::default()).await.map(drop),
        secrets.list(&ListParams::default()).await.map(drop),
        pods.create(&PostParams::default(), &pod).await.map(drop),
    ] {
        assert!(matches!(refused, Err(kube::Error::Api(status)) if status.is_forbidden()));
    }
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_known_to_the_next_launcher_with_its_output() {
    let Some(here) = Here::new().await else { return };
    let launcher = here.launcher(TEMPLATE).await;
    launcher
        .start(&script("a", "trap 'echo saved; exit 5' TERM; echo up; while :; do sleep 0.02; done"))
        .await
        .unwrap();
    until_output(&launcher, "a", "up\n").await;
    let (pod, next) = (handle(&launcher, "a").await, here.launcher(TEMPLATE).await);
    assert_eq!(handle(&next, "a").await, pod);
    next.start(&script("a", "exit 1")).await.unwrap();
    next.signal("a", Signal::Terminate).await.unwrap();
    assert_eq!(next.wait("a").await.unwrap(), Exit::Code(5));
    let third = here.launcher(TEMPLATE).await;
    assert_eq!(third.status("a").await.unwrap(), Status::Exited(Exit::Code(5)));
    assert_eq!(third.log("a", 0).await.unwrap(), b"up\nsaved\n");
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disrupted_worker_runs_again_in_another_pod_and_its_output_goes_on() {
    let Some(here) = Here::new().await else { return };
    let launcher = here.launcher(TEMPLATE).await;
    launcher.start(&script("a", "echo up; exec sleep 1000")).await.unwrap();
    until_output(&launcher, "a", "up\n").await;
    let first = handle(&launcher, "a").await;
    here.pods().evict(&first, &EvictParams::default()).await.unwrap();
    until_output(&launcher, "a", "up\nup\n").await;
    assert_ne!(handle(&launcher, "a").await, first);
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_finds_no_room_waits_and_can_be_ended_and_reaped() {
    let Some(here) = Here::new().await else { return };
    let nowhere = TEMPLATE.replace("shareProcessNamespace: true", "nodeSelector: {pool: nowhere}");
    let queued = TEMPLATE.replace("podFailurePolicy:", "suspend: true\n  podFailurePolicy:");
    for (template, signal, number) in [
        (&nowhere, Signal::Terminate, 15),
        (&nowhere, Signal::Kill, 9),
        (&queued, Signal::Terminate, 15),
        (&queued, Signal::Kill, 9),
    ] {
        let launcher = here.launcher(template).await;
        launcher.start(&script("a", "exit 0")).await.unwrap();
        handle(&launcher, "a").await;
        assert_eq!(launcher.log("a", 0).await.unwrap(), b"");
        launcher.signal("a", signal).await.unwrap();
        let exit = tokio::time::timeout(PATIENCE, launcher.wait("a")).await.unwrap();
        assert_eq!(exit.unwrap(), Exit::Signal(number), "{template}");
        launcher.start(&script("a", "exit 0")).await.unwrap();
        assert_eq!(launcher.status("a").await.unwrap(), Status::Exited(Exit::Signal(number)));
        launcher.reap("a").await.unwrap();
        assert_eq!(launcher.status("a").await.unwrap(), Status::Unknown);
    }
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_that_name_that_is_not_ours_is_left_alone() {
    let Some(here) = Here::new().await else { return };
    let launcher = here.launcher(TEMPLATE).await;
    let mut foreign = Template::parse(TEMPLATE).unwrap().job(&script("a", "exit 0")).unwrap();
    foreign.metadata.annotations = None;
    let jobs: Api<Job> = Api::namespaced(here.admin.clone(), &here.namespace);
    jobs.create(&PostParams::default(), &foreign).await.unwrap();
    let text = launcher.start(&script("a", "exit 0")).await.unwrap_err().to_string();
    assert!(text.contains("not ours"), "{text}");
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_the_namespace_refuses_is_seen_as_pending_and_a_wrong_job_as_wrong() {
    let Some(here) = Here::new().await else { return };
    let root = here.launcher(&TEMPLATE.replace("runAsNonRoot: true, runAsUser: 65532", "runAsUser: 0")).await;
    root.start(&script("a", "exit 0")).await.unwrap();
    assert_eq!(handle(&root, "a").await, "pending");
    root.reap("a").await.unwrap();
    let wrong = here
        .launcher(
            &TEMPLATE.replace("image: tidemill-training", "image: tidemill-training\n          imagePullPolicy: Often"),
        )
        .await;
    let error = wrong.start(&script("a", "exit 0")).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid { reason, .. } if reason.contains("imagePullPolicy")), "{error}");
    here.remove().await;
}

/// Stands between a client and the API server; while cut, connections end and new ones are refused.
struct Cable {
    url: String,
    whole: tokio::sync::watch::Sender<bool>,
}

impl Cable {
    async fn to(server: &str) -> Cable {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (whole, watched) = tokio::sync::watch::channel(true);
        let server = server.trim_start_matches("https://").to_owned();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (server, mut watched) = (server.clone(), watched.clone());
                tokio::spawn(async move {
                    if !*watched.borrow() {
                        return;
                    }
                    let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = watched.wait_for(|whole| !whole) => {}
                    }
                });
            }
        });
        Cable { url, whole }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_and_an_output_outlast_an_api_server_that_is_away() {
    let Some(here) = Here::new().await else { return };
    let cable = Cable::to(here.account["clusters"][0]["cluster"]["server"].as_str().unwrap()).await;
    let mut account = here.account.clone();
    account["clusters"][0]["cluster"]["server"] = cable.url.clone().into();
    let template = Template::parse(TEMPLATE).unwrap();
    let far = KubernetesLauncher::new("kubernetes:///", client(of(account)).await, &here.namespace, template);
    let (far, near): (Arc<dyn Launcher>, _) = (Arc::new(far), here.launcher(TEMPLATE).await);
    far.start(&script("a", "trap 'echo saved; exit 5' TERM; echo up; while :; do sleep 0.02; done")).await.unwrap();
    until_output(&far, "a", "up\n").await;
    let wait = tokio::spawn({
        let far = far.clone();
        async move { far.wait("a").await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    cable.whole.send_replace(false);
    assert!(matches!(far.status("a").await, Err(Error::Unavailable { .. })));
    near.signal("a", Signal::Terminate).await.unwrap();
    assert_eq!(near.wait("a").await.unwrap(), Exit::Code(5));
    assert!(!wait.is_finished());
    cable.whole.send_replace(true);
    assert_eq!(tokio::time::timeout(Duration::from_secs(15), wait).await.unwrap().unwrap().unwrap(), Exit::Code(5));
    assert_eq!(far.log("a", 0).await.unwrap(), b"up\nsaved\n");
    here.remove().await;
}

#[tokio::test]
async fn while_the_api_is_away_every_call_says_so() {
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = Config::new(format!("http://127.0.0.1:{port}").parse().unwrap());
    let template = Template::parse(TEMPLATE).unwrap();
    let client = Client::try_from(config).unwrap();
    let launcher = KubernetesLauncher::new("kubernetes:///ml?job_template=/a", client, "ml", template);
    let away = |error: Error| {
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("kubernetes:///ml"), "{error}");
    };
    away(launcher.start(&script("a", "exit 0")).await.unwrap_err());
    away(launcher.status("a").await.unwrap_err());
    // Who waits goes on waiting.
    assert!(tokio::time::timeout(Duration::from_secs(1), launcher.wait("a")).await.is_err());
    away(launcher.signal("a", Signal::Kill).await.unwrap_err());
    away(launcher.log("a", 0).await.unwrap_err());
    away(launcher.reap("a").await.unwrap_err());
}

#[tokio::test]
async fn a_url_that_cannot_be_opened_is_named_with_the_remedy() {
    for (url, hint) in [
        ("kubernetes:///ml", "job_template is missing"),
        ("kubernetes:///ml?job_template=/no/such/file", "/no/such/file"),
    ] {
        let text = crate::connect(url).await.map(drop).unwrap_err().to_string();
        assert!(text.contains(url) && text.contains(hint), "{text}");
    }
}
