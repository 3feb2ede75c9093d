//! Chromium without a window, driven through ChromeDriver as WebDriver says (<https://www.w3.org/TR/webdriver2/>): few of its
//! commands are needed, and an HTTP client is here already.

use super::process::lines_of;
use super::{requires, wait_until};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use ureq::Agent;

const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Longer than a browser takes for anything on a machine that does a lot besides.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
const SHOWS_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorScheme {
    Light,
    Dark,
}

/// A browser with one window, which is closed when this is dropped.
pub struct Browser {
    driver: Child,
    session: String,
    agent: Agent,
}

impl Browser {
    /// A browser whose user reads this language. `None`: there is none here.
    pub fn start(language: &str) -> Option<Browser> {
        if !requires::chromium() {
            return None;
        }
        super::turns::together();
        let mut driver = Command::new("chromedriver");
        let mut driver = driver.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped());
        driver = driver.stderr(Stdio::null());
        let mut driver = driver.spawn().unwrap();
        let said = lines_of(driver.stdout.take().unwrap());
        let port = loop {
            let line = said.recv_timeout(STARTS_WITHIN).expect("chromedriver says its port");
            if let Some((_, port)) = line.rsplit_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWERS_WITHIN))
            .proxy(None)
            .build();
        let mut browser =
            Browser { driver, session: format!("http://127.0.0.1:{port}/session"), agent: config.into() };
        let args = [
            "--headless=new",
            // Tests run as root, where Chromium has no sandbox.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-proxy-server",
        ];
        let options = json!({ "args": args, "prefs": { "intl.accept_languages": language } });
        let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let begun = browser.command("", json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = format!("{}/{}", browser.session, begun["sessionId"].as_str().unwrap());
        Some(browser)
    }

    fn command(&self, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.session);
        let answer = self.agent.post(&url).content_type("application/json").send(body.to_string());
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}")).into_body().read_to_string();
        let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
        assert!(answer["value"]["error"].is_null(), "{path} {body}: {answer}");
        answer["value"].clone()
    }

    fn devtools(&self, command: &str, params: Value) -> Value {
        self.command("/goog/cdp/execute", json!({ "cmd": command, "params": params }))
    }

    pub fn open(&self, url: &str) {
        self.command("/url", json!({ "url": url }));
    }

    /// What a script returns, which may be a promise.
    pub fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// The text that a person sees of the elements that a selector finds.
    pub fn text(&self, selector: &str) -> String {
        let script = format!(
            "return [...document.querySelectorAll({})].filter(its => its.checkVisibility()).map(its => its.innerText ?? its.textContent).join('\\n')",
            json!(selector)
        );
        self.run(&script).as_str().unwrap().to_owned()
    }

    /// Waits until a person sees this text there.
    pub fn sees(&self, selector: &str, text: &str) {
        self.sees_within(SHOWS_WITHIN, selector, text);
    }

    pub fn sees_within(&self, within: Duration, selector: &str, text: &str) {
        let mut seen = String::new();
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("it is shown", within, &[], || {
                seen = self.text(selector);
                seen.contains(text)
            })
        }));
        assert!(shown.is_ok(), "within {within:?} {selector} did not show {text:?}, but: {seen:?}");
    }

    /// Sets what the page is shown on.
    pub fn screen(&self, (width, height): (u32, u32), scheme: ColorScheme) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size);
        let value = if scheme == ColorScheme::Dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": value });
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// Checks that nothing is cut off to the right.
    pub fn assert_fits(&self) {
        let widths = self.run("return [document.documentElement.scrollWidth, innerWidth]");
        assert!(widths[0].as_u64() <= widths[1].as_u64(), "{}: {widths}", self.run("return location.href"));
    }

    /// What the console said since it was last asked: errors, and warnings.
    pub fn console(&self) -> Vec<String> {
        let said = self.command("/se/log", json!({ "type": "browser" }));
        let said = said.as_array().unwrap().iter();
        said.filter(|entry| entry["level"] != "INFO").map(|entry| entry["message"].to_string()).collect()
    }

    /// Runs axe-core (<https://github.com/dequelabs/axe-core>): no serious or critical fault.
    pub fn assert_accessible(&self) {
        let axe = std::fs::read_to_string(requires::axe()).unwrap();
        // In the way of the driver, the page's policy does not hold.
        self.run(&axe);
        let found = self.run(
            "return axe.run().then(found => found.violations.filter(its => ['serious', 'critical'].includes(its.impact)).map(its => [its.id, its.help, its.nodes.slice(0, 5).map(node => node.html + ' ' + node.failureSummary)]))",
        );
        assert_eq!(found, json!([]), "{}", self.run("return location.href"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
