//! Small languages: durations, times, signals, names, masks.

use procbroker_protocol::create::Umask;
use procbroker_protocol::{Name, Signal, Since, Timestamp, duration};

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
    let _ = text.parse::<Since>();
    let json = serde_json::Value::from(text);
    if let Ok(read) = serde_json::from_value::<Timestamp>(json) {
        let shown = serde_json::to_value(read).unwrap_or_default();
        assert_eq!(serde_json::from_value::<Timestamp>(shown).ok(), Some(read), "{text:?}");
    }
}
