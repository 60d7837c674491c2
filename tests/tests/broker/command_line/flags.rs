//! Errors of the broker name flags, and those of values say what is taken.

use serde_json::{Value, json};

use super::{DENIED, FAILED, NOT_FOUND, TAKEN, USAGE, failed};
use crate::harness::children::{willing, with};
use crate::harness::{TestBroker, is_root};

#[test]
fn what_the_broker_refuses_is_told_in_the_words_of_flags() {
    let broker = TestBroker::start();
    broker.json().create(with(willing(), &json!({"name": "zed"})));
    let cases: [(&[&str], i32, &str); 12] = [
        (&["--name", "zed"], TAKEN, "use --if-exists reuse or replace"),
        (&["--if-exists", "reuse"], USAGE, "invalid value for --if-exists: reuse and replace need a name"),
        (&["--watchdog", "3s"], USAGE, "give --ready notify with it"),
        (&["--linger", "5s"], USAGE, "it needs --lifetime connection"),
        (&["--group", "no-such"], FAILED, "the group (--group) no-such was not found"),
        (&["--user", "no-such"], FAILED, "the user (--user) no-such was not found"),
        (&["--rlimit", "nofile=9999999999"], FAILED, "setting the limits (--rlimit) failed with"),
        (&["--rlimit", "files=9"], USAGE, "invalid value for --rlimit: \"files\" is none of"),
        (&["--resource", "cpu_weight=0"], USAGE, "invalid value for --resource cpu_weight: it is from 1"),
        (
            &["--resource=memory_max=1M", "--resource=memory_high=2M"],
            USAGE,
            "invalid value for --resource memory_high: it is 2097152 bytes, which memory_max, 1048576 bytes, lets nothing",
        ),
        (
            &["--restart=always", "--restart-backoff=1m"],
            USAGE,
            "invalid value for --restart-backoff: the first pause is 1m, and the longest (--restart-backoff-max) 30s;",
        ),
        (
            &["--restart=never", "--restart-max=3"],
            USAGE,
            "invalid value for --restart-max: it is 3, and the policy (--restart) never restarts nothing;",
        ),
    ];
    for (flags, status, said) in cases {
        failed(&broker.run(&[&["create"], flags, &["--", "true"]].concat()), status, said);
    }
    failed(&broker.run(&["renew", "zed"]), FAILED, "(--lifetime ttl:DURATION)");
    failed(&broker.run(&["get", "nobody"]), NOT_FOUND, "'procbroker list' shows them");
    // Programs get what is on the wire.
    let refused = broker.run(&["create", "--json", "--name", "zed", "--", "true"]);
    let error: Value = serde_json::from_str(&refused.err).expect("the error object");
    assert!(error["message"].as_str().unwrap().contains("use if_exists reuse or replace"), "{error}");
}

#[test]
fn a_broker_without_control_groups_names_the_flag_of_the_bound() {
    let broker = crate::harness::Setup::new().flags(["--containment", "subreaper"]).start();
    let said = broker.run(&["create", "--resource", "memory_max=1G", "--", "true"]);
    failed(&said, FAILED, "procbroker: --resource memory_max cannot be had here");
    if is_root() {
        return;
    }
    let said = broker.run(&["create", "--group", "0", "--", "true"]);
    failed(&said, DENIED, "only a broker that runs as root can");
}

#[test]
fn a_number_that_is_none_says_which_are_taken() {
    let broker = TestBroker::start();
    for (arguments, said) in [
        (&["logs", "-n", "all", "x"][..], "\"all\" is not a whole number from 0 to 4294967295"),
        (
            &["create", "--stop-order", "x", "--", "true"],
            "\"x\" is not a whole number from -2147483648 to 2147483647",
        ),
        (&["create", "--restart-max=-1", "--", "true"], "\"-1\" is not a whole number from 0"),
        (&["create", "--request-id", "foo", "--", "true"], "\"foo\" is not a UUID, such as"),
        (&["serve", "--max-children", "0"], "\"0\" is not a whole number from 1 to 4294967295"),
        (&["list", "--name", "["], "\"[\" is not a pattern such as 'render-*'"),
        (&["create", "--user", "", "--", "true"], "give the name or the number of one"),
    ] {
        failed(&broker.run(arguments), USAGE, said);
    }
}
