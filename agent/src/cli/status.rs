//! `nightjar status`

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nightjar_proto::{agent::v1::GetStatusRequest, v1::Status};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{
    Global, Period,
    client::{ConnectError, LONGEST_ANSWER, Target, refused},
    status_view::{self, Health},
    tail::style,
};

/// The agent does not do all that it should.
const DEGRADED: u8 = 3;

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 all is well, 1 no agent answers, 3 something is wrong with it.")]
pub(super) struct Arguments {
    /// How it looks: for eyes, or JSON
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Draw it again and again, every second or as told
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1s")]
    watch: Option<Period>,

    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(super) fn status(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    let target = arguments.target.or_configured(global.config.as_ref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.watch {
            None => {
                let status = ask(&target).await?;
                print(&shown(&status, arguments.output))?;
                Ok(match status_view::health(&status) {
                    Health::Good => ExitCode::SUCCESS,
                    Health::Degraded(_) => ExitCode::from(DEGRADED),
                })
            }
            Some(every) => watch(arguments, &target, every.duration()).await.map(|()| ExitCode::SUCCESS),
        }
    })
}

async fn ask(target: &Target) -> Result<Status> {
    let mut client = target.connect().await?;
    let answer = timeout(LONGEST_ANSWER, client.get_status(GetStatusRequest {})).await;
    let answer = answer.map_err(|_| ConnectError::Silent(target.path()))?;
    Ok(answer.map_err(|status| refused(&target.path(), &status))?.into_inner())
}

fn shown(status: &Status, output: Output) -> String {
    match output {
        Output::Text => status_view::render(status, style()),
        Output::Json => nightjar_proto::status_to_json(status) + "\n",
    }
}

async fn watch(arguments: &Arguments, target: &Target, every: Duration) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut resized = signal(SignalKind::window_change())?;
    let screen = Screen::take(arguments.output)?;
    loop {
        let text = match ask(target).await {
            Ok(status) => shown(&status, arguments.output),
            // It may come back.
            Err(error) if screen.is_some() => format!("{error:#}\n"),
            Err(error) => return Err(error),
        };
        let drawn = match &screen {
            Some(_) => Screen::draw(&text),
            None => print(&text),
        };
        match drawn {
            Err(error) if is_closed(&error) => return Ok(()),
            drawn => drawn?,
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = resized.recv() => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot write the status")
}

/// The terminal, with what was on it kept for later.
struct Screen;

impl Screen {
    /// Switches to the alternate screen and hides the cursor; nothing where standard output is no terminal.
    fn take(output: Output) -> Result<Option<Self>> {
        if output != Output::Text || !io::stdout().is_terminal() {
            return Ok(None);
        }
        print("\x1b[?1049h\x1b[?25l")?;
        Ok(Some(Self))
    }

    /// Draws over what was there, line by line, so that nothing flickers.
    fn draw(text: &str) -> Result<()> {
        let rows = rustix::termios::tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row));
        let mut drawn = "\x1b[H".to_owned();
        for line in text.lines().take(rows.saturating_sub(1)) {
            drawn.push_str(line);
            drawn.push_str("\x1b[K\r\n");
        }
        drawn.push_str("\x1b[J");
        print(&drawn)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _gone = print("\x1b[?25h\x1b[?1049l");
    }
}
