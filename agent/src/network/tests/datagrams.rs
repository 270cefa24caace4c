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

/// The process runs another program.
fn exec(who: &Actors, name: &'static str) -> Actors {
    let mut info = who.info;
    info.task.exec_id += 1;
    Arc::new(Actor { info, process: name })
}

fn uncounted_from(time: u64, socket: SocketInfo) -> SocketState {
    SocketState { flags: socket_flags::UNCOUNTED, ..change(time, socket_change::DATAGRAM, socket) }
}

fn uncounted_to(time: u64, socket: SocketInfo) -> SocketCall {
    SocketCall { flags: socket_flags::UNCOUNTED, ..call(time, socket_act::DATAGRAM, socket) }
}

/// Ticks each second until something is told, and says when that was.
fn waits(world: &mut World, from: u64) -> (u64, Vec<Act<&'static str>>) {
    (from..from + 200)
        .map(|second| (second, world.ticks(second * SECOND).told()))
        .find(|(_, acts)| !acts.is_empty())
        .expect("it is idle for long")
}

#[test]
fn another_program_in_the_same_process_is_another_sender() {
    let shell = actor(7, "sh");
    let mut world = World::new();
    world.sends(&shell, SECOND, udp(1)).sends(&exec(&shell, "nc"), 2 * SECOND, udp(1));
    world.changes(&released(3 * SECOND, 7, udp(1))).ticks(4 * SECOND);
    let acts = world.told();
    assert_eq!(line(&acts[1]), "network.connect nc acted outbound sent of sh");
    assert_eq!(acts[2].body.packets_sent, Some(2));
    assert!(world.kernel.flows.is_empty());
}

#[test]
fn what_the_kernel_has_no_room_for_is_told_and_not_kept() {
    let (named, dig) = (actor(7, "named"), actor(8, "dig"));
    let mut world = World::folding(10);
    let unbound = SocketInfo { remote: [0; 16], remote_port: 0, ..udp(1) };
    world.calls(&named, &call(SECOND, socket_act::BIND, unbound)).told();
    for port in 1000..1003 {
        let from = SocketInfo { remote_port: port, ..udp(1) };
        world.changes(&uncounted_from(SECOND, from)).calls(&dig, &uncounted_to(SECOND, udp(2)));
    }
    assert_eq!((world.monitor.known().flows, world.monitor.lost()[&("network", "flows_full")]), (0, 6));
    let acts = world.ticks(20 * SECOND).told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "network.accept named opener inbound",
            "network.connect dig acted outbound sent",
            "network.flow named opener inbound x2",
            "network.flow dig acted outbound x2"
        ]
    );
    assert!(acts.iter().all(|act| act.body.connection.is_empty() && act.body.bytes_sent.is_none()));
}

#[test]
fn what_comes_to_a_raw_socket_is_not_told_as_nothing() {
    let raw = |cookie| SocketInfo { protocol: 1, kind: 3, remote_port: 0, ..udp(cookie) };
    let ping = actor(7, "ping");
    let mut world = World::folding(10);
    for cookie in 1..=2 {
        world.sends(&ping, SECOND, raw(cookie)).changes(&released(2 * SECOND, 7, raw(cookie)));
    }
    let acts = world.ticks(20 * SECOND).told();
    assert_eq!(acts.len(), 3);
    for body in acts[1..].iter().map(|act| &act.body) {
        assert_eq!((body.packets_sent, body.bytes_sent), (Some(1), Some(100)));
        assert_eq!((body.packets_received, body.bytes_received), (None, None));
    }
}

#[test]
fn many_senders_of_one_flow_take_a_bounded_number_of_keys() {
    let mut world = World::new();
    for pid in 1..=200 {
        world.sends(&actor(pid, "child"), SECOND, udp(1)).receives(SECOND, udp(1));
    }
    world.ticks(2 * SECOND);
    assert_eq!(world.kernel.flows.len(), 64 + 1);
    // One that was forgotten sends again.
    world.sends(&actor(1, "child"), 3 * SECOND, udp(1)).ticks(4 * SECOND);
    assert_eq!(world.kernel.flows.len(), 64 + 1);
    world.changes(&released(5 * SECOND, 1, udp(1))).ticks(6 * SECOND);
    let acts = world.told();
    let body = &acts.last().unwrap().body;
    assert_eq!((body.packets_sent, body.packets_received), (Some(201), Some(200)));
    assert!(world.kernel.flows.is_empty() && world.monitor.is_empty());
}

#[test]
fn every_key_without_room_is_forgotten_by_the_kernel() {
    let mut world = World::with(Options { flows: 0, ..Options::default() });
    for cookie in 1..=20_000 {
        world.receives(SECOND, udp(cookie));
    }
    world.ticks(2 * SECOND).ticks(3 * SECOND);
    assert!(world.kernel.flows.is_empty());
}

#[test]
fn an_answer_to_a_flow_that_was_idle_is_no_connection_from_outside() {
    let mut world = World::new();
    world.sends(&actor(7, "dig"), SECOND, udp(1));
    let begin = world.told().remove(0);
    let (idle, acts) = waits(&mut world, 2);
    assert_eq!(line(&acts[0]), "network.close dig opener outbound idle");
    let again = idle + 500;
    world.receives(again * SECOND, udp(1)).ticks(again * SECOND);
    assert_eq!(world.story(), [""; 0]);
    let (idle, acts) = waits(&mut world, again + 1);
    assert_eq!(line(&acts[0]), "network.close dig opener outbound idle");
    let body = &acts[0].body;
    assert_eq!(body.connection, begin.body.connection);
    assert_eq!((body.packets_sent, body.packets_received), (Some(0), Some(1)));
    // What comes in much later is a story of its own.
    let later = idle + 601;
    world.receives(later * SECOND, udp(1)).ticks((later + 2) * SECOND);
    assert_eq!(world.story(), ["network.accept dig opener inbound"]);
}

#[test]
fn what_is_sent_by_a_flow_that_was_idle_begins_another_one() {
    let mut world = World::new();
    world.sends(&actor(7, "dig"), SECOND, udp(1)).told();
    let (idle, _) = waits(&mut world, 2);
    world.sends(&actor(7, "dig"), (idle + 1) * SECOND, udp(1));
    world.changes(&released((idle + 2) * SECOND, 7, udp(1))).ticks((idle + 3) * SECOND);
    assert_eq!(
        world.story(),
        ["network.connect dig acted outbound sent", "network.close dig acted outbound closed"]
    );
}

#[test]
fn idle_flows_are_not_remembered_for_ever() {
    let mut world = World::new();
    world.sends(&actor(7, "dig"), SECOND, udp(1)).ticks(40 * SECOND).ticks(100 * SECOND);
    world.changes(&released(101 * SECOND, 7, udp(1)));
    assert!(!world.monitor.is_empty());
    world.ticks(800 * SECOND);
    assert!(world.monitor.is_empty());
}
