//! `tidemill chat`: a conversation, and judgements on it.

use std::io::{BufRead as _, IsTerminal as _};

use futures::StreamExt as _;
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::inference::v1::{self as inference, ChatMessage, GenerateRequest};
use tidemill_proto::ingestion::v1::feedback::Rating;
use tokio::sync::mpsc;
use tonic::Status;

use super::Context;
use super::feedback::{Judgement, post};
use crate::arguments::Chat;
use crate::connection::Connection;
use crate::failure::{Failure, described};
use crate::output;

/// What a line asks for.
enum Asked {
    Say(String),
    Judge(Judgement),
    New,
    Quit,
    Help,
}

/// Talks until the input ends.
pub(super) async fn execute(context: &Context, chat: &Chat) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let interactive = std::io::stdin().is_terminal();
    let first: Vec<ChatMessage> = chat.system.iter().map(|text| message("system", text)).collect();
    let mut messages = first.clone();
    let mut answer = String::new();
    let mut lines = input();
    context
        .output
        .note(&format!("talking with {}; /good, /bad or /fix TEXT judge an answer, /quit leaves", chat.model));
    loop {
        if interactive {
            output::raw("\n> ");
        }
        let Some(line) = lines.recv().await else { return Ok(()) };
        match asked(&line) {
            None => {}
            Some(Asked::Quit) => return Ok(()),
            Some(Asked::Help) => context.output.note("/good  /bad  /fix TEXT  /new  /quit"),
            Some(Asked::New) => messages.clone_from(&first),
            Some(Asked::Judge(_)) if answer.is_empty() => context.output.note("there is no answer to judge yet"),
            Some(Asked::Judge(judgement)) => match post(&connection, &answer, &judgement, true).await {
                Ok(stored) => context.output.note(&format!("stored as {}; thank you", stored.name)),
                Err(failure) => context.output.note(failure.text()),
            },
            Some(Asked::Say(text)) => {
                messages.push(message("user", &text));
                match say(&connection, chat, &messages).await {
                    Ok((name, text)) => {
                        answer = name;
                        messages.push(message("assistant", &text));
                    }
                    // The conversation goes on without what could not be answered.
                    Err(status) => {
                        messages.pop();
                        if !interactive {
                            return Err(status.into());
                        }
                        eprintln!("{}", described(&status));
                    }
                }
            }
        }
    }
}

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.to_owned(), content: content.to_owned() }
}

fn asked(line: &str) -> Option<Asked> {
    let line = line.trim();
    let rating = |rating| Some(Asked::Judge(Judgement { rating, correction: String::new() }));
    match line.split_once(' ').unwrap_or((line, "")) {
        ("", _) => None,
        ("/quit" | "/exit", _) => Some(Asked::Quit),
        ("/new", _) => Some(Asked::New),
        ("/good", _) => rating(Rating::Up),
        ("/bad", _) => rating(Rating::Down),
        ("/fix", text) if !text.trim().is_empty() => {
            Some(Asked::Judge(Judgement { rating: Rating::Down, correction: text.trim().to_owned() }))
        }
        (word, _) if word.starts_with('/') => Some(Asked::Help),
        _ => Some(Asked::Say(line.to_owned())),
    }
}

/// Sends the conversation and prints the answer as it comes.
async fn say(connection: &Connection, chat: &Chat, messages: &[ChatMessage]) -> Result<(String, String), Status> {
    let request = GenerateRequest {
        model: chat.model.clone(),
        input: Some(Input::Chat(inference::Chat { messages: messages.to_vec() })),
        sampling: Some((&chat.sampling).into()),
        store: true,
        answer_id: String::new(),
    };
    let mut stream = connection.inference().generate_stream(request).await?.into_inner();
    let (mut name, mut text) = (String::new(), String::new());
    while let Some(part) = stream.next().await {
        let part = part?;
        output::raw(&part.text);
        text.push_str(&part.text);
        name = part.answer;
    }
    output::raw("\n");
    Ok((name, text))
}

/// Lines of standard input, read on a thread of their own: reading blocks.
fn input() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_unless_it_is_a_command() {
        assert!(matches!(asked("hello /good"), Some(Asked::Say(text)) if text == "hello /good"));
        assert!(matches!(asked("/good"), Some(Asked::Judge(judgement)) if judgement.rating == Rating::Up));
        assert!(
            matches!(asked("/fix It is strong. "), Some(Asked::Judge(judgement)) if judgement.correction == "It is strong.")
        );
        assert!(matches!(asked("/fix"), Some(Asked::Help)));
        assert!(matches!(asked("/quit"), Some(Asked::Quit)));
        assert!(asked("  ").is_none());
    }
}
