//! Learning from answers that the model draws itself.

use tidemill_models::LoraConfig;

use super::ranks::{among, cut};
use super::*;

/// Rewards the share of an answer's tokens that 3 divides.
struct Threes;

impl Judge for Threes {
    fn judge(&self, _: &Prompt, answer: &[u32]) -> Result<Verdict> {
        let right = answer.iter().filter(|id| id.is_multiple_of(3)).count();
        let reward = right as f64 / answer.len().max(1) as f64;
        Ok(Verdict { reward, parts: vec![("reward_threes", reward)] })
    }
}

/// Finds all answers equally good.
struct Indifferent;

impl Judge for Indifferent {
    fn judge(&self, _: &Prompt, _: &[u32]) -> Result<Verdict> {
        Ok(Verdict { reward: 0.1, parts: Vec::new() })
    }
}

pub(super) const CONSTANTS: Grouped = Grouped {
    num_generations: 8,
    max_completion_length: 5,
    temperature: 1.0,
    top_p: 1.0,
    beta: 0.0,
    epsilon: 0.2,
    num_iterations: 1,
    loss: GroupedLoss::Dapo,
    scale_rewards: ScaleRewards::Group,
};

pub(super) fn grouped(constants: Grouped) -> Spec {
    Spec { method: Method::Grouped(constants), ..spec(llama(), 2, Precision::Float32) }
}

fn prompts(count: u64, salt: u64) -> Rows {
    let prompt = |index: u64| {
        let id = |at: u64| ((index * 31 + at * 17 + salt) * 7919 % 49 + 1) as u32;
        Row::Prompt(Prompt { ids: (0..3 + index % 4).map(id).collect(), answer: None })
    };
    Rows::new((0..count).map(prompt).collect(), Order::Shuffled, 11, 32).unwrap()
}

fn begin(spec: &Spec, judge: impl Judge + 'static, world: World) -> Trainer {
    let data = Data { train: Train::Rows(prompts(60, 1)), validation: Validation::Rows(prompts(12, 2)) };
    let digest = spec.digest("sha256:data", "", "");
    let trainer = Trainer::new(spec.clone(), digest, data, Start::Random, Device::Cpu, world).unwrap();
    trainer.with_judge(judge, vec![0])
}

#[test]
fn what_is_rewarded_becomes_likelier_and_a_resumed_run_ends_with_the_same_bytes() {
    tidemill_torch::process::set_threads(1);
    let lora =
        LoraConfig { r: 8, alpha: 16.0, dropout: 0.0, target_modules: Vec::new(), use_rslora: false, use_dora: false };
    let twice = Grouped { num_iterations: 2, beta: 0.01, scale_rewards: ScaleRewards::Batch, ..CONSTANTS };
    // A small adapter beside a model that knows nothing learns too little to be seen.
    let cases = [
        (Spec { config: gpt2(), ..grouped(CONSTANTS) }, true),
        (Spec { config: gpt2(), ..grouped(twice) }, true),
        (Spec { lora: Some(lora), ..grouped(twice) }, false),
    ];
    for (spec, rises) in cases {
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [straight, middle, resumed] = folders.each_ref().map(|folder| folder.path());
        let mut first = begin(&spec, Threes, World::alone());
        let mut steps = Vec::new();
        while !first.is_finished() {
            steps.push(first.step().unwrap());
            if first.steps_done() == 17 {
                save(&first, middle);
            }
        }
        save(&first, straight);
        let mean =
            |steps: &[StepReport]| steps.iter().map(|step| step.figures["reward"]).sum::<f64>() / steps.len() as f64;
        let (begin_with, end_with) = (mean(&steps[..4]), mean(&steps[36..]));
        println!("mean reward: {begin_with} at first, {end_with} at last");
        assert!((0.2..0.5).contains(&begin_with), "one in three is right by chance: {begin_with}");
        assert!(!rises || end_with > begin_with + 0.25, "{begin_with} and then {end_with}");
        let validations: Vec<&StepReport> = steps.iter().filter(|step| step.validation_loss.is_some()).collect();
        let measured = |step: &StepReport| step.figures["validation_reward"];
        assert!(validations.iter().all(|step| step.validation_loss == Some(-measured(step))));
        assert!(!rises || measured(validations[validations.len() - 1]) > begin_with + 0.25);
        let clipped = steps.iter().map(|step| step.figures["clip_ratio"]).fold(0.0, f64::max);
        let again = spec.method == Method::Grouped(twice);
        assert!(!rises || again == (clipped > 0.0), "only a second update meets another model: {clipped}");

        let mut second = begin(&spec, Threes, World::alone());
        second.resume(middle).unwrap();
        while !second.is_finished() {
            let report = second.step().unwrap();
            assert_eq!(report.figures, steps[report.step as usize - 1].figures, "step {}", report.step);
        }
        save(&second, resumed);
        for file in [WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE] {
            assert!(read(straight, file) == read(resumed, file), "{file} differs after a resume");
        }
    }
}

#[test]
fn equal_rewards_move_nothing_and_do_not_stop_the_run() {
    for beta in [0.0, 0.1] {
        for loss in [GroupedLoss::Dapo, GroupedLoss::Grpo, GroupedLoss::Bnpo, GroupedLoss::DrGrpo] {
            let spec = grouped(Grouped { beta, loss, ..CONSTANTS });
            let mut trainer = begin(&spec, Indifferent, World::alone());
            let step = trainer.step().unwrap();
            match beta > 0.0 {
                // The reference is the same model, whose numbers may differ by a rounding where no gradient is wanted.
                true => assert!(step.figures["kl"] < 1e-9 && step.gradient_norm < 1e-6, "{loss:?}: {step:?}"),
                false => assert_eq!((step.loss, step.gradient_norm), (0.0, 0.0), "{loss:?}"),
            }
            assert_eq!((step.figures["frac_reward_zero_std"], step.figures["reward_std"]), (1.0, 0.0));
            trainer.step().unwrap();
        }
    }
}

#[test]
fn what_is_drawn_and_learned_does_not_depend_on_how_a_step_is_cut() {
    tidemill_torch::process::set_threads(1);
    for (loss, scale_rewards) in [
        (GroupedLoss::Dapo, ScaleRewards::Group),
        (GroupedLoss::Grpo, ScaleRewards::Batch),
        (GroupedLoss::DrGrpo, ScaleRewards::None),
    ] {
        let base = grouped(Grouped { loss, scale_rewards, beta: 0.05, ..CONSTANTS });
        let steps = |shape: (usize, usize, usize)| {
            let run = |world: World| {
                let mut trainer = begin(&cut(&base, shape), Threes, world);
                (0..4).map(|_| trainer.step().unwrap()).collect::<Vec<_>>()
            };
            among(shape.2, run).remove(0)
        };
        let whole = steps((8, 1, 1));
        for shape in [(4, 2, 1), (1, 8, 1), (4, 1, 2), (2, 1, 4)] {
            for (one, other) in whole.iter().zip(steps(shape)) {
                let names = ["reward", "reward_threes", "reward_std", "completion_length", "entropy", "kl"];
                let figures = names.map(|name| (one.figures[name], other.figures[name]));
                let pairs = [(one.loss, other.loss), (one.gradient_norm, other.gradient_norm)];
                let apart = pairs.into_iter().chain(figures).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(apart < 1e-5 && one.tokens == other.tokens, "{loss:?}, {shape:?}: {one:?} and {other:?}");
            }
        }
    }
}

#[test]
fn what_cannot_be_drawn_or_judged_is_refused() {
    let spec = grouped(CONSTANTS);
    let data = Data { train: Train::Rows(prompts(9, 1)), validation: Validation::None };
    let mut without =
        Trainer::new(spec.clone(), String::new(), data, Start::Random, Device::Cpu, World::alone()).unwrap();
    assert!(without.step().unwrap_err().to_string().contains("without what judges answers"));
    let data = Data::packed(tokens(4_000, 1), None, &spec).unwrap();
    let tokens = Trainer::new(spec.clone(), String::new(), data, Start::Random, Device::Cpu, World::alone()).unwrap();
    let error = tokens.with_judge(Threes, Vec::new()).step().unwrap_err().to_string();
    assert!(error.contains("the dataset holds none"), "{error}");
    for (constants, expected) in [
        (Grouped { num_generations: 1, ..CONSTANTS }, "num_generations"),
        (Grouped { max_completion_length: 32, ..CONSTANTS }, "no room for a prompt"),
    ] {
        let error = grouped(constants).check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let rate = Schedule { peak: 1e30, warmup_steps: 0, steps: 40, final_ratio: 1.0, decay: Decay::Constant };
    let mut trainer = begin(&Spec { schedule: rate, ..spec }, Threes, World::alone());
    let error = (0..10).find_map(|_| trainer.step().err()).expect("a learning rate of 1e30 cannot go on");
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
}
