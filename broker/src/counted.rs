//! Numbers with their words, as people are told them.

use std::fmt::Display;

/// A number with its word: `1 child`, `2 children`.
pub(crate) fn counted<N: Display + PartialEq + From<u8> + Copy>(number: N, one: &str, many: &str) -> String {
    let word = if number == N::from(1) { one } else { many };
    format!("{number} {word}")
}

/// Writes so many children, in the singular or in the plural.
pub(crate) fn children<N: Display + PartialEq + From<u8> + Copy>(number: N) -> String {
    counted(number, "child", "children")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_told_in_the_singular() {
        assert_eq!([0_u32, 1, 2].map(children), ["0 children", "1 child", "2 children"]);
        assert_eq!(
            [0_usize, 1, 2].map(|n| counted(n, "event was", "events were")),
            ["0 events were", "1 event was", "2 events were"]
        );
    }
}
