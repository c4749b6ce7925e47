// The journal's events: out of journalctl's lines, and as a table. Pure.

import { h } from "./dom.js";
import { badge, section, table } from "./parts.js";
import { clock } from "./words.js";

export const SHOWN = 40;
// What our processes write carries this name; what is an event has a field of its own beside it.
export const COMMAND = [
    ...["journalctl", "--follow", "--output=json", "--lines=400", "--no-pager"],
    "SYSLOG_IDENTIFIER=gpuwarden",
];

const NONE = "The journal has no events of the service.";
const NONE_FOR_YOU =
    "The journal shows you none: it takes administrative access, or membership in the group " +
    "systemd-journal.";

/** An event out of one line of journalctl's JSON; null where it is none. */
export function eventOf(line) {
    let entry;
    try {
        entry = JSON.parse(line);
    } catch {
        return null;
    }
    const name = entry?.GPUWARDEN_EVENT;
    if (typeof name !== "string") {
        return null;
    }
    return {
        key: String(entry.__CURSOR),
        at: Number(entry.__REALTIME_TIMESTAMP) / 1e6,
        name,
        message: text(entry.MESSAGE),
        priority: Number(entry.PRIORITY ?? 6),
    };
}

// journalctl writes what isn't plain text as an array of bytes, and what is too long as null.
function text(message) {
    if (Array.isArray(message)) {
        return new TextDecoder().decode(Uint8Array.from(message));
    }
    return typeof message === "string" ? message : "(too long to be shown)";
}

/** The last events, the latest first. */
export function kept(events, came) {
    const known = new Set(events.map((event) => event.key));
    const added = came.filter((event) => !known.has(event.key));
    return [...added.reverse(), ...events].slice(0, SHOWN);
}

/** Splits what a stream has brought into whole lines and the beginning of the next. */
export function linesOf(begun, data) {
    const lines = (begun + data).split("\n");
    return { begun: lines.pop(), lines };
}

/** The table of events. */
export function events({ events: shown, eventsProblem, isAdministrator, now }) {
    return section(
        "events",
        "Events",
        eventsProblem && h("p", {}, badge("warn", "The journal can't be read"), ` ${eventsProblem}`),
        !eventsProblem && !shown.length && h("p", {}, isAdministrator ? NONE : NONE_FOR_YOU),
        shown.length > 0 &&
            table(
                "What the journal has of the service, the latest first",
                ["Time", "Weight", "What happened", "Event"],
                shown.map((event) => row(event, now)),
            ),
    );
}

function row(event, now) {
    const [kind, word] = weight(event.priority);
    return h(
        "tr",
        { key: event.key },
        h("th", { scope: "row" }, clock(event.at, now)),
        h("td", {}, badge(kind, word)),
        h("td", {}, event.message),
        h("td", {}, h("code", {}, event.name)),
    );
}

// syslog's priorities.
function weight(priority) {
    if (priority <= 3) {
        return ["bad", "Error"];
    }
    return priority === 4 ? ["warn", "Warning"] : ["off", "Note"];
}
