//! Alarms: what a person has to look at, shown, counted and announced.
//!
//! **Promise.** An alarm is raised once, reminded of daily while it lasts, and resolved, over any number of restarts. Each receiver hears of it in this
//! order, each notification at least once; after a kill at most the one that was under way comes a second time, under the same id.
//! **Kept by.** [`conditions`] says what is wrong now, [`state`] what is new about that, and [`keeping`] writes it together with what waits for the
//! receivers ([`waiting`]), before anybody is notified or shown anything.
//! **Not promised.** Anything while the server is down: who watches the watcher asks `/readyz`.

mod conditions;
mod gather;
mod id;
mod keeping;
mod notify;
mod state;
mod waiting;

pub use gather::AlarmSources;

use super::applying::LiveViews;
use super::view::Snapshot;
use crate::codes::{self, Code};
use crate::config::{AlarmThresholds, NotifyConfig};
use crate::daemon::admin::{NotDone, Outcome};
use crate::daemon::tasks::Tasks;
use crate::daemon::{DaemonError, clock};
use crate::http::metrics::{LabelledGauges, Metrics};
use crate::messaging::{LedgerId, SiteName};
use crate::parking::Moment;
use conditions::{AlarmText, Reading, Watches};
use id::AlarmId;
use keeping::KeptAlarms;
use notify::Receiver;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::{AlarmEvent, Announcement, Silence, Timers};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use waiting::{AlarmLine, Notification};

/// How often the server looks for what is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A request of an operator about alarms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AlarmsRequest {
    List,
    /// Stop the notifications of an alarm, in one garage or everywhere, until a time; `None`: let them go on.
    Silence {
        code: String,
        garage: Option<SiteName>,
        until_ms: Option<i64>,
    },
    /// Send a test to every receiver.
    Test,
}

/// The alarms of a running server, shared by those who look, show and notify.
pub struct Alarms {
    dir: PathBuf,
    ledger: LedgerId,
    live: Arc<LiveViews>,
    thresholds: AlarmThresholds,
    receivers: Vec<Receiver>,
    shown: Mutex<ShownAlarms>,
    /// Held from the change to the disk: what is shown was written, in the order of the changes.
    writing: Mutex<()>,
    /// The last change is not on the disk.
    unwritten: AtomicBool,
    changed: watch::Sender<()>,
    raised: Mutex<LabelledGauges>,
    undelivered: LabelledGauges,
}

struct ShownAlarms {
    kept: KeptAlarms,
    /// As they are now.
    texts: BTreeMap<AlarmId, AlarmText>,
}

/// Reads the secrets of the receivers, before anything is opened.
pub fn open_receivers(configs: &[NotifyConfig]) -> Result<Receivers, DaemonError> {
    let opened = configs.iter().map(Receiver::open).collect::<Result<_, _>>();
    opened.map(Receivers).map_err(|reason| DaemonError::Setting(codes::INVALID_SETTING, reason))
}

/// Those who are notified, with their secrets.
pub struct Receivers(Vec<Receiver>);

impl Alarms {
    /// Goes on with what an earlier process kept in `dir`.
    pub fn open(
        dir: PathBuf,
        (ledger, live): (LedgerId, Arc<LiveViews>),
        thresholds: AlarmThresholds,
        Receivers(receivers): Receivers,
        metrics: &mut Metrics,
    ) -> Arc<Alarms> {
        let mut kept = keeping::read(&dir);
        for (receiver, notifications) in
            kept.lines.keep_only(|name| receivers.iter().any(|receiver| receiver.name() == name))
        {
            tracing::warn!(
                code = %codes::NOTIFICATIONS_DROPPED,
                receiver, notifications,
                hint = "nothing to do, if the receiver was removed or renamed in the configuration on purpose",
                "notifications wait for a receiver that is no longer configured; they are dropped"
            );
        }
        Arc::new(Alarms {
            dir,
            ledger,
            live,
            thresholds,
            receivers,
            shown: Mutex::new(ShownAlarms { kept, texts: BTreeMap::new() }),
            writing: Mutex::new(()),
            unwritten: AtomicBool::new(false),
            changed: watch::Sender::new(()),
            raised: Mutex::new(metrics.gauges("alarm", "Alarms that are raised: 1 for each")),
            undelivered: metrics
                .gauges("notifications_undelivered", "Notifications of alarms that wait for their receiver"),
        })
    }

    /// Looks, and notifies, until `stop`.
    pub fn run(self: &Arc<Self>, sources: AlarmSources, tasks: &mut Tasks, stop: &CancellationToken) {
        let (alarms, stopped) = (Arc::clone(self), stop.clone());
        tasks.spawn("looking for alarms", async move {
            stopped.run_until_cancelled(alarms.look_again_and_again(sources)).await;
        });
        for n in 0..self.receivers.len() {
            let (alarms, stopped) = (Arc::clone(self), stop.clone());
            tasks.spawn("notifying of alarms", async move {
                stopped.run_until_cancelled(alarms.notify_for_ever(n)).await;
            });
        }
    }

    async fn look_again_and_again(self: Arc<Self>, sources: AlarmSources) {
        self.live.applied_to(sources.ledger.position()).await;
        let mut looking = tokio::time::interval(LOOK_EVERY);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let baselines = self.shown().kept.book.baselines.clone();
        let mut memory = (Watches::going_on_with(baselines), Timers::default());
        let sources = Arc::new(sources);
        loop {
            looking.tick().await;
            let (alarms, sources) = (Arc::clone(&self), Arc::clone(&sources));
            // A disk that does not answer holds up only this task.
            let looked = spawn_blocking(move || {
                alarms.look(&sources, &mut memory);
                memory
            });
            memory = looked.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
    }

    fn look(&self, sources: &AlarmSources, (watches, timers): &mut (Watches, Timers)) {
        let view = self.live.snapshot();
        let city = sources.city(&view, &self.dir);
        let readings = conditions::read(&city, watches, &self.thresholds);
        let texts = readings.iter().filter_map(|(id, reading)| match reading {
            Reading::Present(text) => Some((id.clone(), text.clone())),
            Reading::Unknown => None,
        });
        self.shown().texts = texts.collect();
        let wanted = |id: &AlarmId| self.receivers.iter().any(|receiver| receiver.wants(&view, id));
        let changes = self.change(|kept| {
            kept.book.baselines.clone_from(&watches.baselines);
            let now = (city.at, city.wall_ms);
            let changes = kept.book.look(&readings, timers, now, &self.thresholds, wanted);
            for announcement in &changes.announced {
                let Announcement { event, id, alarm } = announcement;
                let line = alarm_line(&view, kept, id, alarm, None);
                for receiver in self.receivers.iter().filter(|receiver| receiver.wants(&view, id)) {
                    kept.lines.push(receiver.name(), notification(*event, Some(line.clone())));
                }
            }
            changes
        });
        for id in changes.raised {
            let summary = readings.get(&id).map(|reading| match reading {
                Reading::Present(text) => text.summary.as_str(),
                Reading::Unknown => "",
            });
            let (code, garage) = (id.code, name_of(&view, &id));
            tracing::warn!(%code, garage, summary, hint = hint(code), "an alarm is raised");
        }
        for id in changes.resolved {
            tracing::info!(code = %id.code, garage = name_of(&view, &id), "an alarm is resolved");
        }
    }

    fn shown(&self) -> MutexGuard<'_, ShownAlarms> {
        self.shown.lock().expect("no thread panics while it holds the alarms")
    }

    /// Changes what is kept, on the disk before it is shown. It writes, so not on a thread of the runtime.
    fn change<R>(&self, change: impl FnOnce(&mut KeptAlarms) -> R) -> R {
        let _turn = self.writing.lock().expect("no thread panics while it changes alarms");
        let before = self.shown().kept.clone();
        let mut kept = before.clone();
        let done = change(&mut kept);
        let is_new = kept != before;
        if is_new || self.unwritten.load(Ordering::Relaxed) {
            let written = keeping::write(&self.dir, &kept);
            let was_unwritten = self.unwritten.swap(written.is_err(), Ordering::Relaxed);
            match written {
                Err(error) if !was_unwritten => tracing::error!(
                    code = %codes::ALARMS_NOT_WRITTEN,
                    %error,
                    hint = "make room on the disk; the server tries again every second",
                    "the alarms cannot be written; they are shown and announced, and after a restart those that are new come a second time"
                ),
                _ => {}
            }
        }
        if is_new {
            self.shown().kept = kept;
            self.changed.send_replace(());
        }
        done
    }

    /// All that is raised, as `GET /v1/alarms` answers.
    pub fn list(&self) -> Value {
        json!({ "alarms": self.lines(&self.live.snapshot()), "next": null })
    }

    fn lines(&self, view: &Snapshot) -> Vec<AlarmLine> {
        let shown = self.shown();
        let raised = shown.kept.book.raised.iter();
        raised.map(|(id, alarm)| alarm_line(view, &shown.kept, id, alarm, shown.texts.get(id))).collect()
    }

    /// Sets the gauges, and calls `render` before anybody else sets them.
    pub fn with_metrics<R>(&self, render: impl FnOnce() -> R) -> R {
        let raised = self.raised.lock().expect("no thread panics while it sets a gauge");
        raised.clear();
        for line in self.lines(&self.live.snapshot()) {
            let labels = vec![("code", line.code), ("garage", line.garage.unwrap_or_default())];
            raised.get_or_create(&labels).set(1);
        }
        for receiver in &self.receivers {
            let count = self.shown().kept.lines.count(receiver.name());
            let labels = vec![("receiver", receiver.name().to_owned())];
            self.undelivered.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        render()
    }

    /// Carries out a request of `by`.
    pub async fn answer(self: &Arc<Self>, request: AlarmsRequest, by: &str) -> Outcome {
        match request {
            AlarmsRequest::List => Ok(self.list()),
            AlarmsRequest::Silence { code, garage, until_ms } => {
                let (alarms, by) = (Arc::clone(self), by.to_owned());
                let silenced = spawn_blocking(move || alarms.silence(&code, garage, until_ms, by));
                silenced.await.unwrap_or_else(|error| Err(error.to_string().into()))
            }
            AlarmsRequest::Test => Ok(self.test().await),
        }
    }

    fn silence(&self, code: &str, garage: Option<SiteName>, until_ms: Option<i64>, by: String) -> Outcome {
        let view = self.live.snapshot();
        let code = silenceable(code)?;
        if let Some(garage) = &garage
            && !view.garages.contains_key(view.key_of(garage))
        {
            return Err(NotDone::Failed(
                codes::NO_SUCH_GARAGE,
                format!("no garage named {garage:?} is known. Nothing was changed"),
            ));
        }
        let now_ms = clock::wall_ms();
        let until_ms = until_ms.filter(|until| *until > now_ms);
        let key = garage.as_ref().map(|garage| view.key_of(garage).clone());
        self.change(|kept| kept.book.silence(code, key, until_ms.map(|until_ms| Silence { until_ms, by })));
        let whose = garage.map_or("everywhere".to_owned(), |garage| format!("in {:?}", garage.as_str()));
        Ok(match until_ms.map(Moment::utc_text) {
            Some(until) => {
                json!({ "until": until, "said": format!("Nobody is notified of {code} {whose} until {until}; the list and the metric still show it") })
            }
            None => {
                json!({ "until": null, "said": format!("Receivers are notified of {code} {whose} again") })
            }
        })
    }
}

fn silenceable(code: &str) -> Result<Code, NotDone> {
    let found = codes::named(code).filter(|code| codes::SERVER_ALARMS.contains(code));
    found.ok_or_else(|| {
        let all: Vec<&str> = codes::SERVER_ALARMS.iter().map(|code| code.as_str()).collect();
        NotDone::Refused(format!(
            "{code:?} is no alarm of a server; these are: {}. Nothing was changed",
            all.join(", ")
        ))
    })
}

fn name_of(view: &Snapshot, id: &AlarmId) -> Option<String> {
    id.garage.as_ref().map(|key| view.name_of(key).to_string())
}

/// `now`: what it is like now, if that is known.
fn alarm_line(
    view: &Snapshot,
    kept: &KeptAlarms,
    id: &AlarmId,
    alarm: &state::RaisedAlarm,
    now: Option<&AlarmText>,
) -> AlarmLine {
    let AlarmText { summary, facts } = now.unwrap_or(&alarm.text).clone();
    AlarmLine {
        code: id.code.to_string(),
        garage: name_of(view, id),
        since: Moment::utc_text(alarm.since_ms),
        summary,
        hint: hint(id.code).to_owned(),
        facts,
        silenced_until: kept.book.silenced_until(id, clock::wall_ms()).map(Moment::utc_text),
        notified_at: alarm.notified_at_ms.map(Moment::utc_text),
    }
}

fn notification(event: AlarmEvent, alarm: Option<AlarmLine>) -> Notification {
    let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
    Notification {
        id,
        event,
        alarm,
        omitted: None,
        raised: Vec::new(),
        at: Moment::utc_text(clock::wall_ms()),
    }
}

/// What to do; the code's page says more.
fn hint(code: Code) -> &'static str {
    match code {
        codes::BACKLOG_GROWS => {
            "look at the link and at the load of the server; nothing is lost, the edge keeps all events"
        }
        codes::CALENDAR_ENDS => {
            "add the holidays of the following years to the calendar, set complete_through, and start the server again"
        }
        codes::CERTIFICATE_EXPIRES => {
            "make another one (server certs init, server certs issue) and copy its files over the old ones; no restart is needed"
        }
        codes::CLOCKS_DIFFER => "check NTP on both machines",
        codes::CONFLICT => {
            "find the second edge, or the copy of its directory; if the events of both sides are to count: server garages adopt NAME"
        }
        codes::COUNT_DRIFTS => {
            "look for cameras that miss cars, or misread plates; count the cars and post a count event; server stays review lists stays to repair"
        }
        codes::DISK_NEARLY_FULL => "make room on the disk, or give it more",
        codes::EDGE_SILENT => {
            "look at the garage's computer, its power and its network; the edge keeps what it takes"
        }
        codes::EVENTS_MISSING => {
            "look at missing_ranges of the garage, and whether a backup of this server has the events"
        }
        codes::OCCUPANCY_IMPOSSIBLE => {
            "count the cars and post a count event, or correct the capacity: server garages capacity NAME SPACES"
        }
        codes::OUTBOX_FULL => {
            "find out why nothing is delivered, or make room on the disk of the edge; cars are not counted meanwhile"
        }
        _ => "look for the reason in the logs of the server and the edge; nothing is deleted",
    }
}
