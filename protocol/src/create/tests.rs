//! What a `create`'s parameters read as, and what is refused.

use super::*;

fn read(json: &str) -> Result<CreateParams, serde_json::Error> {
    serde_json::from_str(json)
}

#[test]
fn absent_and_null_mean_the_default() {
    let absent = read(r#"{"command": ["true"]}"#).unwrap();
    assert_eq!(absent, CreateParams::new(vec!["true".into()]));
    let fields = [
        "name",
        "if_exists",
        "request_id",
        "labels",
        "cwd",
        "env",
        "env_clear",
        "umask",
        "user",
        "groups",
        "stdin",
        "stdout",
        "stderr",
        "stop",
        "stop_order",
        "ready",
        "ready_timeout",
        "no_wait",
        "restart",
        "lifetime",
        "linger",
        "cleanup",
        "limit",
        "rlimits",
        "resources",
        "watchdog",
    ];
    for field in fields {
        let json = format!(r#"{{"command": ["true"], "{field}": null}}"#);
        assert_eq!(read(&json).unwrap(), absent, "{field}");
    }
}

#[test]
fn null_means_the_default_within_a_parameter_too() {
    let absent =
        read(r#"{"command": ["a"], "restart": {}, "stop": [{"signal": 1}], "cleanup": {"command": []}}"#);
    let null = read(
        r#"{"command": ["a"], "restart": {"policy": null, "max": null, "window": null, "backoff": null, "backoff_max": null},
            "stop": [{"signal": 1, "grace": null}], "cleanup": {"command": [], "timeout": null}}"#,
    );
    assert_eq!(null.unwrap(), absent.unwrap());
}

/// Reads a value of the binary encoding.
fn read_binary<T: serde::de::DeserializeOwned>(value: impl serde::Serialize) -> Option<T> {
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(value, config).unwrap();
    bincode::serde::decode_from_slice(&bytes, config).ok().map(|(value, _)| value)
}

#[test]
fn what_json_cannot_say_is_not_taken_in_the_binary_encoding() {
    let tcp = |port: u16| Ready::tcp(([127, 0, 0, 1], port));
    assert_eq!(read_binary(tcp(1)), Some(tcp(1)));
    assert_eq!(read_binary::<Ready>(tcp(0)), None);
    let named = |bytes| Account::Name("a".repeat(bytes));
    assert_eq!(read_binary(named(ACCOUNT_NAME_BYTES_MAX)), Some(named(ACCOUNT_NAME_BYTES_MAX)));
    assert_eq!(read_binary::<Account>(named(ACCOUNT_NAME_BYTES_MAX + 1)), None);
}

#[test]
fn a_name_that_no_account_can_have_is_refused() {
    let with = |name: &str| read(&format!(r#"{{"command": ["a"], "user": "{name}"}}"#));
    assert!(with(&"a".repeat(ACCOUNT_NAME_BYTES_MAX)).is_ok());
    let refusal = with(&"a".repeat(ACCOUNT_NAME_BYTES_MAX + 1)).unwrap_err().to_string();
    assert!(refusal.contains("a name of 257 bytes is no user's or group's"), "{refusal}");
}

#[test]
fn the_longest_duration_reads_back_and_no_longer_one_is_taken() {
    let with = |grace: &str| {
        read(&format!(r#"{{"command": ["a"], "stop": [{{"signal": 15, "grace": "{grace}"}}]}}"#))
    };
    for longest in ["36600days", "36599days 86399s 999999999ns"] {
        let json = serde_json::to_string(&with(longest).unwrap()).unwrap();
        assert!(read(&json).is_ok(), "{json}");
    }
    assert!(with("36600days 1ns").is_err());
}

#[test]
fn the_id_that_means_no_change_is_nobodys() {
    assert_eq!(Account::from_text("4294967294"), Account::Id(u32::MAX - 1));
    assert_eq!(Account::from_text("4294967295"), Account::Name("4294967295".into()));
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(Account::Id(u32::MAX), config).unwrap();
    assert!(bincode::serde::decode_from_slice::<Account, _>(&bytes, config).is_err());
}

#[test]
fn every_parameter_reads_back_as_written() {
    let json = r#"{"command":["a","b"],"name":"n","if_exists":"reuse","request_id":"67e55044-10b1-426f-9247-bb680e5fe0c8","labels":{"k":"v"},"cwd":"/tmp","env":{"A":"1"},"env_clear":true,"umask":"077","user":"www-data","groups":["adm",4],"stdin":"null","stdout":"null","stderr":"log","stop":[{"signal":"SIGHUP","grace":0.5}],"stop_order":-3,"ready":"notify","ready_timeout":5,"no_wait":true,"restart":{"policy":"on-failure","max":2,"window":10,"backoff":1,"backoff_max":8},"lifetime":{"ttl":60},"linger":3,"cleanup":{"command":["rm","x"],"timeout":9},"limit":{"key":"k","max":4,"wait":1.5},"rlimits":{"core":"unlimited","nofile":1024},"resources":{"memory_max":1048576,"cpu_weight":100,"cpu_max":"50000 100000","pids_max":64,"memory_high":524288,"io_weight":50},"watchdog":20}"#;
    let params = read(json).unwrap();
    assert_eq!(serde_json::to_string(&params).unwrap(), json);
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(&params, config).unwrap();
    let (back, length): (CreateParams, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
    assert_eq!((back, length), (params, bytes.len()));
}

#[test]
fn a_field_out_of_form_is_refused() {
    let fields = [
        r#""umask": 18"#,
        r#""umask": "9""#,
        r#""umask": "1000""#,
        r#""umask": "+22""#,
        r#""user": -1"#,
        r#""user": 4294967295"#,
        r#""stdin": "inherit""#,
        r#""stdout": "stdout""#,
        r#""lifetime": "pid""#,
        r#""ready": "log""#,
        r#""ready": {}"#,
        r#""ready": ["spawn"]"#,
        r#""watchdog": -1"#,
        r#""limit": {"key": "k", "max": 1, "wait": "soon"}"#,
        r#""resources": {"memory": 1}"#,
        r#""stop": [{"signal": "SIGFOO"}]"#,
        r#""stop": [{"grace": 1}]"#,
        r#""limit": {"key": "k"}"#,
        r#""restart": {"policy": "sometimes"}"#,
        r#""rlimits": {"nofile": -1}"#,
        r#""surprise": 1"#,
        r#""command": ["twice"]"#,
        r#""stop": {"signal": "SIGTERM"}"#,
    ];
    for field in fields {
        assert!(read(&format!(r#"{{"command": ["true"], {field}}}"#)).is_err(), "{field}");
    }
    assert!(read("{}").is_err());
}
