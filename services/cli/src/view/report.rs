//! What an evaluation found, on one screen.

use tidemill_proto::evaluation::v1::Evaluation;

use crate::{output, words};

/// Figures beside the baselines measured on the same bytes, then what the model wrote.
pub(crate) fn evaluation(evaluation: &Evaluation) -> String {
    let figure = |name: &str| evaluation.metrics.get(name).map(|value| format!("{value:.4}"));
    let mut rows = Vec::new();
    for (what, metric) in
        [("model", "bits_per_byte"), ("xz -9e", "xz_bits_per_byte"), ("unigram bytes", "unigram_bits_per_byte")]
    {
        if let Some(value) = figure(metric) {
            let perplexity =
                if metric == "bits_per_byte" { figure("perplexity").unwrap_or_default() } else { String::new() };
            rows.push(vec![what.to_owned(), value, perplexity]);
        }
    }
    let mut text = match rows.is_empty() {
        false => output::table(&["ON HELD-OUT TEXT", "BITS PER BYTE", "PERPLEXITY"], rows),
        true => {
            let figures = evaluation.metrics.iter().filter(|(name, _)| !name.starts_with("base_"));
            let rows = figures.map(|(name, value)| {
                let base = figure(&format!("base_{name}")).unwrap_or_default();
                vec![name.clone(), format!("{value:.4}"), base]
            });
            output::table(&["ON HELD-OUT ROWS", "MODEL", "BASE MODEL"], rows.collect())
        }
    };
    for sample in &evaluation.samples {
        let prompt = words::excerpt(&sample.prompt, 60);
        text.push_str(&format!("\n\n  {prompt} … {}", words::excerpt(&sample.completion, 220)));
    }
    text
}
