//! What a study searches over: each parameter as a line of coordinates, so that samplers need to know only numbers.

use std::collections::BTreeMap;

use prost::Message as _;
use prost::Name as _;
use prost_reflect::{DynamicMessage, Kind};
use prost_types::value::Kind as Given;
use tidemill_proto::training::v1::parameter::{Domain, Range};
use tidemill_proto::training::v1::{Parameter, TrainingJob};

use super::field::{Field, shown, typed};

/// The values of a trial, by field.
pub(super) type Values = BTreeMap<String, prost_types::Value>;

/// A job and the fields of it that are searched over.
#[derive(Clone, Debug)]
pub(super) struct Space {
    template: DynamicMessage,
    pub(super) dimensions: Vec<Dimension>,
}

/// A field and its values.
#[derive(Clone, Debug)]
pub(super) struct Dimension {
    /// The field's path.
    pub(super) name: String,
    field: Field,
    values: Points,
}

#[derive(Clone, Debug)]
enum Points {
    /// Between bounds; `log` lays out logarithms, `whole` rounds.
    Between { low: f64, high: f64, log: bool, whole: bool },
    /// The coordinate is the index.
    Listed(Vec<prost_types::Value>),
}

impl Space {
    /// Reads parameters of a template; whatever is wrong with them goes to `wrong`, by field.
    pub(super) fn read(
        template: &TrainingJob,
        parameters: &[Parameter],
        mut wrong: impl FnMut(String, String),
    ) -> Self {
        let template = dynamic(template);
        let mut dimensions: Vec<Dimension> = Vec::new();
        for (at, parameter) in parameters.iter().enumerate() {
            let place = format!("parameters[{at}]");
            if let Some(before) = parameters[..at].iter().position(|before| before.field == parameter.field) {
                wrong(
                    format!("{place}.field"),
                    format!("parameters[{before}] has {:?} already; remove one", parameter.field),
                );
                continue;
            }
            let field = match Field::find(&template, &parameter.field) {
                Ok(field) => field,
                Err(text) => {
                    wrong(format!("{place}.field"), text);
                    continue;
                }
            };
            let read = match &parameter.domain {
                None => Err((String::new(), "one of range, choices must be given".to_owned())),
                Some(Domain::Range(range)) => {
                    between(&field.kind(), range).map_err(|(at, text)| (format!(".range{at}"), text))
                }
                Some(Domain::Choices(choices)) => {
                    listed(&field.kind(), &choices.values).map_err(|(at, text)| (format!(".choices.values{at}"), text))
                }
            };
            match read {
                Ok(values) => dimensions.push(Dimension { name: parameter.field.clone(), field, values }),
                Err((at, text)) => wrong(format!("{place}{at}"), text),
            }
        }
        Self { template, dimensions }
    }

    /// The job with these values in it.
    pub(super) fn job(&self, values: &Values) -> TrainingJob {
        let mut job = self.template.clone();
        for dimension in &self.dimensions {
            let value = values.get(&dimension.name).and_then(|value| typed(&dimension.field.kind(), value).ok());
            if let Some(value) = value {
                dimension.field.set(&mut job, value);
            }
        }
        job.transcode_to().expect("a message built by its descriptor has its type's encoding")
    }
}

fn dynamic(job: &TrainingJob) -> DynamicMessage {
    let descriptor = tidemill_proto::pool().get_message_by_name(&TrainingJob::full_name());
    let message = descriptor.and_then(|descriptor| DynamicMessage::decode(descriptor, &job.encode_to_vec()[..]).ok());
    message.expect("the pool describes every message that was generated from it")
}

/// What is wrong: where in the domain, and what.
type Wrong = (String, String);

fn between(kind: &Kind, range: &Range) -> Result<Points, Wrong> {
    let Range { low, high, log, integer } = *range;
    let real = matches!(kind, Kind::Double | Kind::Float);
    let whole = integer || !real;
    let at = |field: &str, text: String| (format!(".{field}"), text);
    if matches!(kind, Kind::Bool | Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Message(_)) {
        return Err((String::new(), "this field holds no numbers; list its values as `choices`".to_owned()));
    }
    for (field, bound) in [("low", low), ("high", high)] {
        let given = prost_types::Value::from(bound);
        // Also for a field of real numbers, where only whole ones are wanted.
        typed(if whole && real { &Kind::Int64 } else { kind }, &given).map_err(|text| at(field, text))?;
    }
    if low >= high {
        return Err(at("high", format!("{high} is not above low = {low}: the range is empty")));
    }
    if log && low <= 0.0 {
        return Err(at("low", format!("{low} has no logarithm; use a positive number, or leave log out")));
    }
    Ok(Points::Between { low, high, log, whole })
}

fn listed(kind: &Kind, values: &[prost_types::Value]) -> Result<Points, Wrong> {
    if values.is_empty() {
        return Err((String::new(), "is empty; list at least one value".to_owned()));
    }
    for (at, value) in values.iter().enumerate() {
        typed(kind, value).map_err(|text| (format!("[{at}]"), text))?;
        if values[..at].contains(value) {
            return Err((format!("[{at}]"), format!("{} is listed twice", shown(value))));
        }
    }
    Ok(Points::Listed(values.to_vec()))
}

impl Dimension {
    /// Whether coordinates are indices, without an order.
    pub(super) fn is_listed(&self) -> bool {
        matches!(self.values, Points::Listed(_))
    }

    /// The coordinates: from the first, to below the second.
    pub(super) fn bounds(&self) -> (f64, f64) {
        match &self.values {
            Points::Listed(values) => (0.0, values.len() as f64),
            Points::Between { low, high, log, whole } => {
                // Each whole number has as much room as the others, also those at the ends.
                let margin = if *whole { 0.5 } else { 0.0 };
                let (low, high) = (low - margin, high + margin);
                if *log { (low.ln(), high.ln()) } else { (low, high) }
            }
        }
    }

    /// The value at a coordinate.
    pub(super) fn value(&self, coordinate: f64) -> prost_types::Value {
        match &self.values {
            Points::Listed(values) => values[(coordinate.max(0.0) as usize).min(values.len() - 1)].clone(),
            Points::Between { low, high, log, whole } => {
                let value = if *log { coordinate.exp() } else { coordinate };
                let value = if *whole { value.round() } else { value };
                value.clamp(*low, *high).into()
            }
        }
    }

    /// The coordinate of a value; none for one of another space.
    pub(super) fn coordinate(&self, value: &prost_types::Value) -> Option<f64> {
        match (&self.values, &value.kind) {
            (Points::Listed(values), _) => values.iter().position(|listed| listed == value).map(|at| at as f64),
            (Points::Between { log, .. }, Some(Given::NumberValue(number))) => {
                let (start, end) = self.bounds();
                let coordinate = if *log { number.ln() } else { *number };
                // Rounding must not lead out of what is half open.
                Some(coordinate.clamp(start, end.next_down()))
            }
            _ => None,
        }
    }

    /// Values that are all right only if all are: the bounds, or every one that is listed.
    pub(super) fn extremes(&self) -> Vec<prost_types::Value> {
        match &self.values {
            Points::Listed(values) => values.clone(),
            Points::Between { low, high, .. } => vec![(*low).into(), (*high).into()],
        }
    }
}
