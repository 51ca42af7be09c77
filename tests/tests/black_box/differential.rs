//! Random sequences of packets from two clients, the same against Bugle and Mosquitto.

use bugle_tests::differential::{Plan, run};

#[tokio::test]
async fn two_thousand_sequences_differ_from_mosquittos_only_where_it_is_explained() {
    let plan = Plan { first_seed: 1_000_000, sequences: 2_000, threads: 2, at_once: 32, enough: 5 };
    let report = tokio::spawn(run(plan)).await.unwrap();
    assert!(report.unexplained.is_empty() && report.not_repeated.is_empty(), "{report}");
}
