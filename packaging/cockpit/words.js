// What states and figures are called on the page. Pure.

export const UNKNOWN = "unknown";
const GIBIBYTE = 2 ** 30;

// kind: how it is shown (good, busy, warn, bad, off); each has its own sign, for colour isn't all.
export const SIGNS = { good: "✓", busy: "↻", warn: "▲", bad: "✕", off: "–" };

export const SERVICE = {
    starting: ["busy", "Starting", "Not every worker has been ready yet."],
    running: ["good", "Running", "Everything works."],
    degraded: ["warn", "Degraded", "It serves as well as it can. This is wrong:"],
    stopping: ["off", "Stopping", "It is going down by somebody's order."],
};

// Why nothing new is known.
export const TROUBLE = {
    away: "The service isn't running",
    denied: "You may not see this",
    failed: "The service doesn't answer as it should",
};
export const BACK = "The service answers again";

export const THERMAL = {
    normal: ["good", "Cool enough", "Nothing is held back by heat."],
    alert: [
        "warn",
        "Running hot",
        "It is slowed down so that it gets no hotter; answers take longer. " +
            "Have its fan, its neighbours and the room's cooling looked after.",
    ],
    critical: [
        "bad",
        "Too hot",
        "It gets the least power and no new work until it has cooled down. " +
            "Look after its fan, its neighbours and the room now.",
    ],
    recovering: ["busy", "Cooling down", "It gets its power back step by step."],
    blind: [
        "bad",
        "Temperature can't be read",
        "It is cooled to be safe. Sensor or driver doesn't answer.",
    ],
    released: [
        "off",
        "Released for maintenance",
        "Nothing watches or cools it, and none of its workers is started, until that ends.",
    ],
    lost: [
        "bad",
        "Not there",
        "The driver doesn't find this card any more. It takes a reset, a reboot, " +
            "or somebody at the machine.",
    ],
};

export const WORKER = {
    stopped: ["off", "Stopped"],
    starting: ["busy", "Starting"],
    loading: ["busy", "Loading its model"],
    ready: ["good", "Ready"],
    busy: ["good", "Working"],
    draining: ["off", "Drained: gets no new work"],
    stuck: ["bad", "Stuck: has not answered in time"],
    ghost: ["bad", "Lost its card, though it runs"],
    failed: ["bad", "Failed"],
};

export const JOB = {
    queued: ["off", "Waits"],
    running: ["busy", "Running"],
    succeeded: ["good", "Done"],
    failed: ["bad", "Failed"],
    cancelled: ["off", "Cancelled"],
};

export const HELD = {
    "": "",
    heat: "waits until its card has cooled down",
    released: "waits until its card is back from maintenance",
    reset: "waits: its card needs a reset first",
    reboot: "waits: this machine needs a reboot first",
};

export const VERDICT = {
    wrong: ["bad", "Wrong"],
    doubtful: ["warn", "Doubtful"],
    unknown: ["off", "Can't be seen"],
};

// What the class of a process that is no worker's comes to, where anything is to be done.
export const NOT_OURS_TO_END = new Set(["container", "desktop", "mps", "monitoring"]);

/** The words of a state, also of one that this page doesn't know yet. */
export function worded(table, state) {
    return table[state] ?? ["off", String(state), ""];
}

/** A number with its unit, in so many digits behind the point. */
export function amount(value, unit = "", digits = 0) {
    if (!isKnown(value)) {
        return UNKNOWN;
    }
    const number = value.toLocaleString("en-US", {
        minimumFractionDigits: digits,
        maximumFractionDigits: digits,
    });
    return unit ? `${number} ${unit}` : number;
}

/** `part` of `whole`, in `unit`; unknown ones are left out as far as that makes sense. */
export function partOf(part, whole, unit, digits = 0) {
    if (!isKnown(whole)) {
        return amount(part, unit, digits);
    }
    return `${amount(part, "", digits)} of ${amount(whole, unit, digits)}`;
}

/** Bytes of memory, used of all. */
export function memory(usedBytes, totalBytes) {
    const inGibibytes = (bytes) => (isKnown(bytes) ? bytes / GIBIBYTE : null);
    return partOf(inGibibytes(usedBytes), inGibibytes(totalBytes), "GiB", 1);
}

/** A share from 0 to 1. */
export function share(value) {
    return isKnown(value) ? `${Math.round(value * 100)} %` : UNKNOWN;
}

/** How long, in the largest unit that says enough. */
export function duration(seconds) {
    if (!isKnown(seconds)) {
        return UNKNOWN;
    }
    const whole = Math.max(0, Math.round(seconds));
    for (const [size, one, more] of [
        [86400, "day", "days"],
        [3600, "hour", "hours"],
        [60, "minute", "minutes"],
    ]) {
        if (whole >= size * 2 || (whole >= size && size < 3600)) {
            const count = Math.floor(whole / size);
            return `${count} ${count === 1 ? one : more}`;
        }
    }
    return whole === 1 ? "1 second" : `${whole} seconds`;
}

/** For how long something has been so, `since` in microseconds since 1970. */
export function since(microseconds, nowSeconds) {
    return microseconds ? duration(nowSeconds - microseconds / 1e6) : UNKNOWN;
}

/** A time of day where the reader is, with the date where it isn't today's. */
export function clock(unixSeconds, nowSeconds) {
    const when = new Date(unixSeconds * 1000);
    const time = when.toLocaleTimeString("en-GB");
    const isToday = when.toDateString() === new Date(nowSeconds * 1000).toDateString();
    return isToday ? time : `${when.toLocaleDateString("en-CA")} ${time}`;
}

export function isKnown(value) {
    return typeof value === "number" && Number.isFinite(value);
}
