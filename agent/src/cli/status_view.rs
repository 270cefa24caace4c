//! What `nightjar status` prints: first whether all is well, and if not, what is not; then the numbers.
//!
//! It is for somebody who was woken up: what is empty or zero is left out, text that is long comes last in its
//! line, and nothing that comes from outside the agent can act on the terminal.

use std::fmt::Write as _;

use nightjar_proto::v1::{Configuration, Delivery, Drops, Flow, Losses, OutputStatus, Resources, Status};
use prost_types::Timestamp;

use nightjar_show::compact::{Style, shown};

/// Whether somebody has to look at the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Good,
    /// Why not, most serious first, each a sentence without end that may be printed as it is.
    Degraded(Vec<String>),
}

/// Whether all is well: nothing was lost, what is counted adds up, all outputs work, the configuration is the
/// one in the files, and a hook serves every sensor.
#[must_use]
pub fn health(status: &Status) -> Health {
    let clock = Clock::of(status);
    let mut wrong = Vec::new();
    for identity in status.identities.iter().filter(|identity| !identity.holds) {
        wrong.push(format!(
            "not all losses are known: of {}, {} does not hold: {} is not {}",
            shown(&identity.of),
            shown(&identity.sum),
            count(identity.left),
            count(identity.right)
        ));
    }
    if let Some(delivery) = &status.delivery {
        wrong.extend(wrong_with(delivery));
    }
    for output in status.outputs.iter().filter(|output| !output.failing.is_empty()) {
        let since = output.failing_since.map(|since| format!(" for {}", clock.since(since)));
        wrong.push(format!(
            "the output {} {} fails{}: {}",
            shown(&output.name),
            shown(&output.target),
            since.unwrap_or_default(),
            shown(&output.failing)
        ));
    }
    if let Some(losses) = status.losses.as_ref().filter(|losses| losses.total > 0) {
        let last = losses.last.map(|last| format!(", the last {}", clock.ago(last)));
        wrong.push(format!("{} lost{}", count(losses.total), last.unwrap_or_default()));
    }
    for sensor in status.sensors.iter().filter(|sensor| sensor.hook.is_empty()) {
        wrong.push(format!("no hook serves {}: there are no such events", shown(&sensor.name)));
    }
    if let Some(refused) = status.configuration.as_ref().map(|it| &it.refused).filter(|why| !why.is_empty()) {
        wrong.push(format!(
            "the changed configuration was refused, the one before is still in force: {}",
            shown(refused)
        ));
    }
    if wrong.is_empty() { Health::Good } else { Health::Degraded(wrong) }
}

/// What is not as it should be with the way to the backend. That it is away for a moment is usual.
fn wrong_with(delivery: &Delivery) -> Vec<String> {
    let mut wrong = Vec::new();
    if !delivery.error.is_empty() && delivery.state != "connected" {
        wrong.push(format!(
            "the backend does not take events, {} of which wait: {}",
            count(delivery.waiting),
            shown(&delivery.error)
        ));
    }
    if !delivery.spool_error.is_empty() {
        wrong.push(format!("the spool takes nothing: {}", shown(&delivery.spool_error)));
    }
    if let Some(reasons) = by_reason(&delivery.lost) {
        wrong.push(format!("the backend will not have all events: {reasons}"));
    }
    wrong
}

/// The page, each line with its end.
#[must_use]
pub fn render(status: &Status, style: Style) -> String {
    let clock = Clock::of(status);
    let mut page = Page { style, text: String::new() };
    headline(&mut page, status, clock);
    if let Some(flow) = &status.flow {
        self::flow(&mut page, flow);
    }
    if let Some(lag) = status.lag.as_ref().filter(|lag| lag.max_ns > 0) {
        page.section("lag");
        page.fact(&format!(
            "mean {}, longest {}, over the last ten seconds",
            duration(lag.mean_ns),
            duration(lag.max_ns)
        ));
    }
    if let Some(losses) = status.losses.as_ref().filter(|losses| losses.total > 0) {
        self::losses(&mut page, losses, clock);
    }
    outputs(&mut page, &status.outputs, clock);
    if let Some(delivery) = &status.delivery {
        self::delivery(&mut page, delivery, clock);
    }
    sensors(&mut page, status);
    hooks(&mut page, status);
    identities(&mut page, status);
    tables(&mut page, status);
    tail_readers(&mut page, status, clock);
    if let Some(resources) = &status.resources {
        self::resources(&mut page, resources, status);
    }
    if let Some(configuration) = &status.configuration {
        self::configuration(&mut page, configuration, clock);
    }
    page.text
}

// === Sections ===

fn headline(page: &mut Page, status: &Status, clock: Clock) {
    let mut who = format!("nightjar {}", shown(&status.version));
    if !status.instance.is_empty() {
        let _infallible = write!(who, " \"{}\"", shown(&status.instance));
    }
    if !status.host.is_empty() {
        let _infallible = write!(who, " on {}", shown(&status.host));
    }
    let _infallible = write!(who, ", pid {}", status.pid);
    if let Some(started) = status.started {
        let _infallible = write!(who, ", up {}", clock.since(started));
    }
    let health = health(status);
    let (verdict, colour) = match health {
        Health::Good => ("all is well", Colour::Green),
        Health::Degraded(_) => ("NOT ALL IS WELL", Colour::Red),
    };
    // What is too long is cut at its end, and that is not to be the verdict.
    let fits = page.style.width.is_none_or(|width| length(&who) + ": ".len() + length(verdict) <= width);
    if fits {
        page.line(&[(&who, None), (": ", None), (verdict, Some(colour))]);
    } else {
        page.line(&[(&who, None)]);
        page.line(&[(verdict, Some(colour))]);
    }
    if let Health::Degraded(wrong) = health {
        for what in wrong {
            page.wrapped("  * ", &what, Colour::Red);
        }
    }
}

fn flow(page: &mut Page, flow: &Flow) {
    let exported: u64 = flow.exported.iter().map(|kind| kind.count).fold(0, u64::saturating_add);
    let mut rows = vec![
        vec![left("received"), right(count(flow.received)), right(rate(flow.received_rate_milli))],
        vec![left("exported"), right(count(exported)), right(rate(flow.exported_rate_milli))],
    ];
    for kind in &flow.exported {
        rows.push(vec![left(&format!("  {}", shown(&kind.kind))), right(count(kind.count))]);
    }
    for (word, reasons, colour) in [("discarded", &flow.discarded, None), ("refused", &flow.refused, LOST)] {
        for reason in reasons.iter().filter(|reason| reason.count > 0) {
            let what = left(&format!("{word}: {}", shown(&reason.reason)));
            rows.push(vec![what, Cell { colour, ..right(count(reason.count)) }]);
        }
    }
    page.section("flow");
    page.table(&rows);
}

fn losses(page: &mut Page, losses: &Losses, clock: Clock) {
    page.section("lost");
    let mut text = count(losses.total);
    for (word, time) in [("first", losses.first), ("last", losses.last)] {
        if let Some(time) = time {
            let _infallible = write!(text, ", {word} {}", clock.ago_at(time));
        }
    }
    page.fact(&text);
    let rows = losses.losses.iter().map(|loss| {
        let kinds: Vec<String> = loss.kinds.iter().map(|kind| shown(kind)).collect();
        vec![
            Cell { colour: LOST, ..right(count(loss.count)) },
            left(&shown(&loss.hook)),
            left(&shown(&loss.reason)),
            left(&kinds.join(" ")),
        ]
    });
    page.table(&rows.collect::<Vec<_>>());
}

fn outputs(page: &mut Page, outputs: &[OutputStatus], clock: Clock) {
    if outputs.is_empty() {
        return;
    }
    page.section("outputs");
    let rows = outputs.iter().map(|output| {
        let lost = if output.lost > 0 { format!("{} lost", count(output.lost)) } else { String::new() };
        let kept =
            if output.kept_files > 0 { format!("{} older kept", output.kept_files) } else { String::new() };
        vec![
            left(&shown(&output.name)),
            right(format!("{} events", count(output.events))),
            right(bytes(output.bytes)),
            Cell { colour: LOST, ..right(lost) },
            left(&kept),
            left(&shown(&output.target)),
        ]
    });
    page.table(&rows.collect::<Vec<_>>());
    for output in outputs {
        if !output.failing.is_empty() {
            let since = output.failing_since.map(|since| format!(" since {}", clock.at(since)));
            let what = format!(
                "{} {} fails{}: {}",
                shown(&output.name),
                shown(&output.target),
                since.unwrap_or_default(),
                shown(&output.failing)
            );
            page.wrapped("  ", &what, Colour::Red);
        }
        if let Some(reasons) = by_reason(&output.lost_by_reason) {
            page.wrapped("  ", &format!("{} lost: {reasons}", shown(&output.name)), Colour::Red);
        }
    }
}

fn delivery(page: &mut Page, delivery: &Delivery, clock: Clock) {
    page.section("delivery");
    let since = delivery.since.map(|since| format!(" for {}", clock.since(since))).unwrap_or_default();
    let name = if delivery.agent_id.is_empty() {
        String::new()
    } else {
        format!(", as {}", shown(&delivery.agent_id))
    };
    page.fact(&format!("{} to {}{since}{name}", shown(&delivery.state), shown(&delivery.backend)));
    let oldest = delivery.oldest.filter(|_| delivery.waiting > 0);
    let oldest = oldest.map(|oldest| format!("oldest {}", clock.ago_at(oldest))).unwrap_or_default();
    let spool = format!("spool {} of {}", bytes(delivery.spool_bytes), bytes(delivery.spool_bytes_bound));
    let rows = [
        vec![left("acknowledged"), right(count(delivery.acknowledged)), left(&round_trip(delivery))],
        vec![left("waiting"), right(count(delivery.waiting)), left(&oldest)],
        vec![left("sent"), right(bytes(delivery.sent_bytes)), left(&spool)],
    ];
    page.table(&rows);
    for (word, what) in [("connection", &delivery.error), ("spool", &delivery.spool_error)] {
        if !what.is_empty() {
            page.wrapped("  ", &format!("{word}: {}", shown(what)), Colour::Red);
        }
    }
    if let Some(reasons) = by_reason(&delivery.lost) {
        page.wrapped("  ", &format!("lost: {reasons}"), Colour::Red);
    }
}

fn round_trip(delivery: &Delivery) -> String {
    if delivery.round_trip_ns == 0 {
        return String::new();
    }
    format!("the last after {}", duration(delivery.round_trip_ns))
}

fn sensors(page: &mut Page, status: &Status) {
    if status.sensors.is_empty() {
        return;
    }
    page.section("sensors");
    let mut rows = Vec::new();
    for sensor in &status.sensors {
        let served = !sensor.hook.is_empty();
        let hook =
            if served { left(&shown(&sensor.hook)) } else { Cell { colour: LOST, ..left("NOT SERVED") } };
        rows.push(vec![left(&shown(&sensor.name)), hook, left(&shown(&sensor.worth))]);
        for refused in &sensor.refused {
            let reason = format!("{}: {}", shown(&refused.hook), shown(&refused.reason));
            rows.push(vec![left(""), left("  refused"), Cell { colour: MINOR, ..left(&reason) }]);
        }
    }
    page.table(&rows);
}

fn hooks(page: &mut Page, status: &Status) {
    if status.hooks.is_empty() {
        return;
    }
    page.section("hooks");
    let head = ["", "seen", "filtered", "aggregated", "submitted", "dropped"];
    let mut rows =
        vec![head.iter().map(|word| Cell { colour: MINOR, ..right((*word).to_owned()) }).collect()];
    for hook in &status.hooks {
        let dropped: u64 = hook.dropped.iter().map(|drops| drops.count).fold(0, u64::saturating_add);
        rows.push(vec![
            left(&shown(&hook.hook)),
            right(count(hook.seen)),
            right(some(hook.filtered)),
            right(some(hook.aggregated)),
            right(some(hook.submitted)),
            Cell { colour: LOST, ..right(some(dropped)) },
            Cell { colour: LOST, ..left(&by_reason(&hook.dropped).unwrap_or_default()) },
        ]);
    }
    page.table(&rows);
}

fn identities(page: &mut Page, status: &Status) {
    if status.identities.is_empty() {
        return;
    }
    page.section("sums that must hold");
    let (hold, broken): (Vec<_>, Vec<_>) = status.identities.iter().partition(|identity| identity.holds);
    if !hold.is_empty() {
        page.fact(&format!("{} hold", hold.len()));
    }
    for identity in broken {
        let mut text = format!(
            "DOES NOT HOLD of {}: {}: {} is not {}",
            shown(&identity.of),
            shown(&identity.sum),
            count(identity.left),
            count(identity.right)
        );
        if identity.under_way > 0 {
            let _infallible = write!(text, " (they may be {} apart)", count(identity.under_way));
        }
        page.wrapped("  ", &text, Colour::Red);
    }
}

fn tables(page: &mut Page, status: &Status) {
    if status.tables.is_empty() {
        return;
    }
    page.section("tables");
    let rows = status.tables.iter().map(|table| {
        let full = share(table.entries, table.bound).max(share(table.bytes, table.bytes_bound));
        let of = |part: String, bound: String, bounded: bool| {
            if bounded { format!("{part} of {bound}") } else { part }
        };
        // Not all tables know what their entries take.
        let memory = if table.bytes == 0 && table.bytes_bound == 0 {
            String::new()
        } else {
            of(bytes(table.bytes), bytes(table.bytes_bound), table.bytes_bound > 0)
        };
        let evicted =
            if table.evicted > 0 { format!("{} evicted", count(table.evicted)) } else { String::new() };
        vec![
            left(&shown(&table.name)),
            right(full.map(|full| format!("{full}%")).unwrap_or_default()),
            right(of(count(table.entries), count(table.bound), table.bound > 0)),
            right(memory),
            Cell { colour: WARNED, ..right(evicted) },
        ]
    });
    page.table(&rows.collect::<Vec<_>>());
}

fn tail_readers(page: &mut Page, status: &Status, clock: Clock) {
    if status.tail_readers.is_empty() {
        return;
    }
    page.section("tail readers");
    let rows = status.tail_readers.iter().map(|reader| {
        let missed =
            if reader.missed > 0 { format!("{} missed", count(reader.missed)) } else { String::new() };
        vec![
            left(&format!("pid {}", reader.pid)),
            left(&format!("uid {}", reader.uid)),
            right(format!("{} sent", count(reader.sent))),
            Cell { colour: WARNED, ..right(missed) },
            left(&reader.since.map(|since| format!("for {}", clock.since(since))).unwrap_or_default()),
        ]
    });
    page.table(&rows.collect::<Vec<_>>());
}

fn resources(page: &mut Page, resources: &Resources, status: &Status) {
    page.section("resources");
    let mut parts = vec![
        format!("memory {}", bytes(resources.resident_bytes)),
        format!("rings {}", bytes(resources.ring_bytes)),
    ];
    let up = status.started.zip(status.taken).map(|(started, taken)| taken.seconds.abs_diff(started.seconds));
    let mut cpu = format!("processor {}", duration(resources.cpu_ns));
    if let Some(up) = up.filter(|up| *up > 0) {
        // Tenths of a percent of one processor.
        let share = u128::from(resources.cpu_ns) * 1000 / (u128::from(up) * 1_000_000_000);
        let _infallible = write!(cpu, " ({}.{}% of one)", share / 10, share % 10);
    }
    parts.push(cpu);
    page.fact(&parts.join(", "));
    if !resources.capabilities.is_empty() {
        let names: Vec<String> = resources.capabilities.iter().map(|name| shown(name)).collect();
        page.fact(&format!("capabilities {}", names.join(" ")));
    }
}

fn configuration(page: &mut Page, configuration: &Configuration, clock: Clock) {
    page.section("configuration");
    if let Some(loaded) = configuration.loaded {
        let again = match configuration.reloads {
            0 => String::new(),
            1 => ", loaded again once".to_owned(),
            times => format!(", loaded again {times} times"),
        };
        page.fact(&format!("loaded {}{again}", clock.ago_at(loaded)));
    }
    for file in &configuration.files {
        page.fact(&shown(file));
    }
    if !configuration.refused.is_empty() {
        page.wrapped("  ", &format!("refused: {}", shown(&configuration.refused)), Colour::Red);
    }
    if !configuration.backend_version.is_empty() {
        page.fact(&format!("version {} from the backend", shown(&configuration.backend_version)));
    }
    if !configuration.pending.is_empty() {
        let settings: Vec<String> = configuration.pending.iter().map(|setting| shown(setting)).collect();
        let what = format!("changed, counts from the next start on: {}", settings.join(", "));
        page.wrapped("  ", &what, Colour::Yellow);
    }
}

/// `ring_full 17, too_big 2`; None where there is nothing.
fn by_reason(drops: &[Drops]) -> Option<String> {
    let drops = drops.iter().filter(|drops| drops.count > 0);
    let parts: Vec<String> =
        drops.map(|drops| format!("{} {}", shown(&drops.reason), count(drops.count))).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

// === Numbers and times ===

/// `1,234,567`
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// As [`count`], empty for 0.
fn some(number: u64) -> String {
    if number == 0 { String::new() } else { count(number) }
}

/// `11.5/s`
fn rate(milli_per_second: u64) -> String {
    format!("{}.{}/s", count(milli_per_second / 1000), milli_per_second % 1000 / 100)
}

/// `2.8 MiB`
fn bytes(number: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| number >> shift > 0) else {
        return format!("{number} B");
    };
    let tenths = ((number & ((1 << shift) - 1)) * 10) >> shift;
    format!("{}.{tenths} {unit}", number >> shift)
}

/// `900us`, `11.0ms`, `3.2s`, `2m0s`
fn duration(nanoseconds: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", nanoseconds / unit, nanoseconds % unit * 10 / unit);
    match nanoseconds {
        0..1_000_000 => format!("{}us", nanoseconds / 1000),
        1_000_000..1_000_000_000 => format!("{}ms", tenths(1_000_000)),
        1_000_000_000..60_000_000_000 => format!("{}s", tenths(1_000_000_000)),
        _ => age(nanoseconds / 1_000_000_000),
    }
}

/// `45s`, `3m20s`, `3h12m`, `2d4h`
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// In percent; None without a bound.
fn share(part: u64, bound: u64) -> Option<u64> {
    let percent = (u128::from(part) * 100).checked_div(u128::from(bound))?;
    u64::try_from(percent).ok()
}

/// When the status was taken, which all ages count from.
#[derive(Clone, Copy)]
struct Clock(Timestamp);

impl Clock {
    fn of(status: &Status) -> Self {
        Self(status.taken.or(status.started).unwrap_or_default())
    }

    /// `3m20s`
    fn since(self, time: Timestamp) -> String {
        age(u64::try_from(self.0.seconds.saturating_sub(time.seconds)).unwrap_or(0))
    }

    /// `3m20s ago`
    fn ago(self, time: Timestamp) -> String {
        format!("{} ago", self.since(time))
    }

    /// `3m20s ago (10:21:33Z)`
    fn ago_at(self, time: Timestamp) -> String {
        format!("{} ({})", self.ago(time), self.at(time))
    }

    /// `10:21:33Z`, with the date where it is not that of the status.
    fn at(self, time: Timestamp) -> String {
        const DAY: i64 = 86_400;
        let of_day = time.seconds.rem_euclid(DAY);
        let clock = format!("{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60);
        let day = time.seconds.div_euclid(DAY);
        if day == self.0.seconds.div_euclid(DAY) { clock } else { format!("{} {clock}", date(day)) }
    }
}

/// `2026-08-21`, of a day counted from 1970-01-01: `civil_from_days` of
/// <https://howardhinnant.github.io/date_algorithms.html>, which has the year begin in March so that the leap
/// day is its last.
fn date(day: i64) -> String {
    let day = day.saturating_add(719_468);
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

// === The page ===

/// Colours of the terminal, by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
    Grey = 90,
}

const LOST: Option<Colour> = Some(Colour::Red);
const WARNED: Option<Colour> = Some(Colour::Yellow);
const MINOR: Option<Colour> = Some(Colour::Grey);

/// What stands in a column.
#[derive(Clone)]
struct Cell {
    text: String,
    right: bool,
    colour: Option<Colour>,
}

fn left(text: &str) -> Cell {
    Cell { text: text.to_owned(), right: false, colour: None }
}

fn right(text: String) -> Cell {
    Cell { text, right: true, colour: None }
}

struct Page {
    style: Style,
    text: String,
}

impl Page {
    fn section(&mut self, title: &str) {
        self.line(&[]);
        self.line(&[(title, Some(Colour::Cyan))]);
    }

    fn fact(&mut self, text: &str) {
        self.line(&[("  ", None), (text, None)]);
    }

    /// Rows whose columns are aligned. The last one may be as long as it likes; a name before it that is very
    /// long is cut, so that it does not push the numbers out of sight.
    fn table(&mut self, rows: &[Vec<Cell>]) {
        /// Longer than any name that the agent itself gives.
        const LONGEST: usize = 28;
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<Cell>, column: usize| -> Option<Cell> {
            let cell = row.get(column)?;
            let text = if column + 1 < columns { cut(&cell.text, LONGEST) } else { cell.text.clone() };
            Some(Cell { text, ..cell.clone() })
        };
        let width = |column| rows.iter().filter_map(|row| cell(row, column)).map(|it| length(&it.text)).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in rows {
            let mut parts: Vec<(String, Option<Colour>)> = Vec::new();
            let mut missing = 0;
            for (column, width) in widths.iter().enumerate().filter(|(_, width)| **width > 0) {
                let Some(cell) = cell(row, column) else { break };
                let padding = width - length(&cell.text);
                // Spaces are only written once something follows them.
                missing += 2 + if cell.right { padding } else { 0 };
                if !cell.text.is_empty() {
                    parts.push((" ".repeat(missing), None));
                    missing = 0;
                    parts.push((cell.text, cell.colour));
                }
                missing += if cell.right { 0 } else { padding };
            }
            let parts: Vec<(&str, Option<Colour>)> =
                parts.iter().map(|(text, colour)| (text.as_str(), *colour)).collect();
            self.line(&parts);
        }
    }

    /// Text that must not be cut, over as many lines as it takes.
    fn wrapped(&mut self, start: &str, text: &str, colour: Colour) {
        /// Narrower is no terminal to read on.
        const NARROW: usize = 20;
        /// More than that is no reason but a document.
        const MOST: usize = 800;
        let text = cut(text, MOST);
        let room = self.style.width.map_or(usize::MAX, |width| width.max(NARROW) - start.len());
        let mut line = String::new();
        let mut start = start.to_owned();
        for word in text.split(' ') {
            if !line.is_empty() && length(&line) + 1 + length(word) > room {
                self.line(&[(&start, None), (&line, Some(colour))]);
                start = " ".repeat(start.len());
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(&[(&start, None), (&line, Some(colour))]);
    }

    /// A line, cut to the terminal's width; its last column says that there was more.
    fn line(&mut self, parts: &[(&str, Option<Colour>)]) {
        let columns: usize = parts.iter().map(|(text, _)| length(text)).sum();
        let too_long = self.style.width.is_some_and(|width| columns > width);
        let mut room =
            if too_long { self.style.width.unwrap_or_default().saturating_sub(1) } else { columns };
        for (text, colour) in parts {
            let text: String = text.chars().take(room).collect();
            room -= length(&text);
            match colour.filter(|_| self.style.colour && !text.is_empty()) {
                Some(colour) => {
                    let _infallible = write!(self.text, "\u{1B}[{}m{text}\u{1B}[0m", colour as u8);
                }
                None => self.text.push_str(&text),
            }
        }
        self.text.push_str(if too_long { "…\n" } else { "\n" });
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// At most `most` characters, the last of which says that there were more.
fn cut(text: &str, most: usize) -> String {
    if length(text) <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use nightjar_proto::v1::{
        HookCounts, Identity, KindCount, Lag, Loss, RefusedHook, Sensor, TableStatus, TailReader,
    };

    use super::*;

    /// 2026-08-20 10:00:00 and so many seconds.
    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds: 1_787_220_000 + seconds, nanos: 0 }
    }

    fn drops(reason: &str, count: u64) -> Vec<Drops> {
        vec![Drops { reason: reason.to_owned(), count }]
    }

    fn sensors() -> Vec<Sensor> {
        vec![
            Sensor {
                name: "process.exec".to_owned(),
                hook: "tp_btf".to_owned(),
                worth: "complete".to_owned(),
                ..Sensor::default()
            },
            Sensor {
                name: "process.credentials".to_owned(),
                hook: "passing".to_owned(),
                worth: "at the task's next exec or exit, without the call".to_owned(),
                refused: vec![RefusedHook {
                    hook: "tracepoint".to_owned(),
                    reason: "tracefs is not there".to_owned(),
                }],
            },
        ]
    }

    fn good() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            instance: "default".to_owned(),
            pid: 123,
            host: "db1".to_owned(),
            started: Some(at(0)),
            taken: Some(at(11_520)),
            configuration: Some(Configuration {
                files: vec!["/etc/nightjar/nightjar.yaml".to_owned()],
                loaded: Some(at(0)),
                ..Configuration::default()
            }),
            sensors: sensors(),
            hooks: vec![
                HookCounts {
                    hook: "exec".to_owned(),
                    seen: 1_234_567,
                    submitted: 1_234_567,
                    ..HookCounts::default()
                },
                HookCounts {
                    hook: "exec_failed".to_owned(),
                    seen: 70,
                    filtered: 40,
                    submitted: 30,
                    ..HookCounts::default()
                },
            ],
            identities: vec![
                Identity {
                    sum: "seen = submitted".to_owned(),
                    of: "exec".to_owned(),
                    left: 5,
                    right: 5,
                    holds: true,
                    ..Identity::default()
                },
                Identity { holds: true, ..Identity::default() },
            ],
            flow: Some(Flow {
                received: 1_234_597,
                exported: vec![
                    KindCount { kind: "process.exec".to_owned(), count: 1_234_500 },
                    KindCount { kind: "process.exec_failed".to_owned(), count: 30 },
                ],
                discarded: drops("not_asked_for", 67),
                received_rate_milli: 11_550,
                exported_rate_milli: 11_000,
                ..Flow::default()
            }),
            outputs: vec![OutputStatus {
                name: "json".to_owned(),
                target: "/var/log/nightjar/events.json".to_owned(),
                events: 1_234_530,
                bytes: 2_955_000,
                kept_files: 4,
                ..OutputStatus::default()
            }],
            tail_readers: vec![TailReader {
                pid: 4242,
                uid: 1000,
                since: Some(at(11_320)),
                sent: 50,
                ..TailReader::default()
            }],
            tables: vec![
                TableStatus {
                    name: "processes".to_owned(),
                    entries: 15_000,
                    bound: 16_384,
                    bytes: 180_000,
                    bytes_bound: 14 << 20,
                    evicted: 2,
                },
                TableStatus {
                    name: "history".to_owned(),
                    entries: 211,
                    bytes: 4 << 20,
                    bytes_bound: 8 << 20,
                    ..TableStatus::default()
                },
                TableStatus { name: "cgroups".to_owned(), entries: 5, bound: 4096, ..TableStatus::default() },
            ],
            lag: Some(Lag { mean_ns: 900_000, max_ns: 11_000_000 }),
            resources: Some(Resources {
                resident_bytes: 31_457_280,
                cpu_ns: 120_000_000_000,
                ring_bytes: 8 << 20,
                capabilities: vec!["bpf".to_owned(), "perfmon".to_owned()],
            }),
            ..Status::default()
        }
    }

    fn bad() -> Status {
        let mut status = good();
        status.losses = Some(Losses {
            total: 23,
            first: Some(at(-86_400)),
            last: Some(at(11_320)),
            losses: vec![Loss {
                hook: "exec".to_owned(),
                reason: "ring_full".to_owned(),
                count: 17,
                kinds: vec!["process.exec".to_owned()],
            }],
        });
        status.hooks[0].dropped = drops("ring_full", 17);
        status.identities[0] =
            Identity { holds: false, right: 6, under_way: 2, ..status.identities[0].clone() };
        status.outputs[0] = OutputStatus {
            lost: 6,
            failing: "no space left on device".to_owned(),
            failing_since: Some(at(11_120)),
            lost_by_reason: drops("write_failed", 6),
            ..status.outputs[0].clone()
        };
        status.sensors[1].hook.clear();
        let configuration = status.configuration.as_mut().unwrap();
        configuration.refused = "kinds: no kind of event is called \"process.exce\"".to_owned();
        configuration.pending = vec!["kernel.ring_size".to_owned()];
        configuration.reloads = 1;
        status.flow.as_mut().unwrap().refused = drops("undecodable", 1);
        status.tail_readers[0].missed = 3;
        status
    }

    #[test]
    fn a_page_on_which_all_is_well() {
        let expected = "\
nightjar 0.1.0 \"default\" on db1, pid 123, up 3h12m: all is well

flow
  received                  1,234,597  11.5/s
  exported                  1,234,530  11.0/s
    process.exec            1,234,500
    process.exec_failed            30
  discarded: not_asked_for         67

lag
  mean 900us, longest 11.0ms, over the last ten seconds

outputs
  json  1,234,530 events  2.8 MiB  4 older kept  /var/log/nightjar/events.json

sensors
  process.exec         tp_btf     complete
  process.credentials  passing    at the task's next exec or exit, without the call
                         refused  tracepoint: tracefs is not there

hooks
                    seen  filtered  aggregated  submitted  dropped
  exec         1,234,567                        1,234,567
  exec_failed         70        40                     30

sums that must hold
  2 hold

tables
  processes  91%  15,000 of 16,384  175.7 KiB of 14.0 MiB  2 evicted
  history    50%               211     4.0 MiB of 8.0 MiB
  cgroups     0%        5 of 4,096

tail readers
  pid 4242  uid 1000  50 sent  for 3m20s

resources
  memory 30.0 MiB, rings 8.0 MiB, processor 2m0s (1.0% of one)
  capabilities bpf perfmon

configuration
  loaded 3h12m ago (10:00:00Z)
  /etc/nightjar/nightjar.yaml
";
        let text = render(&good(), Style::default());
        assert_eq!(text, expected, "{text}");
        assert_eq!(health(&good()), Health::Good);
    }

    #[test]
    fn a_page_begins_with_all_that_is_wrong() {
        let text = render(&bad(), Style { width: Some(80), ..Style::default() });
        let expected = "\
nightjar 0.1.0 \"default\" on db1, pid 123, up 3h12m: NOT ALL IS WELL
  * not all losses are known: of exec, seen = submitted does not hold: 5 is not
    6
  * the output json /var/log/nightjar/events.json fails for 6m40s: no space left
    on device
  * 23 lost, the last 3m20s ago
  * no hook serves process.credentials: there are no such events
  * the changed configuration was refused, the one before is still in force:
    kinds: no kind of event is called \"process.exce\"
";
        assert!(text.starts_with(expected), "{text}");
        for line in [
            "  refused: undecodable              1\n",
            "  23, first 1d3h ago (2026-08-19 10:00:00Z), last 3m20s ago (13:08:40Z)\n",
            "  17  exec  ring_full  process.exec\n",
            "  json lost: write_failed 6\n",
            "  exec         1,234,567                        1,234,567       17  ring_full 17\n",
            "  1 hold\n  DOES NOT HOLD of exec: seen = submitted: 5 is not 6 (they may be 2 apart)\n",
            "  process.credentials  NOT SERVED",
            "  50 sent  3 missed  for 3m20s\n",
            "loaded again once\n",
            "  changed, counts from the next start on: kernel.ring_size\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn each_thing_that_is_wrong_makes_it_degraded_alone() {
        let wrongs: [fn(&mut Status); 5] = [
            |status| status.losses = bad().losses,
            |status| status.identities = bad().identities,
            |status| status.outputs = bad().outputs,
            |status| status.sensors = bad().sensors,
            |status| status.configuration = bad().configuration,
        ];
        for wrong in wrongs {
            let mut status = good();
            wrong(&mut status);
            assert!(matches!(health(&status), Health::Degraded(why) if why.len() == 1));
        }
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let status = Status { version: "0.1.0".to_owned(), pid: 1, ..Status::default() };
        assert_eq!(render(&status, Style::default()), "nightjar 0.1.0, pid 1: all is well\n");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for status in [good(), bad()] {
            for width in [0, 1, 20, 40, 80, 200] {
                let text = render(&status, Style { width: Some(width), colour: false });
                for line in text.lines() {
                    assert!(line.chars().count() <= width.max(1), "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn only_the_end_of_long_text_is_cut_at_80_columns() {
        let text = render(&bad(), Style { width: Some(80), colour: false });
        let cut: Vec<&str> = text.lines().filter(|line| line.ends_with('…')).collect();
        let [output, sensor] = cut.as_slice() else { panic!("{cut:?}") };
        assert!(
            output.starts_with("  json  1,234,530 events  2.8 MiB  6 lost  4 older kept  /var/log"),
            "{output}"
        );
        assert!(sensor.starts_with("  process.credentials  NOT SERVED  at the task's next exec"), "{sensor}");
    }

    #[test]
    fn colours_are_only_there_when_wanted_and_change_no_text() {
        let style = Style { width: Some(80), colour: true };
        let text = render(&bad(), style);
        assert!(text.contains("\u{1B}[31mNOT ALL IS WELL\u{1B}[0m"));
        let mut stripped = String::new();
        let mut parts = text.split('\u{1B}');
        stripped.push_str(parts.next().unwrap());
        for part in parts {
            stripped.push_str(part.split_once('m').unwrap().1);
        }
        assert_eq!(stripped, render(&bad(), Style { colour: false, ..style }));
    }

    #[test]
    fn nothing_from_outside_acts_on_the_terminal_or_makes_a_line() {
        let hostile = "\u{1B}[2J\n\u{202E}x\u{7}";
        let text = || hostile.to_owned();
        let mut status = bad();
        status.version = text();
        status.instance = text();
        status.host = text();
        let configuration = status.configuration.as_mut().unwrap();
        configuration.files = vec![text()];
        configuration.refused = text();
        configuration.pending = vec![text()];
        status.sensors[0] = Sensor {
            name: text(),
            hook: text(),
            worth: text(),
            refused: vec![RefusedHook { hook: text(), reason: text() }],
        };
        status.hooks[0].hook = text();
        status.hooks[0].dropped = drops(hostile, 1);
        status.identities[0].sum = text();
        status.identities[0].of = text();
        let flow = status.flow.as_mut().unwrap();
        flow.exported[0].kind = text();
        flow.discarded = drops(hostile, 1);
        flow.refused = drops(hostile, 1);
        status.outputs[0].name = text();
        status.outputs[0].target = text();
        status.outputs[0].failing = text();
        status.outputs[0].lost_by_reason = drops(hostile, 1);
        status.tables[0].name = text();
        let losses = &mut status.losses.as_mut().unwrap().losses;
        losses[0] = Loss { hook: text(), reason: text(), count: 1, kinds: vec![text()] };
        status.resources.as_mut().unwrap().capabilities = vec![text()];
        let lines = render(&bad(), Style::default()).lines().count();
        let page = render(&status, Style::default());
        assert!(page.lines().all(|line| line == shown(line)), "{page:?}");
        assert_eq!(page.lines().count(), lines + 1, "one refused hook more");
        let Health::Degraded(why) = health(&status) else { panic!("it is not well") };
        assert!(why.iter().all(|why| *why == shown(why)), "{why:?}");
    }

    #[test]
    fn a_status_of_extremes_is_no_reason_to_panic() {
        let extreme = Timestamp { seconds: i64::MIN, nanos: i32::MAX };
        let mut status = bad();
        for time in [extreme, Timestamp { seconds: i64::MAX, nanos: i32::MIN }] {
            status.taken = Some(time);
            status.started = Some(extreme);
            status.losses.as_mut().unwrap().first = Some(extreme);
            status.losses.as_mut().unwrap().last = Some(Timestamp { seconds: i64::MAX, nanos: 0 });
            status.tables[0] = TableStatus {
                entries: u64::MAX,
                bound: 1,
                bytes: u64::MAX,
                bytes_bound: u64::MAX,
                evicted: u64::MAX,
                ..status.tables[0].clone()
            };
            status.hooks[0].dropped = [drops("a", u64::MAX), drops("b", u64::MAX)].concat();
            status.lag = Some(Lag { mean_ns: u64::MAX, max_ns: u64::MAX });
            status.resources.as_mut().unwrap().cpu_ns = u64::MAX;
            assert!(render(&status, Style::default()).contains("18,446,744,073,709,551,615"));
        }
    }

    #[test]
    fn numbers_and_ages_are_short() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1536, 5 << 40].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]);
        assert_eq!([5, 200, 11_520, 187_200].map(age), ["5s", "3m20s", "3h12m", "2d4h"]);
        assert_eq!(
            [0, 950_000, 3_250_000_000, 90_000_000_000].map(duration),
            ["0us", "950us", "3.2s", "1m30s"]
        );
        assert_eq!(
            [0, -1, 11_016, 20_685].map(date),
            ["1970-01-01", "1969-12-31", "2000-02-29", "2026-08-20"]
        );
    }
}
