//! A few seconds of the soak that docs/reliability.md is about.

use bugle_tests::soak::Soak;

#[tokio::test]
async fn a_fleet_under_faults_has_every_message_accounted_for() {
    let soak = Soak {
        seconds: 5,
        deliveries: 5_000,
        faults: 20,
        groups: 3,
        members: 8,
        rate: 250,
        fault_interval: 200,
        shards: 2,
        data_dir: None,
        only_kills: false,
        seed: 7,
    };
    let outcome = soak.run().await;
    assert_eq!(outcome.violations, 0, "{}", outcome.report);
}
