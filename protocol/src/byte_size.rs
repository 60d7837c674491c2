//! Numbers of bytes as people write them: `16MiB`, `500k`, `65536`.

/// The suffixes, by what they multiply with: powers of 1024.
pub const SUFFIXES: [(char, u32); 4] = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];

/// Reads a number of bytes: digits alone, or with k, M, G or T (powers of 1024), as in `16MiB` or `500k`.
///
/// Returns nothing where the text has another form, or stands for more than 64 bits hold.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    // KB is 1000 bytes to some and 1024 to others, so that it is not taken.
    let short = lower.strip_suffix("ib").unwrap_or(&lower);
    let suffix = SUFFIXES.iter().find_map(|(suffix, shift)| Some((short.strip_suffix(*suffix)?, *shift)));
    let (digits, shift) = match suffix {
        Some((digits, shift)) => (digits, shift),
        None => (lower.as_str(), 0),
    };
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| only_digits);
    number.and_then(|number| number.checked_mul(1 << shift))
}
