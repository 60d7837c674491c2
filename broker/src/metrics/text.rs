//! The text format of Prometheus: families of samples, each with its type and a line of help.

use std::fmt::{Display, Write as _};

use procbroker_core::{Counts, Histogram};

/// What a fetch of the metrics shows, as it was at one moment.
#[derive(Debug)]
pub struct MetricsSnapshot<'a> {
    /// The version of the program.
    pub version: &'a str,
    /// What the core has counted.
    pub counts: &'a Counts,
    /// How long the driver took for each input, with all that followed from it.
    pub turns: &'a Histogram,
    /// How many bytes the kept output of children takes on the disk.
    pub output_bytes: u64,
    /// How many bytes are on their way to clients.
    pub answer_bytes: u64,
    /// How many bytes of output could not be kept.
    pub log_dropped_bytes: u64,
    /// How many lines of output could not be passed on.
    pub children_log_dropped_lines: u64,
}

impl MetricsSnapshot<'_> {
    /// Returns them as Prometheus reads them: its text-based format, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        text(self)
    }
}

/// Writes all families, in the order of their names in the documentation.
fn text(metrics: &MetricsSnapshot<'_>) -> String {
    let MetricsSnapshot {
        version,
        counts,
        turns,
        output_bytes,
        answer_bytes,
        log_dropped_bytes,
        children_log_dropped_lines,
    } = metrics;
    let (children, totals) = (counts.children, &counts.totals);
    let mut text = Text::default();
    text.gauge("build_info", "The version of the broker, as a label of the constant 1.");
    text.labelled("version", [(*version, 1)]);
    text.gauge("children", "Children in each state; ended ones as long as they are visible.");
    text.labelled(
        "state",
        [
            ("starting", children.starting),
            ("running", children.running),
            ("stopping", children.stopping),
            ("cleaning", children.cleaning),
            ("ended", children.ended),
            ("backoff", children.backoff),
        ],
    );
    text.counter("creates_total", "Creates that were answered with a child, by what they did.");
    let creates = totals.creates;
    text.labelled(
        "outcome",
        [("created", creates.created), ("existing", creates.existing), ("replaced", creates.replaced)],
    );
    text.counter("create_failures_total", "Creates that were answered with an error, by its kind.");
    text.labelled("kind", totals.create_failures.iter().map(|(kind, count)| (kind.as_ref(), *count)));
    text.counter("restarts_total", "Restarts of children, automatic and manual ones.");
    text.plain(totals.restarts);
    text.counter(
        "restarts_given_up_total",
        "Children that ended too often for their restart policy and were given up.",
    );
    text.plain(totals.restarts_given_up);
    text.counter("forced_stops_total", "Stops that needed SIGKILL.");
    text.plain(totals.forced_stops);
    text.histogram(
        "stop_duration_seconds",
        "How long stops took, from the first signal until nothing of the child was left.",
        &counts.stops,
    );
    text.counter("cleanups_total", "Cleanups that are over, by how they went.");
    text.labelled("result", [("ok", totals.cleanups.ok), ("failed", totals.cleanups.failed)]);
    text.gauge("connections", "Clients that are connected.");
    text.plain(counts.connections);
    text.counter("connections_refused_total", "Connections that were refused.");
    text.plain(totals.connections_refused);
    text.gauge("kept_bytes", "Bytes that the broker keeps for its clients, by what they are.");
    let kept = counts.kept;
    text.labelled(
        "what",
        [
            ("output", *output_bytes),
            ("children", kept.children),
            ("requests", kept.requests),
            ("events", kept.events),
            ("answers", *answer_bytes),
        ],
    );
    text.counter("log_dropped_bytes_total", "Bytes of children's output that could not be kept.");
    text.plain(*log_dropped_bytes);
    text.counter(
        "children_log_dropped_lines_total",
        "Lines of children's output that could not be passed on to the journal or to syslog.",
    );
    text.plain(*children_log_dropped_lines);
    text.histogram(
        "turn_duration_seconds",
        "How long the broker took for each thing that came in, with all that followed from it.",
        turns,
    );
    text.written
}

/// What is written so far, and the family that samples belong to.
#[derive(Default)]
struct Text {
    written: String,
    family: &'static str,
}

impl Text {
    fn gauge(&mut self, family: &'static str, help: &str) {
        self.family(family, "gauge", help);
    }

    fn counter(&mut self, family: &'static str, help: &str) {
        self.family(family, "counter", help);
    }

    fn family(&mut self, family: &'static str, kind: &str, help: &str) {
        self.family = family;
        self.line(format_args!("# HELP procbroker_{family} {help}"));
        self.line(format_args!("# TYPE procbroker_{family} {kind}"));
    }

    /// The only sample of a family.
    fn plain(&mut self, value: impl Display) {
        let family = self.family;
        self.line(format_args!("procbroker_{family} {value}"));
    }

    /// The samples of a family that one label tells apart. Its values are words of this program.
    fn labelled<'a, N: Display>(&mut self, label: &str, samples: impl IntoIterator<Item = (&'a str, N)>) {
        let family = self.family;
        for (word, value) in samples {
            self.line(format_args!("procbroker_{family}{{{label}=\"{word}\"}} {value}"));
        }
    }

    fn histogram(&mut self, family: &'static str, help: &str, histogram: &Histogram) {
        self.family(family, "histogram", help);
        let count = histogram.count();
        for (bound, upto) in histogram.buckets() {
            let bound = bound.as_secs_f64();
            self.line(format_args!("procbroker_{family}_bucket{{le=\"{bound}\"}} {upto}"));
        }
        self.line(format_args!("procbroker_{family}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(format_args!("procbroker_{family}_sum {}", histogram.sum().as_secs_f64()));
        self.line(format_args!("procbroker_{family}_count {count}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.written, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use procbroker_core::{Cleanups, Creates, KeptBytes, Totals};
    use procbroker_protocol::status::ChildCounts;

    use super::*;

    const BOUNDS: [Duration; 2] = [Duration::from_micros(10), Duration::from_millis(2_500)];

    fn shown() -> String {
        let mut stops = Histogram::new(&BOUNDS);
        stops.observe(Duration::from_secs(1));
        stops.observe(Duration::from_secs(3));
        let counts = Counts {
            children: ChildCounts { running: 3, ended: 1, ..ChildCounts::default() },
            connections: 2,
            kept: KeptBytes { children: 15, requests: 16, events: 17 },
            totals: Totals {
                creates: Creates { created: 4, existing: 5, replaced: 6 },
                create_failures: [("name_taken".into(), 7)].into(),
                restarts: 8,
                restarts_given_up: 21,
                forced_stops: 9,
                cleanups: Cleanups { ok: 10, failed: 11 },
                connections_refused: 12,
            },
            stops,
        };
        let turns = Histogram::new(&BOUNDS);
        let metrics = MetricsSnapshot {
            version: "1.2.3",
            counts: &counts,
            turns: &turns,
            output_bytes: 13,
            answer_bytes: 18,
            log_dropped_bytes: 14,
            children_log_dropped_lines: 19,
        };
        metrics.text()
    }

    #[test]
    fn every_number_has_its_sample() {
        let text = shown();
        for sample in [
            "build_info{version=\"1.2.3\"} 1",
            "children{state=\"running\"} 3",
            "children{state=\"backoff\"} 0",
            "creates_total{outcome=\"created\"} 4",
            "creates_total{outcome=\"existing\"} 5",
            "creates_total{outcome=\"replaced\"} 6",
            "create_failures_total{kind=\"name_taken\"} 7",
            "restarts_total 8",
            "restarts_given_up_total 21",
            "forced_stops_total 9",
            "cleanups_total{result=\"ok\"} 10",
            "cleanups_total{result=\"failed\"} 11",
            "connections 2",
            "connections_refused_total 12",
            "kept_bytes{what=\"output\"} 13",
            "kept_bytes{what=\"children\"} 15",
            "kept_bytes{what=\"requests\"} 16",
            "kept_bytes{what=\"events\"} 17",
            "kept_bytes{what=\"answers\"} 18",
            "log_dropped_bytes_total 14",
            "children_log_dropped_lines_total 19",
            "stop_duration_seconds_bucket{le=\"0.00001\"} 0",
            "stop_duration_seconds_bucket{le=\"2.5\"} 1",
            "stop_duration_seconds_bucket{le=\"+Inf\"} 2",
            "stop_duration_seconds_sum 4",
            "stop_duration_seconds_count 2",
            "turn_duration_seconds_count 0",
        ] {
            assert!(text.lines().any(|line| line == format!("procbroker_{sample}")), "{sample}: {text}");
        }
    }

    #[test]
    fn every_family_has_its_help_and_its_type_before_its_samples() {
        let text = shown();
        let mut family = "";
        let mut families = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split_once(' ').map_or("", |(name, _)| name);
                families.push(family);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(rest.starts_with(&format!("{family} ")), "{line}");
            } else {
                assert!(line.starts_with(family), "{line} is not of {family}");
            }
        }
        assert_eq!(families.len(), 15, "{families:?}");
    }
}
