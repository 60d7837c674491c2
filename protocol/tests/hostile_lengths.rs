//! A message that claims more than it has allocates no more than it has.
//!
//! One test alone in its program, because it measures the memory of the whole process.

use peak_alloc::PeakAlloc;
use procbroker_protocol::binary;
use procbroker_protocol::frame::Frames;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// How many bytes were allocated at most while this ran, beyond those before.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = work();
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    drop(result);
    peak
}

#[test]
fn a_claimed_length_allocates_nothing() {
    // A u64 in bincode: 253 and eight bytes; a u32: 252 and four.
    let huge: [&[u8]; 4] = [
        &[253, 255, 255, 255, 255, 255, 255, 255, 127],
        &[253, 0, 0, 0, 0, 1, 0, 0, 0],
        &[252, 255, 255, 255, 255],
        &[252, 0, 0, 16, 0],
    ];
    // The id 7; then, by the method's number: a list (create's command), a text in a list, a map (list's
    // labels), a text in a map, a name (get's target).
    let requests: [&[u8]; 5] = [&[7, 0], &[7, 0, 1], &[7, 2], &[7, 2, 1], &[7, 3, 1]];
    // An answer to 7: children, a text of logs, ids of children, an error's message after its kind; a log's text.
    let messages: [&[u8]; 5] = [&[0, 7, 0, 8, 0], &[0, 7, 0, 1], &[0, 7, 0, 3], &[0, 7, 1, 0], &[1, 2, 3, 0]];
    for length in huge {
        for prefix in requests {
            let frame = [prefix, length].concat();
            let peak = peak(|| assert!(binary::decode_request(&frame).is_err()));
            assert!(peak < 4096, "{frame:?} allocated {peak} bytes");
        }
        for prefix in messages {
            let frame = [prefix, length].concat();
            let peak = peak(|| assert!(binary::decode_server_message(&frame).is_err()));
            assert!(peak < 4096, "{frame:?} allocated {peak} bytes");
        }
    }

    // A frame that announces a mebibyte and does not send it.
    let peak = peak(|| {
        let mut frames = Frames::new(1 << 20);
        frames.push(&(1_u32 << 20).to_le_bytes());
        frames.push(&[0; 100]);
        assert_eq!(frames.next_message(), None);
        frames
    });
    assert!(peak < 4096, "an announced frame allocated {peak} bytes");
}
