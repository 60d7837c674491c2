//! Small languages: durations, times, signals, names, masks, sizes, shares of processors.

use procbroker_protocol::create::{CpuMax, Umask};
use procbroker_protocol::{Name, Signal, Since, Timestamp, byte_size, duration};

/// What is understood says the same when it is shown and read again.
pub(super) fn texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(read) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::display(read).to_string()).ok(), Some(read), "{text:?}");
    }
    if let Ok(read) = text.parse::<Signal>() {
        assert_eq!(read.to_string().parse::<Signal>().ok(), Some(read), "{text:?}");
    }
    if let Ok(read) = text.parse::<Name>() {
        assert_eq!(read.as_str(), text);
    }
    if let Ok(read) = text.parse::<Umask>() {
        let shown = serde_json::to_value(read).unwrap_or_default();
        assert_eq!(serde_json::from_value::<Umask>(shown).ok(), Some(read), "{text:?}");
    }
    if let Ok(read) = text.parse::<CpuMax>() {
        assert_eq!(read.to_string().parse::<CpuMax>().ok(), Some(read), "{text:?}");
    }
    if let Some(bytes) = byte_size::parse(text) {
        assert_eq!(byte_size::parse(&bytes.to_string()), Some(bytes), "{text:?}");
    }
    let _ = text.parse::<Since>();
    let json = serde_json::Value::from(text);
    if let Ok(read) = serde_json::from_value::<Timestamp>(json) {
        let shown = serde_json::to_value(read).unwrap_or_default();
        assert_eq!(serde_json::from_value::<Timestamp>(shown).ok(), Some(read), "{text:?}");
    }
}
