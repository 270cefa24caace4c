//! Flows of datagrams.

use super::*;

fn released(time: u64, pid: u32, socket: SocketInfo) -> SocketState {
    let nowhere = SocketInfo { remote: [0; 16], remote_port: 0, ..socket };
    by(pid, change(time, socket_change::RELEASED, nowhere))
}

#[test]
fn a_flow_is_told_by_its_first_datagram_and_ends_with_its_socket() {
    let dig = actor(7, "dig");
    let mut world = World::new();
    world.sends(&dig, SECOND, udp(1)).receives(SECOND + MILLI, udp(1));
    world.kernel.counts(&udp(1), 0, 2);
    world.changes(&released(3 * SECOND, 7, udp(1))).ticks(4 * SECOND);
    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(lines, ["network.connect dig acted outbound sent", "network.close dig acted outbound closed"]);
    let close = &acts[1].body;
    assert_eq!(close.connection, acts[0].body.connection);
    assert_eq!((acts[1].time, close.duration), (3 * SECOND, 2 * SECOND));
    assert_eq!((close.packets_sent, close.bytes_sent), (Some(1), Some(100)));
    assert_eq!((close.packets_received, close.bytes_received), (Some(3), Some(300)));
    assert!(world.kernel.flows.is_empty());
    assert!(world.monitor.is_empty());
}

#[test]
fn a_flow_that_comes_in_is_of_who_has_the_socket() {
    let named = actor(7, "named");
    let mut world = World::new();
    let unbound = SocketInfo { local: [0; 16], remote: [0; 16], remote_port: 0, ..udp(1) };
    world.calls(&named, &call(SECOND, socket_act::BIND, unbound));
    world.receives(2 * SECOND, udp(1));
    world.sends(&actor(8, "worker"), 2 * SECOND + MILLI, udp(1));
    world.changes(&released(3 * SECOND, 7, udp(1))).ticks(4 * SECOND);
    assert_eq!(
        world.story(),
        [
            "network.bind named acted",
            "network.accept named opener inbound",
            "network.close 7 acted inbound closed of worker"
        ]
    );
}

#[test]
fn a_flow_that_comes_in_to_nobody_waits_for_an_answer() {
    let mut world = World::new();
    world.receives(SECOND, udp(1)).ticks(2 * SECOND);
    assert_eq!(world.story(), [""; 0]);
    world.sends(&actor(7, "named"), 2 * SECOND, udp(1)).ticks(9 * SECOND);
    assert_eq!(world.story(), ["network.accept named opener inbound"]);
    world.receives(10 * SECOND, SocketInfo { remote_port: 1234, ..udp(2) }).ticks(12 * SECOND);
    assert_eq!(world.story(), ["network.accept nobody inbound"]);
    world.receives(13 * SECOND, SocketInfo { remote_port: 99, ..udp(2) });
    world.changes(&released(13 * SECOND, 9, udp(2))).ticks(14 * SECOND);
    assert_eq!(
        world.story(),
        [
            "network.accept 9 opener inbound",
            "network.close 9 acted inbound closed",
            "network.close 9 acted inbound closed"
        ]
    );
}

#[test]
fn a_socket_found_at_the_start_is_its_owners() {
    let mut world = World::new();
    let found = SocketState { new: state::CLOSE, ..change(SECOND, socket_change::SNAPSHOT, udp(1)) };
    world.monitor.found(&found, actor(7, "named"));
    world.monitor.found(&found, actor(8, "child"));
    world.monitor.snapshot_ends(SECOND);
    world.receives(2 * SECOND, udp(1));
    assert_eq!(world.story(), ["network.accept named owner inbound"]);
}

#[test]
fn another_program_that_sends_by_the_socket_is_told_too() {
    let mut world = World::new();
    world.sends(&actor(7, "parent"), SECOND, udp(1)).sends(&actor(8, "child"), 2 * SECOND, udp(1));
    world.sends(&actor(7, "parent"), 3 * SECOND, udp(1));
    world.changes(&by(8, change(4 * SECOND, socket_change::RELEASED, udp(1)))).ticks(5 * SECOND);
    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "network.connect parent acted outbound sent",
            "network.connect child acted outbound sent of parent",
            "network.close 8 acted outbound closed of parent"
        ]
    );
    assert_eq!(acts[2].body.packets_sent, Some(3));
    assert!(world.kernel.flows.is_empty());
}

#[test]
fn a_flow_ends_when_nothing_went_by_for_a_while() {
    let mut world = World::new();
    world.sends(&actor(7, "dig"), SECOND, udp(1)).told();
    let mut ended = None;
    for second in 2..200 {
        if second < 60 {
            world.kernel.counts(&udp(1), 7, 1);
        }
        world.ticks(second * SECOND);
        if let Some(act) = world.told().into_iter().next() {
            ended = Some((second, act));
            break;
        }
    }
    let (second, act) = ended.expect("it is idle for long");
    assert_eq!(line(&act), "network.close dig opener outbound idle");
    assert!((89..=120).contains(&second), "{second}");
    assert_eq!(act.body.packets_sent, Some(59));
    assert!(act.body.duration >= 58 * SECOND && act.body.duration <= 75 * SECOND, "{}", act.body.duration);
    // So the kernel tells of the next one as of a first.
    assert!(world.kernel.flows.is_empty());
    assert!(world.monitor.known().flows == 0);
}

#[test]
fn all_flows_are_looked_at_in_turn() {
    let dig = actor(7, "dig");
    let mut world = World::new();
    for cookie in 1..=1000 {
        world.sends(&dig, SECOND, udp(cookie));
    }
    world.told();
    let mut most = 0;
    for second in 2..=70 {
        world.ticks(second * SECOND);
        most = most.max(world.told().len());
    }
    assert_eq!(world.monitor.known().flows, 0);
    assert!(most <= 1000 / 14, "{most} in one tick");
}

#[test]
fn a_flow_without_room_is_told_at_once_and_tried_again() {
    let dig = actor(7, "dig");
    let mut world = World::with(Options { flows: 1, ..Options::default() });
    world.sends(&dig, SECOND, udp(1)).sends(&dig, SECOND, udp(2));
    let acts = world.told();
    assert_eq!(line(&acts[1]), "network.connect dig acted outbound sent");
    assert_eq!(acts[1].body.connection, "");
    assert_eq!(world.monitor.lost()[&("network", "table_full")], 1);
    assert_eq!(world.kernel.flows.len(), 2);
    world.ticks(2 * SECOND);
    assert_eq!(world.kernel.flows.len(), 1);
}

#[test]
fn flows_end_with_the_agent() {
    let mut world = World::new();
    world.sends(&actor(7, "dig"), SECOND, udp(1)).receives(SECOND, udp(2)).finishes(3 * SECOND);
    assert_eq!(
        world.story(),
        [
            "network.connect dig acted outbound sent",
            "network.close dig opener outbound unknown",
            "network.accept nobody inbound",
            "network.close nobody inbound unknown"
        ]
    );
    assert!(world.monitor.is_empty() && world.kernel.flows.is_empty());
}
