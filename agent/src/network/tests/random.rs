//! What holds whatever the kernel sends.

use proptest::prelude::*;

use super::*;

/// Records that need not make sense: any of them may come at any time.
#[derive(Debug, Clone)]
enum Step {
    Call { act: u32, socket: u64, pid: u32, errno: u32, call: u32, flags: u32 },
    Change { change: u32, socket: u64, pid: u32, old: u8, new: u8, errno: u32, flags: u32 },
    Found { socket: u64, new: u8 },
    SnapshotEnds,
    Tick,
    Configure { window: u64 },
}

fn any_socket(number: u64) -> SocketInfo {
    let port = 443 + u16::try_from(number % 2).unwrap();
    match number % 3 {
        0 => tcp(number),
        1 => served(number),
        _ => SocketInfo { remote_port: port, ..udp(number) },
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (socket, pid, errno) = (1..7_u64, 1..4_u32, prop_oneof![Just(0_u32), Just(104), Just(REFUSED)]);
    prop_oneof![
        5 => (0..10_u32, socket.clone(), pid.clone(), errno.clone(), prop_oneof![Just(0_u32), Just(50)], 0..16_u32)
            .prop_map(|(act, socket, pid, errno, call, flags)| Step::Call { act, socket, pid, errno, call, flags }),
        5 => (0..7_u32, socket.clone(), pid, 0..13_u8, 0..13_u8, errno, 0..16_u32).prop_map(
            |(change, socket, pid, old, new, errno, flags)| Step::Change { change, socket, pid, old, new, errno, flags }
        ),
        1 => (socket, 0..13_u8).prop_map(|(socket, new)| Step::Found { socket, new }),
        1 => Just(Step::SnapshotEnds),
        2 => Just(Step::Tick),
        1 => (0..3_u64).prop_map(|window| Step::Configure { window }),
    ]
}

/// How many beginnings are told, one by one and by counts.
fn begun(acts: &[Act<&'static str>]) -> u64 {
    let of = |act: &Act<_>| match act.kind {
        "network.connect" | "network.accept" if !act.body.snapshot => 1,
        "network.flow" => act.body.count,
        _ => 0,
    };
    acts.iter().map(of).sum()
}

proptest! {
    #[test]
    fn any_records_are_taken_and_nothing_is_left_of_them(
        steps in prop::collection::vec((step(), 0..900_u64), 0..120),
        connections in 0..5_usize,
        flows in 0..3_usize,
    ) {
        let mut options = Options { connections, flows, ..Options::default() };
        let mut world = World::with(options);
        let actors: Vec<Actors> = (0..5).map(|pid| actor(pid, "somebody")).collect();
        let (mut time, mut beginnings) = (SECOND, 0);
        for (step, passed) in steps {
            match step {
                Step::Call { act, socket, pid, errno, call: number, flags } => {
                    beginnings += u64::from(act != socket_act::LISTEN && act != socket_act::BIND);
                    let record = call(time, act, any_socket(socket));
                    let record = SocketCall { errno, call: number, flags, ..record };
                    world.calls(&actors[usize::try_from(pid).unwrap()], &record);
                }
                Step::Change { change: what, socket, pid, old, new, errno, flags } => {
                    let inbound = what == socket_change::STATE && new == state::ESTABLISHED;
                    let alone = what == socket_change::DATAGRAM || what == socket_change::ATTEMPT;
                    beginnings += u64::from(inbound || alone);
                    let record = change(time, what, any_socket(socket));
                    let record = SocketState { task: task(pid), old, new, errno, flags, ..record };
                    let who = &actors[usize::try_from(pid).unwrap()];
                    world.monitor.changed(&record, (passed % 2 == 0).then(|| Arc::clone(who)));
                }
                Step::Found { socket, new } => {
                    let record = change(time, socket_change::SNAPSHOT, any_socket(socket));
                    beginnings += u64::from(new == state::SYN_SENT);
                    world.monitor.found(&SocketState { new, ..record }, Arc::clone(&actors[0]));
                }
                Step::SnapshotEnds => world.monitor.snapshot_ends(time),
                Step::Tick => { world.ticks(time); }
                Step::Configure { window } => {
                    options.window = Duration::from_secs(window);
                    world.monitor.configure(options);
                }
            }
            time += passed * MILLI;
            let known = world.monitor.known();
            prop_assert!(known.connections <= connections && known.flows <= flows);
        }
        world.finishes(time);
        prop_assert!(world.monitor.is_empty());
        let told = world.told();
        prop_assert!(begun(&told) <= beginnings, "{} of {beginnings}", begun(&told));
    }

    /// Connections that live as they should, any number at once.
    #[test]
    fn every_connection_begins_once_and_ends_once(
        lives in prop::collection::vec((0..3_u8, 0..4000_u64, 0..9000_u64, 1..3_u32), 1..60),
        window in 0..5_u64,
    ) {
        let actors: Vec<Actors> = (0..3).map(|pid| actor(pid, "somebody")).collect();
        let mut world = World::folding(window);
        // What happens when: begins, then ends.
        let mut moments = Vec::new();
        for (number, (what, begins, lasts, pid)) in (1_u64..).zip(&lives) {
            moments.push((*begins, number, *what, *pid, true));
            moments.push((*begins + *lasts + 1, number, *what, *pid, false));
        }
        moments.sort_unstable();
        for (milli, number, what, pid, begins) in moments {
            let (time, who) = (SECOND + milli * MILLI, &actors[usize::try_from(pid).unwrap()]);
            match (what, begins) {
                (0, true) => { world.connects(who, time, tcp(number)).establishes(time, tcp(number)); }
                (1, true) => { world.comes_in(time, served(number)).accepts(who, time, served(number)); }
                (_, true) => { world.sends(who, time, udp(number)); }
                (2, false) => { world.changes(&by(pid, change(time, socket_change::RELEASED, udp(number)))); }
                (what, false) => {
                    let socket = if what == 0 { tcp(number) } else { served(number) };
                    let end = goes(time, socket, state::LAST_ACK, state::CLOSE);
                    world.changes(&SocketState { bytes_sent: 100, packets_sent: 1, ..end });
                }
            }
            if number % 4 == 0 {
                world.ticks(time);
            }
        }
        world.ticks(100 * SECOND);
        prop_assert!(world.monitor.is_empty() && world.kernel.flows.is_empty());
        let acts = world.told();
        let lived = u64::try_from(lives.len()).unwrap();
        prop_assert_eq!(begun(&acts), lived);
        let sum: u64 = acts.iter().filter_map(|act| act.body.bytes_sent).sum();
        prop_assert_eq!(sum, 100 * lived);
        let named = |kinds: &[&str]| {
            let acts = acts.iter().filter(|act| kinds.contains(&act.kind));
            let mut names: Vec<&str> = acts.map(|act| act.body.connection.as_str()).collect();
            names.sort_unstable();
            names
        };
        let (begun, ended) = (named(&["network.connect", "network.accept"]), named(&["network.close"]));
        prop_assert_eq!(&begun, &ended);
        prop_assert!(begun.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
