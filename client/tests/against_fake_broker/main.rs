//! The client against a broker that each test plays itself, message by message.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
#![expect(
    clippy::unnecessary_wraps,
    reason = "what the broker answers is a result, also when it is a good one"
)]

mod blocking;
mod fake;
mod handshake;
mod holds;
mod multiplexing;
mod nonsense;
mod retries;
mod subscriptions;
mod upgrade;
