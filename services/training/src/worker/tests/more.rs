//! Jobs that read more than one dataset and one base: mixtures, and a teacher.

use tidemill_proto::r#type::v1::{Distillation, MixedDataset};

use super::world::put_dataset_of;
use super::*;

#[tokio::test]
async fn a_mixture_resumes_like_one_dataset_and_its_parts_are_parents() {
    let world = World::new().await;
    let other = put_dataset_of(&world.artifacts, &world.folder.path().join("other"), 3..9).await;
    let mut job = world.job(spec());
    job.mixed_datasets = vec![MixedDataset { dataset_digest: other.to_string(), weight: 0.5 }];
    let arguments = |uid: &str| world.arguments_of(uid, job.clone());
    assert_eq!(run(&arguments("undisturbed"), &world.artifacts, &|| false).await.unwrap(), Ended::Done);
    world.run("alone", spec()).await.unwrap();
    let expected = world.result("undisturbed").await;
    assert_ne!(expected, world.result("alone").await, "the other dataset changed nothing");
    assert_eq!(world.artifacts.manifest(&expected).await.unwrap().parents, [world.dataset, other]);
    while run(&arguments("stopped"), &world.artifacts, &after(5)).await.unwrap() == Ended::Stopped {}
    assert_eq!(world.result("stopped").await, expected);
}

#[tokio::test]
async fn a_student_comes_near_its_teacher_and_names_it() {
    let world = World::new().await;
    world.run("teacher", TrainingSpec { steps: 120, ..spec() }).await.unwrap();
    let teacher = world.result("teacher").await;
    let distillation = Distillation { teacher_model_digest: teacher.to_string(), temperature: 2.0, weight: Some(0.8) };
    let student = TrainingSpec { steps: 60, seed: 9, distillation: Some(distillation), ..spec() };
    world.run("student", student.clone()).await.unwrap();
    let digest = world.artifacts.resolve(&history_reference("student")).await.unwrap().unwrap();
    let points: Vec<crate::history::MetricPoint> =
        serde_json::from_slice(&world.artifacts.get(&digest).await.unwrap()).unwrap();
    let divergence = |point: &crate::history::MetricPoint| point.metrics["divergence"];
    assert!(divergence(points.last().unwrap()) < 0.5 * divergence(&points[0]), "{points:?}");
    let manifest = world.artifacts.manifest(&world.result("student").await).await.unwrap();
    assert_eq!(manifest.parents, [world.dataset, teacher]);
    while run(&world.arguments("stopped", student.clone()), &world.artifacts, &after(7)).await.unwrap()
        == Ended::Stopped
    {}
    assert_eq!(world.result("stopped").await, world.result("student").await);
}
