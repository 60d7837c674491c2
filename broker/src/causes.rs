//! An error on one line, with everything that caused it.

/// Returns the error's message and those of its causes, outermost first, with a colon between them.
///
/// A cause whose text stands in the line already is left out: some errors quote what caused them.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write {0}")]
    struct Attempt(&'static str, #[source] io::Error);

    #[test]
    fn every_cause_is_said_once() {
        let full = || io::Error::other("the disk is full");
        assert_eq!(with_causes(&Attempt("x", full())), "cannot write x: the disk is full");
        assert_eq!(with_causes(&Attempt("x: the disk is full", full())), "cannot write x: the disk is full");
    }
}
