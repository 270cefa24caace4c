//! Repeats within a window.

use super::*;

fn short(world: &mut World, who: &Actors, time: u64, socket: SocketInfo) {
    world.connects(who, time, socket).establishes(time + MILLI, socket);
    let end = goes(time + 3 * MILLI, socket, state::FIN_WAIT2, state::CLOSE);
    world.changes(&by(
        who.info.task.pid,
        goes(time + 2 * MILLI, socket, state::ESTABLISHED, state::FIN_WAIT1),
    ));
    world.changes(&SocketState { bytes_sent: 10, packets_received: 2, ..end });
}

#[test]
fn the_first_is_told_as_itself_and_the_rest_of_the_window_as_one() {
    let curl = actor(7, "curl");
    let mut world = World::folding(10);
    for socket in 1..=5 {
        short(&mut world, &curl, socket * SECOND, tcp(socket));
    }
    world.ticks(10 * SECOND);
    assert_eq!(
        world.story(),
        ["network.connect curl acted outbound established", "network.close curl acted outbound closed"]
    );
    world.ticks(11 * SECOND + MILLI);
    let acts = world.told();
    assert_eq!(acts.len(), 1);
    let (act, body) = (&acts[0], &acts[0].body);
    assert_eq!(line(act), "network.flow curl acted outbound x4");
    assert_eq!((act.time, act.first, act.last), (2 * SECOND, Some(2 * SECOND), Some(5 * SECOND + 3 * MILLI)));
    assert_eq!((body.count, body.failed, body.connection.as_str()), (4, 0, ""));
    assert_eq!((body.bytes_sent, body.packets_received), (Some(40), Some(8)));
    assert_eq!((body.local.as_ref().unwrap().port, body.remote.as_ref().unwrap().port), (None, Some(443)));
    // After it the next is a first again.
    short(&mut world, &curl, 12 * SECOND, tcp(9));
    assert_eq!(world.told().len(), 2);
    world.ticks(60 * SECOND);
    assert!(world.told().is_empty() && world.monitor.is_empty());
}

#[test]
fn what_is_open_at_the_end_of_the_window_is_told_as_itself() {
    let curl = actor(7, "curl");
    let mut world = World::folding(10);
    short(&mut world, &curl, SECOND, tcp(1));
    world.connects(&curl, 2 * SECOND, tcp(2)).establishes(2 * SECOND + MILLI, tcp(2));
    world.told();
    // A record turns the window as well as a tick does.
    short(&mut world, &curl, 30 * SECOND, tcp(3));
    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "network.connect curl acted outbound established",
            "network.connect curl acted outbound established",
            "network.close curl acted outbound closed"
        ]
    );
    assert_eq!((acts[0].time, acts[0].body.latency), (2 * SECOND, MILLI));
    world.closes(7, 31 * SECOND, tcp(2));
    let close = world.told();
    assert_eq!(close[0].body.connection, acts[0].body.connection);
}

#[test]
fn other_programs_addresses_and_ports_are_no_repeats() {
    let curl = actor(7, "curl");
    let cases: [(Actors, SocketInfo); 5] = [
        (actor(8, "wget"), tcp(2)),
        (Arc::clone(&curl), SocketInfo { remote: ipv4("198.51.100.8"), ..tcp(2) }),
        (Arc::clone(&curl), SocketInfo { remote_port: 80, ..tcp(2) }),
        (Arc::clone(&curl), SocketInfo { protocol: 132, ..tcp(2) }),
        (Arc::clone(&curl), SocketInfo { netns: 1, ..tcp(2) }),
    ];
    for (who, socket) in cases {
        let mut world = World::folding(10);
        short(&mut world, &curl, SECOND, tcp(1));
        short(&mut world, &who, 2 * SECOND, socket);
        assert_eq!(world.told().len(), 4, "{socket:?}");
    }
}

#[test]
fn failures_are_counted_by_themselves() {
    let curl = actor(7, "curl");
    let mut world = World::folding(10);
    short(&mut world, &curl, SECOND, tcp(1));
    for time in 2..=5 {
        world.fails(&curl, time * SECOND, tcp(2), REFUSED);
    }
    world.ticks(20 * SECOND);
    let acts = world.told();
    let lines: Vec<String> = acts.iter().skip(2).map(line).collect();
    assert_eq!(
        lines,
        [
            "network.connect curl acted outbound failed ECONNREFUSED",
            "network.flow curl acted outbound failed ECONNREFUSED x3"
        ]
    );
    assert_eq!((acts[3].body.failed, acts[3].body.bytes_sent), (3, None));
}

#[test]
fn failures_fold_by_their_errors_and_apart_from_what_was_given_up() {
    let curl = actor(7, "curl");
    let mut world = World::folding(10);
    for time in 2..=4 {
        world.fails(&curl, time * SECOND, tcp(2), REFUSED).fails(&curl, time * SECOND, tcp(2), 13);
        world.connects(&curl, time * SECOND, tcp(3));
        world.changes(&by(7, goes(time * SECOND, tcp(3), state::SYN_SENT, state::CLOSE)));
        world.ticks(time * SECOND + 999 * MILLI);
    }
    assert_eq!(
        world.ticks(30 * SECOND).story(),
        [
            "network.connect curl acted outbound failed ECONNREFUSED",
            "network.connect curl acted outbound failed 13",
            "network.connect curl acted outbound pending",
            "network.flow curl acted outbound failed ECONNREFUSED x2",
            "network.flow curl acted outbound failed 13 x2",
            "network.flow curl acted outbound pending x2"
        ]
    );
}

#[test]
fn a_connection_that_is_accepted_late_is_counted_for_who_accepts_it() {
    let mut world = World::folding(10);
    world.listens(&actor(7, "server"), SECOND, listening(1));
    for socket in 2..=4 {
        world.comes_in(2 * SECOND, served(socket));
    }
    world.ticks(4 * SECOND);
    for socket in 2..=4 {
        world.accepts(&actor(8, "worker"), 5 * SECOND, served(socket)).closes(8, 6 * SECOND, served(socket));
    }
    world.ticks(30 * SECOND);
    assert_eq!(
        world.story(),
        [
            "network.listen server acted",
            "network.accept server listener inbound",
            // It was told as the listener's, so its end is told too.
            "network.accept worker acted inbound",
            "network.close worker acted inbound closed",
            // The first of the worker's own.
            "network.accept worker acted inbound",
            "network.close worker acted inbound closed",
            "network.flow worker acted inbound x1"
        ]
    );
}

#[test]
fn what_comes_in_folds_by_the_local_port() {
    let server = actor(7, "server");
    let mut world = World::folding(10);
    for socket in 1..=4 {
        let port = 40_000 + u16::try_from(socket).unwrap();
        let here = SocketInfo { remote_port: port, ..served(socket) };
        world.comes_in(SECOND, here).accepts(&server, SECOND, here).closes(7, 2 * SECOND, here);
    }
    world.ticks(20 * SECOND);
    let acts = world.told();
    let flow = &acts[2];
    assert_eq!((acts.len(), line(flow)), (3, "network.flow server acted inbound x3".to_owned()));
    let (local, remote) = (flow.body.local.as_ref().unwrap(), flow.body.remote.as_ref().unwrap());
    assert_eq!((local.port, remote.port, remote.address.as_str()), (Some(443), None, "192.0.2.1"));
}

#[test]
fn flows_of_datagrams_fold_too() {
    let dig = actor(7, "dig");
    let mut world = World::folding(10);
    for cookie in 1..=4 {
        world.sends(&dig, SECOND, udp(cookie)).receives(SECOND, udp(cookie));
        world.changes(&by(7, change(2 * SECOND, socket_change::RELEASED, udp(cookie))));
    }
    // By another program as well: that is told.
    world.sends(&dig, 3 * SECOND, udp(5)).sends(&actor(8, "child"), 3 * SECOND, udp(5));
    world.ticks(20 * SECOND);
    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "network.connect dig acted outbound sent",
            "network.connect dig acted outbound sent",
            "network.connect child acted outbound sent of dig",
            "network.close dig acted outbound closed",
            "network.flow dig acted outbound x3"
        ]
    );
    assert_eq!((acts[4].body.packets_sent, acts[4].body.packets_received), (Some(3), Some(3)));
}

#[test]
fn another_window_turns_those_that_run() {
    let curl = actor(7, "curl");
    let mut world = World::folding(10);
    short(&mut world, &curl, SECOND, tcp(1));
    short(&mut world, &curl, 2 * SECOND, tcp(2));
    world.told();
    world.monitor.configure(Options::default());
    assert_eq!(world.story(), ["network.flow curl acted outbound x1"]);
    short(&mut world, &curl, 3 * SECOND, tcp(2));
    assert_eq!(world.told().len(), 2);
}
