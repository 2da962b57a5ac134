use prost::Message;
use tidemill_proto::registry::v1::{Model, ModelVersion};

use super::*;

async fn models() -> Collection<Model> {
    Collection::new(crate::connect("sqlite::memory:").await.unwrap())
}

fn model(name: &str, description: &str) -> Model {
    Model { name: name.to_owned(), description: description.to_owned(), ..Model::default() }
}

fn event(id: &str) -> OutboxEvent {
    let id = id.to_owned();
    OutboxEvent {
        id,
        topic: "t".into(),
        key: "k".into(),
        event_type: "e".into(),
        payload: Bytes::new(),
        headers: vec![],
    }
}

#[tokio::test]
async fn what_the_store_knows_is_filled_in_and_what_a_caller_claims_is_not() {
    let models = models().await;
    let mut claimed = model("models/a", "first");
    (claimed.uid, claimed.etag) = ("mine".to_owned(), "mine".to_owned());
    claimed.create_time = Some(Timestamp { seconds: 1, nanos: 0 });
    let (created, true) = models.create(&claimed, None, Vec::new()).await.unwrap() else { panic!("not created") };
    assert_eq!((&*created.name, &*created.description), ("models/a", "first"));
    assert!(created.uid != "mine" && created.etag != "mine" && created.uid.len() == 36);
    let now = jiff::Timestamp::now().as_second();
    assert!(created.create_time.unwrap().seconds.abs_diff(now) < 60);
    assert_eq!(models.get("models/a").await.unwrap(), created);
    assert_eq!(models.list(ListPage::default()).await.unwrap().items, std::slice::from_ref(&created));
    assert_eq!(models.all("models/").await.unwrap(), std::slice::from_ref(&created));
    let raw = models.store().get("models/a").await.unwrap();
    assert_eq!(Model::decode(&raw.body[..]).unwrap().name, "", "the body repeats what stands beside it");
}

#[tokio::test]
async fn a_retried_create_says_that_it_created_nothing() {
    let models = models().await;
    let (first, created) = models.create(&model("models/a", "1"), Some("r"), vec![event("1")]).await.unwrap();
    assert!(created);
    let (second, created) = models.create(&model("models/a", "2"), Some("r"), vec![event("2")]).await.unwrap();
    assert!(!created);
    assert_eq!(second, first);
    let changed = models.replace(&Model { description: "3".to_owned(), ..first }, Vec::new()).await.unwrap();
    let late = models.create(&model("models/a", "1"), Some("r"), Vec::new()).await.unwrap();
    assert_eq!(late, (changed, false));
}

#[tokio::test]
async fn a_name_of_another_collection_is_refused() {
    let models = models().await;
    let versions = Collection::<ModelVersion>::new(models.store().clone());
    for name in ["", "models", "models/a/versions/1", "objectives/a"] {
        let error = models.create(&model(name, ""), None, Vec::new()).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { field, .. } if field == "name"));
    }
    models.create(&model("models/a", ""), None, Vec::new()).await.unwrap();
    assert!(matches!(versions.get("models/a").await, Err(Error::NotFound(_))));
    assert!(matches!(versions.delete("models/a", "x", Vec::new()).await, Err(Error::NotFound(_))));
    assert!(matches!(versions.delete("models/a", "", Vec::new()).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_replacement_needs_the_present_etag_or_none() {
    let models = models().await;
    let (first, _) = models.create(&model("models/a", "1"), None, Vec::new()).await.unwrap();
    let second =
        models.replace(&Model { description: "2".to_owned(), ..first.clone() }, vec![event("2")]).await.unwrap();
    assert_eq!((&second.uid, &*second.description), (&first.uid, "2"));
    assert!(matches!(models.replace(&first, Vec::new()).await, Err(Error::Conflict(_))));
    let third = models.replace(&model("models/a", "3"), Vec::new()).await.unwrap();
    assert_eq!(third.description, "3");
    assert!(matches!(models.delete("models/a", &second.etag, Vec::new()).await, Err(Error::Conflict(_))));
    assert_eq!(models.delete("models/a", &third.etag, vec![event("3")]).await.unwrap(), third);
    assert!(matches!(models.delete("models/a", "", Vec::new()).await, Err(Error::NotFound(_))));
    assert!(matches!(models.replace(&model("models/a", "4"), Vec::new()).await, Err(Error::NotFound(_))));
    assert_eq!(models.store().pending(10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_change_that_changes_nothing_writes_nothing() {
    let models = models().await;
    let (first, _) = models.create(&model("models/a", "1"), None, Vec::new()).await.unwrap();
    let mut wakes = models.store().committed();
    wakes.mark_unchanged();
    assert_eq!(models.modify("models/a", |_| Ok::<_, Error>(Vec::new())).await.unwrap(), first);
    assert!(!wakes.has_changed().unwrap());
    let told = models.modify("models/a", |_| Ok::<_, Error>(vec![event("1")])).await.unwrap();
    assert_ne!(told.etag, first.etag, "an event alone is worth a write");
}

#[tokio::test]
async fn a_change_may_refuse_with_an_error_of_its_own() {
    #[derive(Debug)]
    enum Refusal {
        Store(Error),
        WrongState(String),
    }
    impl From<Error> for Refusal {
        fn from(error: Error) -> Self {
            Refusal::Store(error)
        }
    }
    let models = models().await;
    let (first, _) = models.create(&model("models/a", "1"), None, Vec::new()).await.unwrap();
    let refuse = |model: &mut Model| {
        let state = std::mem::take(&mut model.description);
        Err::<Vec<OutboxEvent>, _>(Refusal::WrongState(state))
    };
    assert!(matches!(models.modify("models/a", refuse).await, Err(Refusal::WrongState(state)) if state == "1"));
    assert_eq!(models.get("models/a").await.unwrap(), first);
    assert!(matches!(models.modify("models/b", refuse).await, Err(Refusal::Store(Error::NotFound(_)))));
}

#[tokio::test]
async fn a_token_belongs_to_its_request() {
    let models = models().await;
    for index in 0..3 {
        models.create(&model(&format!("models/a{index}"), ""), None, Vec::new()).await.unwrap();
    }
    let asked = ListPage { page_size: 2, arguments_hash: "filter".to_owned(), ..ListPage::default() };
    let token = models.list(asked.clone()).await.unwrap().next_page_token;
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{token}");
    let next = ListPage { page_token: token.clone(), ..asked.clone() };
    let page = models.list(ListPage { page_size: 1, ..next.clone() }).await.unwrap();
    assert_eq!((page.items.len(), &*page.next_page_token), (1, ""));
    let versions = Collection::<ModelVersion>::new(models.store().clone());
    assert!(versions.list(next.clone()).await.is_err());
    let mut wrong = vec![
        ListPage { arguments_hash: "other".to_owned(), ..next.clone() },
        ListPage { name_prefix: "models/a".to_owned(), ..next },
    ];
    let tampered = token.replace(token.chars().last().unwrap(), if token.ends_with('0') { "1" } else { "0" });
    for broken in [&token[..token.len() - 2], &tampered, "zz", "00", &"0".repeat(80)] {
        wrong.push(ListPage { page_token: broken.to_owned(), ..asked.clone() });
    }
    for page in wrong {
        let error = models.list(page).await.unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument { field, .. } if field == "page_token"), "{error}");
    }
}

#[tokio::test]
async fn a_page_has_50_items_unless_asked_and_never_more_than_1000() {
    let models = models().await;
    let create = |index| Write::Create { name: format!("models/{index}"), body: Bytes::new(), request_id: None };
    let writes = (0..1003).map(create).collect();
    models.store().commit(Batch { writes, events: Vec::new() }).await.unwrap();
    for (size, expected) in [(0, 50), (1, 1), (1000, 1000), (2000, 1000), (i32::MAX, 1000)] {
        let page = models.list(ListPage { page_size: size, ..ListPage::default() }).await.unwrap();
        assert_eq!(page.items.len(), expected);
        assert!(!page.next_page_token.is_empty());
    }
    assert_eq!(models.all("").await.unwrap().len(), 1003);
    let error = models.list(ListPage { page_size: -1, ..ListPage::default() }).await.unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument { field, .. } if field == "page_size"), "{error}");
}

#[tokio::test]
async fn a_body_that_does_not_decode_is_named() {
    let models = models().await;
    let write = Write::Create { name: "models/a".to_owned(), body: Bytes::from_static(b"\xff\xff"), request_id: None };
    models.store().commit(Batch { writes: vec![write], events: Vec::new() }).await.unwrap();
    assert!(matches!(models.get("models/a").await, Err(Error::Corrupt { name, .. }) if name == "models/a"));
}
