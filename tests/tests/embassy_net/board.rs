//! A board: an embassy-net stack at one end of a cable. At the other end stands a second stack, which forwards each TCP
//! connection to the gateway.

use std::rc::Rc;

use bugle_tests::Gateway;
use embassy_net::driver::{HardwareAddress, LinkState};
use embassy_net::tcp::TcpSocket;
use embassy_net::{Config, Ipv4Address, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use embassy_net_driver_channel as channel;
use embassy_time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::cable::{Cable, MTU};

/// Where the board finds the gateway.
pub const GATEWAY: (Ipv4Address, u16) = (Ipv4Address::new(10, 0, 0, 1), 1883);

const BOARD: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);
/// Connections at a time, those included of which only one end knows that they are over.
const CONNECTIONS: usize = 6;

type Frames = channel::State<MTU, 32, 32>;
type Ends = (channel::TxRunner<'static, MTU>, channel::RxRunner<'static, MTU>);

/// Makes a board at one end of this cable, and connects the other to the gateway.
pub fn board(gateway: &Gateway, cable: &Rc<Cable>, seed: u64) -> Stack<'static> {
    let (board, (from_board, to_board)) = stack(BOARD, seed);
    let (router, (from_router, to_router)) = stack(GATEWAY.0, !seed);
    for (from, to) in [(from_board, to_router), (from_router, to_board)] {
        let cable = cable.clone();
        spawn_local(async move { cable.carry(from, to).await });
    }
    for _ in 0..CONNECTIONS {
        spawn_local(forward(router, gateway.port));
    }
    board
}

/// A stack that runs in a task of its own, and the lower end of its device.
fn stack(address: Ipv4Address, seed: u64) -> (Stack<'static>, Ends) {
    let frames: &'static mut Frames = Box::leak(Box::new(Frames::new()));
    let [a, b, c, d] = address.octets();
    let (lower, device) = channel::new(frames, HardwareAddress::Ethernet([2, 0, a, b, c, d]));
    let (state, to_stack, from_stack) = lower.split();
    state.set_link_state(LinkState::Up);
    let resources = Box::leak(Box::new(StackResources::<{ CONNECTIONS + 2 }>::new()));
    let config = StaticConfigV4 {
        address: Ipv4Cidr::new(address, 24),
        gateway: None,
        dns_servers: Default::default(),
    };
    let (stack, mut runner) = embassy_net::new(device, Config::ipv4_static(config), resources, seed);
    spawn_local(async move { runner.run().await });
    (stack, (from_stack, to_stack))
}

/// Takes one connection at a time and carries its bytes to and from the gateway.
async fn forward(stack: Stack<'static>, port: u16) {
    let (mut receive, mut transmit) = ([0; 8192], [0; 8192]);
    loop {
        let mut socket = TcpSocket::new(stack, &mut receive, &mut transmit);
        socket.set_nagle_enabled(false);
        // Whoever is cut off for good is noticed some day.
        socket.set_timeout(Some(Duration::from_secs(60)));
        if socket.accept(GATEWAY.1).await.is_err() {
            continue;
        }
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        stream.set_nodelay(true).unwrap();
        let is_closed_by_gateway = carry(&mut socket, &mut stream).await;
        // An orderly end is carried over. Any other is one that the gateway sees as a lost connection.
        if is_closed_by_gateway {
            socket.close();
            let _ = socket.flush().await;
        } else {
            stream.set_zero_linger().unwrap();
        }
    }
}

/// Ends when either side does, and says whether it was the gateway's.
async fn carry(socket: &mut TcpSocket<'_>, stream: &mut TcpStream) -> bool {
    let (mut board_reads, mut board_writes) = socket.split();
    let (mut gateway_reads, mut gateway_writes) = stream.split();
    let up = async {
        let mut bytes = [0; 2048];
        while let Ok(length @ 1..) = board_reads.read(&mut bytes).await {
            if gateway_writes.write_all(&bytes[..length]).await.is_err() {
                break;
            }
        }
        false
    };
    let down = async {
        let mut bytes = [0; 2048];
        while let Ok(length @ 1..) = gateway_reads.read(&mut bytes).await {
            let mut rest = &bytes[..length];
            while !rest.is_empty() {
                let Ok(written) = board_writes.write(rest).await else { return false };
                rest = &rest[written..];
            }
        }
        true
    };
    tokio::select! {
        is_closed_by_gateway = up => is_closed_by_gateway,
        is_closed_by_gateway = down => is_closed_by_gateway,
    }
}
