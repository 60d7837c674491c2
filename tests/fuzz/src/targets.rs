//! The list of all targets.

mod decoders;
mod framing;
mod readers;
mod record;
mod texts;

/// One of the fuzzer's targets.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called, and the folder of its corpus.
    pub name: &'static str,
    /// Takes in any bytes; a panic is a finding.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 11] = [
    Target { name: "json_requests", run: decoders::json_requests },
    Target { name: "binary_requests", run: decoders::binary_requests },
    Target { name: "binary_answers", run: decoders::binary_answers },
    Target { name: "lines", run: framing::lines },
    Target { name: "frames", run: framing::frames },
    Target { name: "record", run: record::record },
    Target { name: "intent_log", run: readers::intent_log },
    Target { name: "handover", run: readers::handover },
    Target { name: "notices", run: readers::notices },
    Target { name: "proc", run: readers::proc },
    Target { name: "texts", run: texts::texts },
];

/// Returns the target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
