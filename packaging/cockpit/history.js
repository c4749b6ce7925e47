// A card's last hour: rows as GetHistory answers them, kept, thinned, summed up. Pure.
//
// A row is {at (unix seconds), celsius, watts, limit (watts), state}; null is unknown.

import { isKnown } from "./words.js";

export const HOUR_SECONDS = 3600;
// Rows come once a second: a gap longer than this is a time of which nothing is known.
const GAP_SECONDS = 30;

/** Rows out of what GetHistory answers: (microseconds, C, W, limit W, state), 0 and NaN unknown. */
export function rowsOf(answered) {
    return answered.map(([microseconds, celsius, watts, limit, state]) => ({
        at: microseconds / 1e6,
        celsius: isKnown(celsius) ? celsius : null,
        watts: isKnown(watts) ? watts : null,
        limit: limit > 0 ? limit : null,
        state,
    }));
}

/** What was kept with what came, in order, each second once, no older than an hour. */
export function merged(kept, came, nowSeconds) {
    const last = kept.length ? kept[kept.length - 1].at : -Infinity;
    const rows = [...kept, ...came.filter((row) => row.at > last)];
    return rows.filter((row) => row.at >= nowSeconds - HOUR_SECONDS);
}

/** How many seconds of history are still to be asked for. */
export function missingSeconds(kept, nowSeconds) {
    if (!kept.length) {
        return HOUR_SECONDS;
    }
    const age = Math.ceil(nowSeconds - kept[kept.length - 1].at) + 2;
    return Math.min(HOUR_SECONDS, Math.max(1, age));
}

/**
 * The hour in equal parts, oldest first; null where nothing is known of one.
 *
 * Of each the hottest reading, the mean power, the least limit and the worst state: nothing that
 * matters disappears by being thinned.
 */
export function parts(rows, nowSeconds, count) {
    const width = HOUR_SECONDS / count;
    const buckets = Array.from({ length: count }, () => []);
    for (const row of rows) {
        const index = Math.floor((row.at - (nowSeconds - HOUR_SECONDS)) / width);
        if (index >= 0) {
            buckets[Math.min(index, count - 1)].push(row);
        }
    }
    return buckets.map((bucket, index) => (bucket.length ? summed(bucket, index, width) : null));
}

function summed(bucket, index, width) {
    const known = (name) => bucket.map((row) => row[name]).filter((value) => value !== null);
    const watts = known("watts");
    return {
        minutesAgo: (HOUR_SECONDS - index * width) / 60,
        celsius: largest(known("celsius")),
        watts: watts.length ? watts.reduce((sum, each) => sum + each, 0) / watts.length : null,
        limit: smallest(known("limit")),
        state: worst(bucket.map((row) => row.state)),
    };
}

const BY_WEIGHT = ["critical", "blind", "lost", "alert", "released", "recovering", "normal"];

function worst(states) {
    return BY_WEIGHT.find((state) => states.includes(state)) ?? states[states.length - 1];
}

/** Least, most and latest of a value over rows; null where nothing is known. */
export function extent(rows, name) {
    const values = rows.map((row) => row[name]).filter((value) => value !== null);
    if (!values.length) {
        return null;
    }
    return { least: smallest(values), most: largest(values), last: values[values.length - 1] };
}

/** Rows in unbroken runs: a gap, or an unknown value, ends one. */
export function runs(points, name, gapSeconds = GAP_SECONDS) {
    const found = [];
    let run = [];
    let before = null;
    for (const point of points) {
        const isApart = before !== null && point.at - before > gapSeconds;
        if ((point[name] === null || isApart) && run.length) {
            found.push(run);
            run = [];
        }
        if (point[name] !== null) {
            run.push(point);
        }
        before = point.at;
    }
    return run.length ? [...found, run] : found;
}

function largest(values) {
    return values.length ? values.reduce((most, each) => Math.max(most, each)) : null;
}

function smallest(values) {
    return values.length ? values.reduce((least, each) => Math.min(least, each)) : null;
}
