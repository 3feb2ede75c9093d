//! E-mail, by SMTP.

use super::super::state::AlarmEvent;
use super::super::waiting::{AlarmLine, Notification};
use super::secret;
use crate::config::{EmailConfig, SmtpTls};
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use std::time::Duration;

/// How long a step of the conversation may take.
const STEP_WITHIN: Duration = Duration::from_secs(20);

pub struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Email {
    pub fn open(config: &EmailConfig) -> Result<Email, String> {
        let mailbox = |text: &String| {
            text.parse::<Mailbox>().map_err(|error| format!("{text:?} is no address of e-mail: {error}"))
        };
        // The authorities that this system trusts, as for webhooks.
        let parameters = || TlsParameters::new(config.host.clone()).map_err(|error| error.to_string());
        let tls = match config.tls {
            SmtpTls::Starttls => Tls::Required(parameters()?),
            SmtpTls::Implicit => Tls::Wrapper(parameters()?),
            SmtpTls::None => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(config.port)
            .tls(tls)
            .timeout(Some(STEP_WITHIN));
        if let Some((user, file)) = &config.login {
            builder = builder.credentials(Credentials::new(user.clone(), secret(file)?.to_string()));
        }
        let to = config.to.iter().map(mailbox).collect::<Result<_, _>>()?;
        Ok(Email { transport: builder.build(), from: mailbox(&config.from)?, to })
    }

    /// `Ok`: the mail server took it for all addresses.
    pub async fn send(&self, notification: &Notification, server: &str) -> Result<(), String> {
        // Mail programs show a mail that comes twice once.
        let builder = Message::builder()
            .from(self.from.clone())
            .message_id(Some(format!("<{}@fogpost>", notification.id)));
        let builder = self.to.iter().fold(builder, |builder, to| builder.to(to.clone()));
        let message = builder
            .subject(subject(notification))
            .header(ContentType::TEXT_PLAIN)
            .body(body(notification, server))
            .map_err(|error| error.to_string())?;
        self.transport.send(message).await.map(drop).map_err(|error| with_sources(&error))
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text += &format!(": {said}");
        }
        source = error.source();
    }
    text
}

fn subject(notification: &Notification) -> String {
    let event = match notification.event {
        AlarmEvent::Raised => "alarm",
        AlarmEvent::Reminder => "still an alarm",
        AlarmEvent::Resolved => "resolved",
        AlarmEvent::Summary => return format!("[fogpost] {} alarms are raised", notification.raised.len()),
        AlarmEvent::Test => return "[fogpost] test".into(),
    };
    let what = notification.alarm.as_ref().map(title).unwrap_or_default();
    format!("[fogpost] {event}: {what}")
}

fn title(alarm: &AlarmLine) -> String {
    format!("{} {}", alarm.garage.as_deref().unwrap_or("server"), alarm.code)
}

fn body(notification: &Notification, server: &str) -> String {
    let mut lines = Vec::new();
    match notification.event {
        AlarmEvent::Test => lines.push("This is a test: notifications of alarms arrive here.".to_owned()),
        AlarmEvent::Resolved => lines.push("This is over:".to_owned()),
        AlarmEvent::Summary => lines.push(format!(
            "{} more notifications came than could wait. What is raised now:",
            notification.omitted.unwrap_or_default()
        )),
        AlarmEvent::Raised | AlarmEvent::Reminder => {}
    }
    for alarm in notification.alarm.iter().chain(&notification.raised) {
        lines.push(format!("\n{}: {}", title(alarm), alarm.summary));
        lines.push(format!("Since:  {}", alarm.since));
        lines.push(format!("To do:  {}", alarm.hint));
        lines.push(format!("Facts:  {}", serde_json::Value::from(alarm.facts.clone())));
    }
    lines.push(format!("\nAt {}, from the server of ledger {server}.", notification.at));
    lines.push(
        "\"server alarms list\" shows what is raised, \"server explain CODE\" what a code means.".into(),
    );
    lines.join("\n").trim_start().to_owned() + "\n"
}
