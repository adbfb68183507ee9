//! A target beside what was measured, and what stands between the two.

use serde_json::{Value, json};

use super::super::output::count_text;

/// From this part of the limit on, the machine is what limits.
const NEAR: f64 = 0.9;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    GigabytesPerSecond,
    Microseconds,
    Nanoseconds,
    Iops,
    PagesPerSecond,
    Percent,
    Times,
}

/// One target with what was found.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) target: f64,
    pub(super) measured: f64,
    /// The machine's own figure in the same run, and how it was measured.
    pub(super) limit: Option<(f64, String)>,
    pub(super) path: String,
}

impl Unit {
    /// Less is better.
    fn is_time(self) -> bool {
        matches!(self, Self::Microseconds | Self::Nanoseconds)
    }

    fn reaches(self, value: f64, target: f64) -> bool {
        match self.is_time() {
            true => value <= target,
            false => value >= target,
        }
    }
}

impl Finding {
    pub(super) fn is_met(&self) -> bool {
        self.unit.reaches(self.measured, self.target)
    }

    /// What stands between the measured figure and the target.
    fn verdict(&self) -> String {
        if self.is_met() {
            return "met".to_owned();
        }
        let Some((limit, name)) = &self.limit else {
            return "not met".to_owned();
        };
        // How near we are to the limit, 1 being there.
        let part = match self.unit.is_time() {
            true => limit / self.measured.max(1e-9),
            false => self.measured / limit.max(1e-9),
        };
        let limit_met = self.unit.reaches(*limit, self.target);
        let why = match (limit_met, part >= NEAR) {
            (false, true) => "the machine limits it",
            (false, false) => "the machine's limit lies short of the target too",
            (true, _) => "the machine could do it",
        };
        format!("not met: {why} (ours is {part:.2} of {name})")
    }

    fn value_text(&self, value: f64) -> String {
        match self.unit {
            Unit::GigabytesPerSecond => format!("{value:.2} GB/s"),
            Unit::Microseconds => format!("{value:.1} us"),
            Unit::Nanoseconds => format!("{value:.1} ns"),
            Unit::Iops => format!("{} IOPS", count_text(value)),
            Unit::PagesPerSecond => format!("{} pages/s", count_text(value)),
            Unit::Percent => format!("{value:.1} %"),
            Unit::Times => format!("{value:.1} times"),
        }
    }

    pub(super) fn text(&self) -> String {
        let limit = match &self.limit {
            Some((limit, _)) => self.value_text(*limit),
            None => "-".to_owned(),
        };
        format!(
            "{:<34} target {:>11}  measured {:>12}  limit {:>12}  {} [{}]",
            self.name,
            self.value_text(self.target),
            self.value_text(self.measured),
            limit,
            self.verdict(),
            self.path
        )
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": match self.unit {
                Unit::GigabytesPerSecond => "GB/s",
                Unit::Microseconds => "us",
                Unit::Nanoseconds => "ns",
                Unit::Iops => "IOPS",
                Unit::PagesPerSecond => "pages/s",
                Unit::Percent => "percent",
                Unit::Times => "times",
            },
            "target": self.target,
            "measured": self.measured,
            "limit": self.limit.as_ref().map(|(limit, _)| *limit),
            "limit_measured_by": self.limit.as_ref().map(|(_, name)| name.as_str()),
            "met": self.is_met(),
            "verdict": self.verdict(),
            "path": self.path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(unit: Unit, target: f64, measured: f64, limit: f64) -> Finding {
        Finding {
            name: "x",
            unit,
            target,
            measured,
            limit: Some((limit, "plain".to_owned())),
            path: String::new(),
        }
    }

    #[test]
    fn the_verdict_names_what_limits() {
        let rate = Unit::GigabytesPerSecond;
        assert_eq!(finding(rate, 4.0, 4.0, 9.0).verdict(), "met");
        let text = |f: Finding| f.verdict();
        assert!(text(finding(rate, 4.0, 2.9, 3.0)).contains("the machine limits it"));
        assert!(text(finding(rate, 4.0, 1.0, 3.0)).contains("short of the target too"));
        assert!(text(finding(rate, 4.0, 3.0, 9.0)).contains("the machine could do it"));
        let time = Unit::Microseconds;
        assert_eq!(finding(time, 100.0, 99.0, 9.0).verdict(), "met");
        assert!(text(finding(time, 100.0, 300.0, 290.0)).contains("the machine limits it"));
        assert!(text(finding(time, 100.0, 300.0, 50.0)).contains("the machine could do it"));
    }
}
