//! `gds explain FILE`: which way, and why not a better one.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Global;
use super::output::{Outcome, say, say_json};
use crate::engine::{Explanation, Way};

/// Arguments of `gds explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A regular file or block device
    file: PathBuf,
}

pub(super) fn run(global: &Global, args: &ExplainArgs) -> Outcome {
    let context = global.context()?;
    let explanation = context.explain(&args.file)?;
    if global.json {
        return say_json(&to_json(&explanation));
    }
    say(explanation.to_string().trim_end())
}

/// The whole explanation as a JSON object.
pub(super) fn to_json(explanation: &Explanation) -> Value {
    let facts: serde_json::Map<String, Value> = explanation
        .facts
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    json!({
        "path": explanation.path.name(),
        "facts": facts,
        "ways": explanation.ways.iter().map(|way| json!({
            "path": way.path.name(),
            "usable": way.usable,
            "reason": way.reason,
            "fix": way.fix,
        })).collect::<Vec<_>>(),
    })
}

/// Why a way was not the one taken, and what to do about it.
pub(super) fn line(way: &Way) -> String {
    let why = if way.usable {
        "not chosen"
    } else {
        "not usable"
    };
    let mut line = format!("{}: {why}: {}", way.path, way.reason);
    // The reason of a library that is missing says what to do, too.
    if !way.fix.is_empty() && !way.reason.contains(&way.fix) {
        line.push_str("; to do: ");
        line.push_str(&way.fix);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Path;

    fn way(path: Path, usable: bool, fix: &str) -> Way {
        Way {
            path,
            usable,
            reason: format!("reason of {path}"),
            fix: fix.to_owned(),
        }
    }

    #[test]
    fn lines_say_what_to_do_and_json_has_all() {
        let explanation = Explanation {
            path: Path::Bounce,
            facts: vec![("size".to_owned(), "7".to_owned())],
            ways: vec![
                way(Path::CuFile, false, "load it"),
                way(Path::PageCache, true, ""),
                way(Path::Bounce, false, "reason of"),
            ],
        };
        let lines: Vec<String> = explanation.ways.iter().map(line).collect();
        assert_eq!(
            lines,
            [
                "cufile: not usable: reason of cufile; to do: load it",
                "page-cache: not chosen: reason of page-cache",
                "bounce: not usable: reason of bounce"
            ]
        );
        let value = to_json(&explanation);
        assert_eq!(value["facts"]["size"], "7");
        assert_eq!(value["ways"][0]["usable"], false);
    }
}
