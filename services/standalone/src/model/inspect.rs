//! `tidemill model inspect`.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};
use tidemill_models::Config;

use super::{
    Failure,
    disk::Tensor,
    source::{Kind, Source},
};

/// `inspect`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A Hugging Face directory or a GGUF file.
    model: PathBuf,
    /// Print everything as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Everything that is shown.
#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    format: String,
    family: &'static str,
    /// Without what is stored twice.
    parameters: i64,
    layers: i64,
    width: i64,
    mlp_width: i64,
    heads: i64,
    kv_heads: i64,
    head_size: i64,
    vocabulary: i64,
    /// None where positions have no end.
    context: Option<i64>,
    sliding_window: Option<i64>,
    rope: Option<Value>,
    /// Whether the head is the embedding; none where there is no head.
    tied_head: Option<bool>,
    /// Tensors of each dtype on disk.
    dtypes: BTreeMap<String, usize>,
    tokenizer: Tokenizer,
    chat_template: Option<String>,
    config: Value,
    tensors: Vec<Tensor>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Tokenizer {
    None,
    /// Why it cannot be used.
    Unusable(String),
    Usable {
        vocabulary: usize,
        /// Tokens that end a text.
        ends: Vec<String>,
    },
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let report = report(&Source::open(&arguments.model)?)?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure::Failed(error.to_string()))?;
        println!("{text}");
    } else {
        print!("{}", table(&report));
    }
    Ok(())
}

fn report(source: &Source) -> Result<Report, Failure> {
    let (config, tensors) = (source.config()?, source.tensors()?);
    let text = config.to_json();
    let all: Map<String, Value> = serde_json::from_str(&text).map_err(|error| Failure::Failed(error.to_string()))?;
    let size = |names: [&str; 3]| names.iter().find_map(|name| all.get(*name)?.as_i64());
    let width = size(["hidden_size", "n_embd", "d_model"]).unwrap_or_default();
    let has = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
    let tied_head = match &config {
        Config::Bert(bert) => bert.masked_lm.then_some(true),
        // Weights say it here: transformers writes the same configuration for both.
        Config::T5(_) => Some(!has("lm_head.weight")),
        _ => Some(all.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(true)),
    };
    let mut dtypes = BTreeMap::new();
    for tensor in &tensors {
        *dtypes.entry(tensor.dtype.clone()).or_default() += 1;
    }
    let tokenizer = match source.tokenizer() {
        Ok(None) => Tokenizer::None,
        Err(failure) => Tokenizer::Unusable(failure.to_string()),
        Ok(Some(tokenizer)) => Tokenizer::Usable {
            vocabulary: tokenizer.vocabulary_size(),
            ends: source.ends()?.iter().filter_map(|id| tokenizer.token(u32::try_from(*id).ok()?)).collect(),
        },
    };
    // A tokenizer that cannot be used has been told of.
    let chat_template = source.chat().ok().and_then(|chat| chat.template).map(|template| template.source().to_owned());
    Ok(Report {
        path: source.path().to_owned(),
        format: match source.kind() {
            Kind::Directory => "Hugging Face directory".to_owned(),
            Kind::Gguf(gguf) => format!("GGUF, version {}", gguf.version()),
        },
        family: config.model_type(),
        parameters: parameters(&tensors, tied_head == Some(true)),
        layers: config.layers(),
        width,
        mlp_width: size(["intermediate_size", "n_inner", "d_ff"]).unwrap_or(4 * width),
        heads: size(["num_attention_heads", "n_head", "num_heads"]).unwrap_or_default(),
        kv_heads: config.kv_heads(),
        head_size: config.head_size(),
        vocabulary: config.vocabulary_size(),
        context: (!matches!(config, Config::T5(_))).then(|| config.context_length()),
        sliding_window: all.get("sliding_window").and_then(Value::as_i64),
        rope: all.get("rope_parameters").cloned(),
        tied_head,
        dtypes,
        tokenizer,
        chat_template,
        config: Value::Object(all),
        tensors,
    })
}

/// Numbers in the files, without buffers and what is there a second time.
fn parameters(tensors: &[Tensor], tied: bool) -> i64 {
    let twice = [
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    ];
    let counted = |tensor: &&Tensor| {
        let name = tensor.name.as_str();
        let buffer = tensor.dtype.starts_with(['I', 'U', 'B']) && tensor.dtype != "BF16";
        let setting = name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight";
        let again = twice.contains(&name) || tied && name == "lm_head.weight";
        !(buffer || setting || again)
    };
    tensors.iter().filter(counted).map(Tensor::numbers).sum()
}

fn table(report: &Report) -> String {
    let or = |value: Option<i64>, none: &str| value.map_or(none.to_owned(), |value| value.to_string());
    let dtypes: Vec<String> = report.dtypes.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    let lines = [
        ("format", report.format.clone()),
        ("family", report.family.to_owned()),
        ("parameters", report.parameters.to_string()),
        ("layers", report.layers.to_string()),
        ("width", format!("{}, MLP {}", report.width, report.mlp_width)),
        ("heads", format!("{} of {}, keys and values {}", report.heads, report.head_size, report.kv_heads)),
        ("vocabulary", report.vocabulary.to_string()),
        ("context", or(report.context, "any (relative positions)")),
        ("window", or(report.sliding_window, "none")),
        ("rope", report.rope.as_ref().map_or("none".to_owned(), Value::to_string)),
        (
            "head",
            match report.tied_head {
                Some(true) => "the embedding".to_owned(),
                Some(false) => "its own".to_owned(),
                None => "none".to_owned(),
            },
        ),
        (
            "tokenizer",
            match &report.tokenizer {
                Tokenizer::None => "none".to_owned(),
                Tokenizer::Unusable(problem) => problem.clone(),
                Tokenizer::Usable { vocabulary, ends } => {
                    let ends = if ends.is_empty() { "none".to_owned() } else { ends.join(", ") };
                    format!("{vocabulary} tokens, end of a text: {ends}")
                }
            },
        ),
        (
            "template",
            report
                .chat_template
                .as_ref()
                .map_or("none".to_owned(), |text| format!("{} characters", text.chars().count())),
        ),
        ("tensors", format!("{} ({})", report.tensors.len(), dtypes.join(", "))),
    ];
    let mut text = format!("{}\n", report.path.display());
    for (name, value) in lines {
        text.push_str(&format!("  {name:<12}{value}\n"));
    }
    let longest = report.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or_default();
    for tensor in &report.tensors {
        text.push_str(&format!("    {:<longest$}  {:<5} {:?}\n", tensor.name, tensor.dtype, tensor.shape));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dtype: &str, shape: &[i64]) -> Tensor {
        Tensor { name: name.to_owned(), shape: shape.to_vec(), dtype: dtype.to_owned(), file: None }
    }

    #[test]
    fn what_is_stored_twice_counts_once() {
        let tensors = [
            tensor("model.embed_tokens.weight", "BF16", &[10, 4]),
            tensor("lm_head.weight", "BF16", &[10, 4]),
            tensor("bert.embeddings.position_ids", "I64", &[1, 512]),
            tensor("rope_freqs.weight", "F32", &[2]),
        ];
        assert_eq!(parameters(&tensors, true), 40);
        assert_eq!(parameters(&tensors, false), 80);
    }

    #[test]
    fn a_directory_is_told_from_its_headers() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            r#"{"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}"#;
        let config = Config::from_json(text).unwrap();
        let model = tidemill_models::Model::new(config, 1, tch::Device::Cpu).unwrap();
        tidemill_models::save_sharded(&model, folder.path(), 500).unwrap();
        let report = report(&Source::open(folder.path()).unwrap()).unwrap();
        assert_eq!(report.parameters, model.parameter_count());
        assert_eq!((report.width, report.mlp_width, report.heads, report.context), (8, 32, 2, Some(16)));
        assert_eq!(report.tied_head, Some(true));
        assert!(report.tensors.iter().all(|tensor| tensor.file.is_some()));
        let table = table(&report);
        assert!(table.contains("family      gpt2") && table.contains("transformer.wte.weight"), "{table}");
    }
}
