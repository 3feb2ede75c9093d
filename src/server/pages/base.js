const by = id => document.getElementById(id);
const number = value => value === null || value === undefined ? "--" : value.toLocaleString("en");
function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}
// A name that others gave: its direction is its own.
function named(name, text, href) {
  const made = element(href ? "a" : name, "", text);
  made.dir = "auto";
  if (href) made.href = href;
  return made;
}
const garageLink = garage => named("span", garage, "/garages/" + encodeURIComponent(garage));
class Refused extends Error { constructor(status, problem) { super(problem?.detail ?? `the server answered ${status}`); this.status = status; } }
// A server that takes a request and never answers must not stop what a page shows.
const ANSWERS_WITHIN_MS = 20_000;
async function ask(path, within = ANSWERS_WITHIN_MS) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(within) });
  if (answer.status === 401) location.replace("/sign-in");
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
  return answer.json();
}
// A whole list, or its first `most` entries.
async function list(path, name, most = Infinity) {
  const found = [];
  let next = null;
  do {
    const page = await ask(path + (path.includes("?") ? "&" : "?") + "limit=" + Math.min(most, 1000) + (next ? "&after=" + encodeURIComponent(next) : ""));
    found.push(...page[name]);
    next = page.next;
  } while (next && found.length < most);
  found.more = Boolean(next);
  return found;
}
// Amounts come in minor units, and each currency says how many decimals it is written with.
function money(amount, currency) {
  const decimals = new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
  return (amount / 10 ** decimals).toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }) + " " + currency;
}
const sums = amounts => amounts.map(({ amount, currency }) => money(amount, currency)).join(" + ") || "0";
function added(lists) {
  const sums = new Map();
  for (const { amount, currency } of lists.flat()) sums.set(currency, (sums.get(currency) ?? 0) + amount);
  return [...sums].map(([currency, amount]) => ({ amount, currency }));
}
function span(seconds) {
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " days";
}
const ago = at => at ? span(Math.max(0, (Date.now() - new Date(at)) / 1000)) + " ago" : "never";
const time = at => at ? at.replace("T", " ").replace(/(:\d\d)\.\d+/, "$1").replace(/Z$/, " UTC") : "--";
function tile(label, value, isBad) {
  return element("li", isBad ? "bad" : "", element("b", "", value), element("span", "", label));
}
// A command to copy. Pages change nothing: an operator runs it where the server is.
function command(text) {
  const code = element("code", "", text), button = element("button", "", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => button.textContent = "Copy", 2000);
    } catch { getSelection().selectAllChildren(code); }
  });
  return element("div", "command", code, button);
}
function alarmItem(alarm) {
  const silenced = Boolean(alarm.silenced_until);
  const item = element("li", silenced ? "silenced" : "", element("b", "", alarm.summary), element("span", "soft", ` · raised at ${time(alarm.since)}, ${ago(alarm.since)}${silenced ? `, silenced until ${time(alarm.silenced_until)}` : ""}`));
  item.prepend(...alarm.garage ? [garageLink(alarm.garage), ": "] : []);
  if (alarm.hint) item.append(element("div", "small", alarm.hint));
  item.append(element("div", "small soft", `code ${alarm.code}`));
  return item;
}
// What is wrong with a garage besides its alarms, or how it is.
function standing(garage) {
  if (garage.decommissioned) return "decommissioned";
  const reason = garage.state_reason ? ` (${garage.state_reason})` : "";
  return ({ open: "open", full: "full", closed: "closed" + reason })[garage.state] ?? (garage.occupied === null ? "no figures yet" : "--");
}
function curve(path, label) {
  const svg = by("a-curve").content.firstElementChild.cloneNode(true);
  svg.ariaLabel = label;
  svg.firstElementChild.attributes.d.value = path;
  return svg;
}
function bar(garage) {
  const track = element("div", "track"), fill = element("div", garage.state === "full" || garage.free === 0 ? "full" : "");
  fill.style.width = (garage.capacity && garage.occupied !== null ? Math.max(0, Math.min(100, 100 * garage.occupied / garage.capacity)) : 0) + "%";
  track.append(fill);
  track.ariaHidden = "true";
  return track;
}
function why(error) {
  if (error instanceof Refused) return error.message;
  // What `fetch` throws, or what ends it.
  if (error instanceof TypeError && error.message.includes("fetch") || error instanceof DOMException) return "The server does not answer.";
  return `This page has a fault; report it: ${error}.`;
}
// Runs `refresh` now and again and again; what it shows stays when the server does not answer, and how old it is.
const failures = new Map();
function keep(refresh, seconds) {
  let shown = null;
  const run = async () => {
    try {
      await refresh();
      shown = new Date();
      failures.delete(run);
    } catch (error) {
      failures.set(run, `${why(error)} ${shown ? `The page shows its last answer, of ${shown.toLocaleTimeString("en-GB")}.` : ""}`);
    }
    by("gone").textContent = [...failures.values()][0] ?? "";
    by("gone").hidden = failures.size === 0;
    setTimeout(run, seconds * 1000);
  };
  run();
}
for (const link of document.querySelectorAll("nav a")) if (link.pathname === location.pathname) link.ariaCurrent = "page";
