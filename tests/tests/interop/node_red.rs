//! Node-RED, from npm, with the flow of `tests/interop/node-red`: its MQTT nodes command lamps, read receipts and answer signals.

use bugle_device::Target;
use bugle_tests::{App, Device, Gateway, Program, Version, foreign, source};
use serde_json::{Value, json};

/// The flow with its broker, in a folder of its own, which goes when this is dropped.
struct NodeRed {
    program: Program,
    folder: std::path::PathBuf,
}

impl NodeRed {
    fn start(gateway: &Gateway, version: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("bugle-test-node-red-{}", gateway.port));
        std::fs::create_dir_all(&folder).unwrap();
        let flow = std::fs::read_to_string(source("tests/interop/node-red/flows.json")).unwrap();
        let flow = flow.replace("PORT", &gateway.port.to_string()).replace("VERSION", version);
        std::fs::write(folder.join("flows.json"), flow).unwrap();
        std::fs::copy(source("tests/interop/node-red/settings.js"), folder.join("settings.js")).unwrap();
        let node_red = foreign("node-red/node_modules/node-red/red.js");
        let program =
            Program::start("node", &[node_red.as_os_str(), "--userDir".as_ref(), folder.as_os_str()]);
        Self { program, folder }
    }
}

impl Drop for NodeRed {
    fn drop(&mut self) {
        // The system clears its temporary files in any case.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn node_red_commands_lamps_reads_receipts_and_answers() {
    for version in ["4", "5"] {
        let gateway = Gateway::start(2).await;
        let mut lamps = [
            Device::member(&gateway, "lamp-1", "floor").await,
            Device::member(&gateway, "lamp-2", "floor").await,
        ];
        let mut app = App::connect(&gateway, Version::V5, "app").await;
        app.subscribe("node-red/status").await;
        app.subscribe("home/outcome").await;
        let node_red = NodeRed::start(&gateway, version);
        assert_eq!(app.message("node-red/status").await.text, "online", "{}", node_red.program.seen());

        // Its subscriptions follow its birth message; the last of them is its inbox. Nothing else tells that it is there.
        while lamps[0].send(Target::client("node-red"), "are you there?").await.unwrap()["node-red"]
            != "DELIVERED"
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(lamps[0].text().await, "heard are you there?");
        for list in ["lamp-1", "lamp-1,lamp-2", "lamp-2,lamp-3"] {
            app.publish("home/button", list).await;
            let outcome: Value = serde_json::from_str(&app.message("home/outcome").await.text).unwrap();
            for (index, lamp) in ["lamp-1", "lamp-2"].iter().enumerate() {
                let status = if list.contains(lamp) { json!("DELIVERED") } else { Value::Null };
                assert_eq!(outcome[*lamp], status, "{outcome}");
                if list.contains(lamp) {
                    assert_eq!(lamps[index].text().await, "toggle");
                }
            }
        }
        // It leaves what it told last for whoever comes later.
        let mut late = App::connect(&gateway, Version::V311, "late").await;
        late.subscribe("home/outcome").await;
        let kept = late.message("home/outcome").await;
        assert!(kept.retain);
        let kept: Value = serde_json::from_str(&kept.text).unwrap();
        assert_eq!(kept, json!({"lamp-2": "DELIVERED", "lamp-3": "NOT_MEMBER"}));

        node_red.program.signal("KILL").await;
        assert_eq!(app.message("node-red/status").await.text, "lost");
    }
}
