//! Sockets with states.

use super::*;

fn attempt(time: u64, pid: u32, socket: SocketInfo) -> SocketState {
    by(pid, change(time, socket_change::ATTEMPT, SocketInfo { local: [0; 16], local_port: 0, ..socket }))
}

#[test]
fn a_connection_is_told_when_it_is_made_and_when_it_ends() {
    let curl = actor(7, "curl");
    let mut world = World::new();
    let early = SocketInfo { local: [0; 16], local_port: 0, ..tcp(1) };
    world.connects(&curl, SECOND, early);
    assert_eq!(world.story(), [""; 0]);
    world.establishes(SECOND + 5 * MILLI, tcp(1));
    let end = goes(4 * SECOND, SocketInfo { local_port: 0, ..tcp(1) }, state::FIN_WAIT2, state::CLOSE);
    let end = SocketState { bytes_sent: 10, bytes_received: 20, packets_sent: 3, rtt_us: 700, ..end };
    world.changes(&by(7, goes(3 * SECOND, tcp(1), state::ESTABLISHED, state::FIN_WAIT1))).changes(&end);

    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(
        lines,
        ["network.connect curl acted outbound established", "network.close curl acted outbound closed"]
    );
    let [connect, close] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!((connect.time, connect.body.latency), (SECOND, 5 * MILLI));
    assert_eq!(connect.body.connection, close.body.connection);
    assert_eq!(close.time, 4 * SECOND);
    assert_eq!(close.body.duration, 3 * SECOND - 5 * MILLI);
    assert_eq!((close.body.bytes_sent, close.body.bytes_received), (Some(10), Some(20)));
    assert_eq!((close.body.packets_sent, close.body.packets_received), (Some(3), Some(0)));
    assert_eq!(close.body.round_trip, 700_000);
    // The kernel has given the port back by then.
    assert_eq!(close.body.local.as_ref().unwrap().port, Some(40_000));
    assert!(world.monitor.is_empty());
}

#[test]
fn a_failure_is_told_once_by_its_change_of_state_and_not_by_its_call() {
    let curl = actor(7, "curl");
    let mut world = World::new();
    world.connects(&curl, SECOND, tcp(1));
    let failure = goes(SECOND + MILLI, tcp(1), state::SYN_SENT, state::CLOSE);
    world.changes(&SocketState { errno: REFUSED, ..failure }).fails(
        &curl,
        SECOND + 2 * MILLI,
        tcp(1),
        REFUSED,
    );
    assert_eq!(world.story(), ["network.connect curl acted outbound failed ECONNREFUSED"]);
    // The same once more is another failure.
    world.fails(&curl, 2 * SECOND, tcp(1), REFUSED);
    assert_eq!(world.story(), ["network.connect curl acted outbound failed ECONNREFUSED"]);
    assert!(world.monitor.is_empty());
}

#[test]
fn a_failure_without_a_change_of_state_is_told_by_its_call() {
    let curl = actor(7, "curl");
    let mut world = World::new();
    let record = call(SECOND, socket_act::CONNECT_FAILED, tcp(1));
    let flags = socket_flags::USER_MEMORY;
    world.calls(&curl, &SocketCall { errno: 101, call: 42, flags, ..record });
    let acts = world.told();
    assert_eq!(line(&acts[0]), "network.connect curl acted outbound failed 101");
    assert_eq!((acts[0].body.source.as_str(), acts[0].body.call.as_str()), ("user_memory", "connect"));
    assert_eq!(acts[0].body.connection, "");
}

#[test]
fn what_the_process_gives_up_is_pending_unless_its_call_tells_an_error() {
    let curl = actor(7, "curl");
    let mut world = World::new();
    let given_up = |time| by(7, goes(time, tcp(1), state::SYN_SENT, state::CLOSE));
    world.connects(&curl, SECOND, tcp(1)).changes(&given_up(SECOND + MILLI));
    assert_eq!(world.story(), [""; 0]);
    // No local port was left: the state says nothing of it.
    world.fails(&curl, SECOND + 2 * MILLI, tcp(1), 99);
    assert_eq!(world.story(), ["network.connect curl acted outbound failed 99"]);
    world.connects(&curl, 2 * SECOND, tcp(1)).changes(&given_up(2 * SECOND + MILLI));
    world.ticks(3 * SECOND);
    assert_eq!(world.story(), [""; 0]);
    world.ticks(4 * SECOND);
    assert_eq!(world.story(), ["network.connect curl acted outbound pending"]);
    assert!(world.monitor.is_empty());
}

#[test]
fn an_attempt_that_nothing_follows_is_unknown_after_a_second() {
    let mut world = World::new();
    world.changes(&attempt(SECOND, 7, tcp(1))).ticks(SECOND + 999 * MILLI);
    assert_eq!(world.story(), [""; 0]);
    world.ticks(2 * SECOND);
    assert_eq!(world.story(), ["network.connect 7 acted outbound unknown"]);
    assert!(world.monitor.is_empty());
}

#[test]
fn an_attempt_that_is_followed_is_told_by_what_follows() {
    let curl = actor(7, "curl");
    let mut world = World::new();
    world.changes(&attempt(SECOND, 7, tcp(1))).connects(&curl, SECOND + 1, tcp(1));
    world.establishes(SECOND + MILLI, tcp(1));
    world.changes(&attempt(SECOND, 7, tcp(2))).fails(&curl, SECOND + MILLI, tcp(2), 101);
    world.ticks(10 * SECOND);
    assert_eq!(
        world.story(),
        ["network.connect curl acted outbound established", "network.connect curl acted outbound failed 101"]
    );
}

#[test]
fn a_fast_open_that_has_its_data_within_a_minute_is_told_as_unknown_and_then_as_it_is() {
    let curl = actor(7, "curl");
    let mut world = World::new();
    world.changes(&attempt(SECOND, 7, tcp(1))).ticks(3 * SECOND);
    world.connects(&curl, 59 * SECOND, tcp(1)).establishes(59 * SECOND + MILLI, tcp(1));
    assert_eq!(
        world.story(),
        ["network.connect 7 acted outbound unknown", "network.connect curl acted outbound established"]
    );
}

#[test]
fn a_server_listens_accepts_and_ends() {
    let (master, worker) = (actor(7, "master"), actor(8, "worker"));
    let mut world = World::new();
    world.listens(&master, SECOND, listening(1));
    world.comes_in(2 * SECOND, served(2)).accepts(&worker, 2 * SECOND + MILLI, served(2));
    world.changes(&by(9, goes(3 * SECOND, served(2), state::ESTABLISHED, state::FIN_WAIT1)));
    world.changes(&goes(4 * SECOND, served(2), state::FIN_WAIT2, state::CLOSE));
    world.changes(&by(7, goes(6 * SECOND, listening(1), state::LISTEN, state::CLOSE)));
    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "network.listen master acted",
            "network.accept worker acted inbound",
            "network.close 9 acted inbound closed of worker",
            "network.close master acted closed"
        ]
    );
    assert_eq!(acts[0].body.backlog, 128);
    assert_eq!(acts[0].body.local.as_ref().unwrap().address, "0.0.0.0");
    assert_eq!(acts[1].time, 2 * SECOND + MILLI);
    assert_eq!(acts[2].body.duration, 2 * SECOND);
    assert_eq!(acts[3].body.duration, 5 * SECOND);
    assert_eq!((acts[3].body.remote.as_ref(), acts[3].body.bytes_sent), (None, None));
    world.ticks(9 * SECOND);
    assert!(world.monitor.is_empty());
}

#[test]
fn fast_open_may_be_accepted_before_it_is_complete() {
    let server = actor(7, "server");
    let mut world = World::new();
    world.accepts(&server, SECOND, served(2)).comes_in(SECOND + MILLI, served(2));
    world.closes(7, 2 * SECOND, served(2));
    assert_eq!(
        world.story(),
        ["network.accept server acted inbound", "network.close server acted inbound closed"]
    );
}

#[test]
fn a_connection_that_nobody_is_seen_to_accept_is_its_listeners() {
    let server = actor(7, "server");
    let mut world = World::new();
    world.listens(&server, SECOND, listening(1)).comes_in(2 * SECOND, served(2));
    world.ticks(3 * SECOND);
    assert_eq!(world.story(), ["network.listen server acted"]);
    world.ticks(4 * SECOND);
    assert_eq!(world.story(), ["network.accept server listener inbound"]);
    // Who accepts it after that is told too.
    world.accepts(&actor(8, "worker"), 5 * SECOND, served(2));
    assert_eq!(world.story(), ["network.accept worker acted inbound"]);
    world.changes(&SocketState {
        errno: libc::ECONNRESET.cast_unsigned(),
        ..goes(6 * SECOND, served(2), state::ESTABLISHED, state::CLOSE)
    });
    assert_eq!(world.story(), ["network.close worker opener inbound reset_by_remote ECONNRESET"]);
}

#[test]
fn a_late_accept_has_the_name_of_the_connection() {
    let mut world = World::new();
    world.listens(&actor(7, "server"), SECOND, listening(1)).comes_in(2 * SECOND, served(2));
    world.ticks(4 * SECOND).accepts(&actor(8, "worker"), 5 * SECOND, served(2));
    world.closes(8, 6 * SECOND, served(2));
    let acts = world.told();
    let [_, early, late, close] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!((early.time, late.time), (2 * SECOND, 5 * SECOND));
    assert_eq!([&early.body.connection, &late.body.connection], [&close.body.connection; 2]);
}

#[test]
fn what_waited_for_a_listener_that_is_closed_is_not_its_closers_work() {
    let server = actor(7, "server");
    let reset = |time, socket| goes(time, socket, state::ESTABLISHED, state::CLOSE);
    let mut world = World::new();
    world.listens(&server, SECOND, listening(1)).comes_in(2 * SECOND, served(2)).told();
    world.comes_in(2 * SECOND, served(3));
    world.changes(&by(8, goes(3 * SECOND, listening(1), state::LISTEN, state::CLOSE)));
    world.changes(&by(8, reset(3 * SECOND, served(2)))).changes(&by(9, reset(3 * SECOND, served(3))));
    assert_eq!(
        world.story(),
        [
            "network.close 8 acted closed of server",
            "network.accept server listener inbound",
            "network.close 8 acted inbound reset",
            // This one has accepted it unseen.
            "network.accept 9 acted inbound",
            "network.close 9 acted inbound reset"
        ]
    );
    // Another listener at the same place is another story.
    world.listens(&server, 4 * SECOND, listening(4)).comes_in(5 * SECOND, served(5)).told();
    world.changes(&by(8, reset(5 * SECOND, served(5))));
    assert_eq!(world.story()[0], "network.accept 8 acted inbound");
}

#[test]
fn who_ended_a_connection_is_taken_down_when_it_acts() {
    let (curl, child) = (actor(7, "curl"), actor(8, "child"));
    let mut world = World::new();
    world.connects(&curl, SECOND, tcp(1)).establishes(SECOND, tcp(1)).told();
    world.changes_by(&child, &goes(2 * SECOND, tcp(1), state::ESTABLISHED, state::FIN_WAIT1));
    // The child is long gone by then.
    world.changes(&goes(90 * SECOND, tcp(1), state::FIN_WAIT2, state::CLOSE));
    assert_eq!(world.story(), ["network.close child acted outbound closed of curl"]);
    // Of a socket that is not known its last record tells.
    world.changes_by(&child, &goes(91 * SECOND, tcp(2), state::ESTABLISHED, state::FIN_WAIT1));
    world.changes_by(&child, &goes(91 * SECOND, tcp(2), state::ESTABLISHED, state::CLOSE));
    world.changes_by(&child, &goes(92 * SECOND, tcp(3), state::ESTABLISHED, state::FIN_WAIT1));
    world.changes(&goes(92 * SECOND, tcp(3), state::FIN_WAIT2, state::CLOSE));
    assert_eq!(world.story(), ["network.close child acted reset", "network.close nobody closed"]);
}

#[test]
fn a_listener_gets_its_port_from_the_call_that_comes_back() {
    let server = actor(7, "server");
    let unbound = SocketInfo { local_port: 0, ..listening(1) };
    let mut world = World::new();
    world.begins_to_listen(&server, SECOND, unbound);
    assert_eq!(world.story(), [""; 0]);
    world.listened(&server, SECOND + MILLI, listening(1), 0);
    // Another queue for the same listener is nothing new.
    world.listened(&server, 2 * SECOND, listening(1), 0);
    world.comes_in(3 * SECOND, served(2)).ticks(5 * SECOND);
    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(lines, ["network.listen server acted", "network.accept server listener inbound"]);
    assert_eq!((acts[0].time, acts[0].body.backlog), (SECOND, 128));
    assert_eq!(acts[0].body.local.as_ref().unwrap().port, Some(443));
    // It has given its port back when it is closed.
    world.changes(&by(7, goes(6 * SECOND, unbound, state::LISTEN, state::CLOSE)));
    world.changes(&goes(6 * SECOND, served(2), state::ESTABLISHED, state::CLOSE));
    assert_eq!(world.told()[0].body.connection, acts[0].body.connection);
    assert!(world.ticks(7 * SECOND).monitor.is_empty());
}

#[test]
fn a_listener_that_was_refused_is_told_by_its_error_alone() {
    const IN_USE: u32 = libc::EADDRINUSE.cast_unsigned();
    let server = actor(7, "server");
    let mut world = World::new();
    world.begins_to_listen(&server, SECOND, listening(1));
    world.changes(&by(7, goes(SECOND, listening(1), state::LISTEN, state::CLOSE)));
    world.listened(&server, SECOND + MILLI, listening(1), IN_USE);
    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(lines, [format!("network.listen server acted {IN_USE}")]);
    assert_eq!(acts[0].body.connection, "");
    // By a call that does not tell it is nothing at all.
    world.begins_to_listen(&server, 2 * SECOND, listening(1));
    world.changes(&by(7, goes(2 * SECOND, listening(1), state::LISTEN, state::CLOSE))).ticks(3 * SECOND);
    assert_eq!(world.story(), [""; 0]);
    assert!(world.monitor.is_empty());
}

#[test]
fn a_listener_whose_call_does_not_tell_is_told_after_a_while() {
    let server = actor(7, "server");
    let unbound = SocketInfo { local_port: 0, ..listening(1) };
    let mut world = World::new();
    world.begins_to_listen(&server, SECOND, unbound).ticks(SECOND + 199 * MILLI);
    assert_eq!(world.story(), [""; 0]);
    let acts = world.ticks(SECOND + 200 * MILLI).told();
    assert_eq!((acts.len(), line(&acts[0])), (1, "network.listen server acted".to_owned()));
    assert_eq!((acts[0].time, acts[0].body.local.as_ref().unwrap().port), (SECOND, None));
    // A call that comes back later still tells where others come in.
    world.listened(&server, 2 * SECOND, listening(1), 0).comes_in(2 * SECOND, served(2)).ticks(4 * SECOND);
    assert_eq!(world.story(), ["network.accept server listener inbound"]);
    world.changes(&goes(5 * SECOND, served(2), state::ESTABLISHED, state::CLOSE)).told();
    world.changes(&by(7, goes(5 * SECOND, listening(1), state::LISTEN, state::CLOSE)));
    assert_eq!(world.story(), ["network.close server acted closed"]);
    assert!(world.monitor.is_empty());
}

#[test]
fn a_listener_that_is_closed_while_its_call_runs_is_told_and_not_kept() {
    let server = actor(7, "server");
    let mut world = World::new();
    world.begins_to_listen(&server, SECOND, listening(1));
    world.changes(&by(7, goes(SECOND, listening(1), state::LISTEN, state::CLOSE)));
    world.listened(&server, SECOND + MILLI, listening(1), 0);
    assert_eq!(world.story(), ["network.listen server acted", "network.close server opener unknown"]);
    assert!(world.ticks(2 * SECOND).monitor.is_empty());
}

#[test]
fn a_listener_without_room_or_without_its_first_record_is_told_once() {
    let server = actor(7, "server");
    let mut world = World::with(Options { connections: 0, ..Options::default() });
    world.listens(&server, SECOND, listening(1));
    assert_eq!(world.story(), ["network.listen server acted"]);
    assert_eq!(world.monitor.lost()[&("network", "table_full")], 1);
    let mut world = World::new();
    world.listened(&server, SECOND, listening(1), 0).listened(&server, SECOND, listening(1), 0);
    assert_eq!(world.story(), ["network.listen server acted"]);
}

#[test]
fn a_failure_whose_change_of_state_was_lost_is_told_by_its_call() {
    let curl = actor(7, "curl");
    let mut world = World::new();
    world.connects(&curl, SECOND, tcp(1)).fails(&curl, 2 * SECOND, tcp(1), REFUSED);
    assert_eq!(world.story(), ["network.connect curl acted outbound failed ECONNREFUSED"]);
    assert!(world.monitor.is_empty());
    // By another process it is another call.
    world.connects(&curl, 3 * SECOND, tcp(1)).fails(&actor(8, "child"), 4 * SECOND, tcp(1), REFUSED);
    world.establishes(5 * SECOND, tcp(1));
    assert_eq!(
        world.story(),
        [
            "network.connect child acted outbound failed ECONNREFUSED",
            "network.connect curl acted outbound established"
        ]
    );
}

#[test]
fn a_call_that_was_given_nonsense_does_not_hide_the_connection_that_is_made() {
    let curl = actor(7, "curl");
    let mut world = World::new();
    world.connects(&curl, SECOND, tcp(1)).fails(&curl, 2 * SECOND, tcp(1), libc::EFAULT.cast_unsigned());
    world.establishes(3 * SECOND, tcp(1));
    assert_eq!(
        world.story(),
        ["network.connect curl acted outbound failed 14", "network.connect curl acted outbound established"]
    );
}

#[test]
fn what_goes_by_subflows_is_not_told_as_nothing() {
    let (mptcp, mut world) = (SocketInfo { protocol: 262, ..tcp(1) }, World::new());
    world.connects(&actor(7, "curl"), SECOND, mptcp).establishes(SECOND, mptcp).closes(7, 2 * SECOND, mptcp);
    let acts = world.told();
    assert_eq!(
        (acts[1].kind, acts[1].body.bytes_sent, acts[1].body.packets_received),
        ("network.close", None, None)
    );
}

#[test]
fn a_connection_that_ends_before_it_is_accepted_is_of_who_ends_it_or_listens() {
    let server = actor(7, "server");
    let ended = |time| goes(time, served(2), state::ESTABLISHED, state::CLOSE);
    let cases = [
        (Some(8), ["network.accept 8 acted inbound", "network.close 8 acted inbound reset"]),
        (Some(7), ["network.accept server acted inbound", "network.close server acted inbound reset"]),
        (None, ["network.accept server listener inbound", "network.close server listener inbound reset"]),
    ];
    for (closer, expected) in cases {
        let mut world = World::new();
        world.listens(&server, SECOND, listening(1)).comes_in(2 * SECOND, served(2)).told();
        let record = ended(3 * SECOND);
        world.changes(&closer.map_or(record, |pid| by(pid, record)));
        assert_eq!(world.story(), expected);
    }
    let mut world = World::new();
    world.comes_in(2 * SECOND, served(2)).changes(&ended(3 * SECOND));
    assert_eq!(world.story(), ["network.accept nobody inbound", "network.close nobody inbound reset"]);
}

#[test]
fn a_connection_that_ended_before_it_is_accepted_is_told_once() {
    let mut world = World::new();
    world.listens(&actor(7, "server"), SECOND, listening(1)).comes_in(2 * SECOND, served(2));
    world.changes(&goes(3 * SECOND, served(2), state::ESTABLISHED, state::CLOSE)).told();
    // A socket that is closed has given its port back.
    world.accepts(&actor(7, "server"), 4 * SECOND, SocketInfo { local_port: 0, ..served(2) });
    assert!(world.story().is_empty());
    // Of another nothing was told.
    world.accepts(&actor(7, "server"), 5 * SECOND, SocketInfo { local_port: 0, ..served(3) });
    assert_eq!(world.story(), ["network.accept server acted inbound"]);
}

#[test]
fn the_reason_of_an_end_is_who_ended_first_or_what_broke_it() {
    use state::{CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK};
    const REMOTE: u32 = socket_flags::REMOTE_ENDED;
    // State before the first change, if there is one, and after it; state before the end, its error, flags.
    let cases = [
        (Some((ESTABLISHED, FIN_WAIT1)), FIN_WAIT2, 0, REMOTE, "closed"),
        (Some((CLOSE_WAIT, LAST_ACK)), LAST_ACK, 0, REMOTE, "closed_by_remote"),
        (None, CLOSE_WAIT, 0, 0, "closed_by_remote"),
        (None, ESTABLISHED, 0, REMOTE, "closed_by_remote"),
        (None, FIN_WAIT2, 0, 0, "closed"),
        (None, ESTABLISHED, 0, 0, "reset"),
        (None, ESTABLISHED, libc::ECONNRESET, 0, "reset_by_remote"),
        (None, CLOSE_WAIT, libc::EPIPE, REMOTE, "reset_by_remote"),
        (Some((ESTABLISHED, FIN_WAIT1)), FIN_WAIT1, libc::ETIMEDOUT, 0, "timeout"),
        (None, ESTABLISHED, libc::EHOSTUNREACH, 0, "error"),
    ];
    let curl = actor(7, "curl");
    for (first, old, errno, flags, reason) in cases {
        let mut world = World::new();
        world.connects(&curl, SECOND, tcp(1)).establishes(SECOND + MILLI, tcp(1)).told();
        if let Some((old, new)) = first {
            world.changes(&goes(2 * SECOND, tcp(1), old, new));
        }
        let errno = errno.cast_unsigned();
        world.changes(&SocketState { errno, flags, ..goes(3 * SECOND, tcp(1), old, state::CLOSE) });
        let acts = world.told();
        assert_eq!(acts[0].body.reason, reason, "{first:?} {old} {errno}");
        assert_eq!(acts[0].body.error.is_empty(), errno == 0);
    }
}

#[test]
fn what_was_there_before_the_agent_is_told_when_all_of_it_is_found() {
    let (server, worker) = (actor(7, "server"), actor(8, "worker"));
    let mut world = World::new();
    let open = |socket, new| SocketState { new, ..change(SECOND, socket_change::SNAPSHOT, socket) };
    world.monitor.found(&open(served(2), state::ESTABLISHED), Arc::clone(&worker));
    world.monitor.found(&open(served(2), state::ESTABLISHED), Arc::clone(&server));
    world.monitor.found(&open(tcp(3), state::ESTABLISHED), Arc::clone(&worker));
    world.monitor.found(&open(listening(1), state::LISTEN), Arc::clone(&server));
    world.monitor.snapshot_ends(SECOND + MILLI);
    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "network.accept worker owner inbound",
            "network.connect worker owner outbound established",
            "network.listen server owner"
        ]
    );
    assert!(acts.iter().all(|act| act.body.snapshot && act.time == SECOND && act.body.latency == 0));
    world.changes(&goes(2 * SECOND, served(2), state::LAST_ACK, state::CLOSE));
    let acts = world.told();
    assert_eq!(line(&acts[0]), "network.close worker owner inbound closed_by_remote");
    assert_eq!((acts[0].body.duration, acts[0].body.snapshot), (0, false));
}

#[test]
fn a_record_from_before_a_socket_was_found_tells_whose_it_is_and_nothing_new() {
    let (server, worker) = (actor(7, "server"), actor(8, "worker"));
    let mut world = World::new();
    let found =
        SocketState { new: state::ESTABLISHED, ..change(5 * SECOND, socket_change::SNAPSHOT, served(2)) };
    world.monitor.found(&found, server);
    world.monitor.snapshot_ends(5 * SECOND);
    world.told();
    // The socket that was at this address before.
    world.changes(&goes(2 * SECOND, served(2), state::ESTABLISHED, state::CLOSE));
    assert_eq!(world.story(), ["network.close nobody reset"]);
    world.comes_in(3 * SECOND, served(2)).accepts(&worker, 4 * SECOND, served(2));
    assert_eq!(world.story(), [""; 0]);
    world.changes(&goes(8 * SECOND, served(2), state::LAST_ACK, state::CLOSE));
    let acts = world.told();
    assert_eq!(line(&acts[0]), "network.close worker opener inbound closed_by_remote");
    assert_eq!(acts[0].body.duration, 5 * SECOND);
}

#[test]
fn a_connection_that_was_never_seen_is_known_by_its_end() {
    let server = actor(7, "server");
    let mut world = World::new();
    world.listens(&server, SECOND, listening(1)).told();
    world.changes(&by(9, goes(SECOND, served(2), state::ESTABLISHED, state::CLOSE)));
    world.changes(&goes(SECOND, tcp(3), state::LAST_ACK, state::CLOSE));
    // Neither of these was ever a connection.
    world.changes(&goes(SECOND, tcp(4), state::SYN_SENT, state::CLOSE));
    world.changes(&goes(SECOND, served(5), state::SYN_RECV, state::CLOSE));
    let acts = world.told();
    let lines: Vec<String> = acts.iter().map(line).collect();
    assert_eq!(lines, ["network.close 9 acted inbound reset", "network.close nobody closed_by_remote"]);
    assert!(acts.iter().all(|act| act.body.connection.is_empty() && act.body.bytes_sent == Some(0)));
}

#[test]
fn a_socket_that_begins_anew_has_ended_unseen() {
    let curl = actor(7, "curl");
    let mut world = World::new();
    world.connects(&curl, SECOND, tcp(1)).establishes(SECOND, tcp(1)).connects(&curl, 2 * SECOND, tcp(1));
    world.connects(&curl, 3 * SECOND, tcp(1));
    assert_eq!(
        world.story(),
        [
            "network.connect curl acted outbound established",
            "network.close curl opener outbound unknown",
            "network.connect curl acted outbound unknown"
        ]
    );
}

#[test]
fn what_has_no_room_is_told_at_once_and_counted() {
    let curl = actor(7, "curl");
    let mut world = World::with(Options { connections: 1, ..Options::default() });
    world.connects(&curl, SECOND, tcp(1)).connects(&curl, SECOND, tcp(2));
    assert_eq!(world.story(), ["network.connect curl acted outbound unknown"]);
    assert_eq!(world.monitor.lost()[&("network", "table_full")], 1);
    // Its failure is not told again, its end is.
    world.fails(&curl, SECOND, tcp(2), REFUSED).establishes(SECOND, tcp(2));
    world.changes(&goes(2 * SECOND, tcp(2), state::LAST_ACK, state::CLOSE));
    assert_eq!(world.story(), ["network.close nobody closed_by_remote"]);
    // The one that has room is not disturbed.
    world.establishes(SECOND, tcp(1)).closes(7, 2 * SECOND, tcp(1));
    assert_eq!(world.told().len(), 2);
}

#[test]
fn what_is_pending_is_told_when_the_agent_stops() {
    let server = actor(7, "server");
    let mut world = World::new();
    world.listens(&server, SECOND, listening(1)).told();
    world.connects(&server, 2 * SECOND, tcp(3)).comes_in(3 * SECOND, served(2));
    world.changes(&attempt(4 * SECOND, 9, tcp(4))).finishes(4 * SECOND);
    assert_eq!(
        world.story(),
        [
            "network.connect server acted outbound pending",
            "network.accept server listener inbound",
            "network.connect 9 acted outbound unknown"
        ]
    );
    assert!(world.monitor.is_empty());
}
