//! The example application: the lamp obeys, reports and answers, its button commands its group, its will tells of its
//! loss; on a Cortex-M3 and a Cortex-M4. And how deep the stack was.

use bugle_tests::{App, Core, Firmware, Gateway, Version, soon};

#[tokio::test]
async fn qemu_a_lamp_obeys_reports_answers_and_is_missed_on_m3_and_m4() {
    for core in [Core::M3, Core::M4] {
        let gateway = Gateway::start(2).await;
        let mut app = App::member(&gateway, Version::V5, "app", "floor3").await;
        app.subscribe("lamps/#").await;
        let mut lamp = Firmware::boot(&gateway, core, "lamp", "lamp-1", &["report=1"]).await;
        assert_eq!(app.message("lamps/lamp-1/state").await.text, "off");
        assert_eq!(app.message("lamps/lamp-1/celsius").await.text, "21.0");
        assert_eq!(app.message("lamps/lamp-1/celsius").await.text, "21.1");

        app.publish("sig/c/lamp-1", "on").await;
        lamp.line("lamp on").await;
        assert_eq!(app.message("lamps/lamp-1/state").await.text, "on");
        app.publish("sig/g/floor3?only=lamp-1", "toggle").await;
        assert_eq!(app.message("lamps/lamp-1/state").await.text, "off");
        app.publish("sig/c/lamp-1", "state?").await;
        assert_eq!(app.message("sig/c/app").await.text, "off");
        // More than its buffer takes, refused to the sender; and what is no command.
        let receipt = app.send("sig/c/lamp-1?receipt=each", &"x".repeat(4000)).await;
        assert_eq!(receipt["statuses"]["lamp-1"], "OVERFLOW");
        app.publish("sig/c/lamp-1", "explode").await;
        lamp.line("not a command").await;

        let mut second = Firmware::boot(&gateway, core, "lamp", "lamp-2", &[]).await;
        second.line("connected").await;
        assert_eq!(app.message("lamps/lamp-2/state").await.text, "off");
        lamp.tell("").await;
        lamp.line("pressed: on").await;
        second.line("lamp on").await;
        assert_eq!(app.message("sig/g/floor3").await.text, "on");
        for id in ["lamp-1", "lamp-2"] {
            assert_eq!(app.message(&format!("lamps/{id}/state")).await.text, "on");
        }

        drop(lamp);
        let lost = async { while app.message("lamps/lamp-1/state").await.text != "lost" {} };
        soon("the will", lost).await;
    }
}

/// The stack has 20 of the board's 64 KiB of RAM, by `memory.x`.
#[tokio::test]
async fn qemu_a_fifth_of_the_stack_is_free_after_all_kinds_of_work() {
    let gateway = Gateway::start(1).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &["secret=a-secret"]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    board.send("g/floor *8192").await;
    board.send("g/floor only=app,a,b,c,d,e except=f ttl=500 urgent=1 x").await;
    app.send("sig/c/board?receipt=each", &"y".repeat(8192)).await;
    board.got().await;
    let stack = board.does("report", "stack").await;
    println!("{stack}");
    let words: Vec<&str> = stack.split(' ').collect();
    let [used, size] = [words[1], words[3]].map(|word| word.parse::<u32>().unwrap());
    assert!(used > 1_000 && used * 5 < size * 4, "{stack}");
    board.tell("end").await;
    board.line("ended: Stopped").await;
    assert_eq!(board.ended().await, Some(0));
}
