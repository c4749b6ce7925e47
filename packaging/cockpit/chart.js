// A card's last hour as a picture (SVG) and as a table: the same for who sees and who listens. Pure.

import { h } from "./dom.js";
import { HOUR_SECONDS, extent, parts, runs } from "./history.js";
import { THERMAL, amount, isKnown, worded } from "./words.js";

const WIDTH = 640;
const LEFT = 44;
const RIGHT = 632;
const TEMPERATURE = { top: 20, bottom: 140 };
const POWER = { top: 172, bottom: 262 };
const HEIGHT = 286;
// Where a level's name stands: apart, however near the two levels are.
const ABOVE = -3;
const BELOW = 12;
const POINTS = 240; // one for 15 seconds: more than a screen tells apart
const TABLE_ROWS = 12; // of five minutes
const BANDED = new Set(["alert", "critical", "blind"]);

/** The figure: picture, what it shows in a sentence, a table to open. No rows: not asked yet. */
export function chart(card, rows, nowSeconds) {
    if (!rows?.length) {
        const why = rows ? "Nothing is known of its last hour yet." : "Its last hour is asked for …";
        return h("p", { class: "quiet" }, why);
    }
    return h(
        "figure",
        { class: "chart" },
        picture(card, rows, nowSeconds),
        h("figcaption", {}, summary(card, rows)),
        h(
            "details",
            {},
            h("summary", {}, `Card ${card.index}'s last hour as a table`),
            table(card, rows, nowSeconds),
        ),
    );
}

/** What the picture shows, in a sentence. */
export function summary(card, rows) {
    const heat = extent(rows, "celsius");
    const power = extent(rows, "watts");
    const said = [];
    if (heat) {
        said.push(`${amount(heat.least)} to ${amount(heat.most, "°C")}, now ${amount(heat.last, "°C")}`);
    }
    if (power) {
        said.push(`${amount(power.least)} to ${amount(power.most, "W")}, now ${amount(power.last, "W")}`);
    }
    const hot = rows.filter((row) => row.state === "alert" || row.state === "critical").length;
    const share = hot ? ` It ran hot in ${Math.ceil((100 * hot) / rows.length)} % of that time.` : "";
    return `Last hour: ${said.join("; ") || "no readings"}.${share}`;
}

function picture(card, rows, nowSeconds) {
    const points = parts(rows, nowSeconds, POINTS)
        .map((part, index) => part && { ...part, at: (index + 0.5) * (HOUR_SECONDS / POINTS) })
        .filter(Boolean);
    const heat = scale(TEMPERATURE, [30, 80], [
        ...points.map((point) => point.celsius),
        card.alert_celsius,
        card.critical_celsius,
    ]);
    const power = scale(POWER, [0, 100], [
        ...points.flatMap((point) => [point.watts, point.limit]),
        card.original_power_limit_watts,
    ]);
    return h(
        "svg",
        {
            viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
            role: "img",
            "aria-label": `Chart of card ${card.index}: ${summary(card, rows)}`,
        },
        bands(points),
        panel(heat, "Temperature, °C"),
        panel(power, "Power (solid) and its limit (dashed), W"),
        level(heat, card.alert_celsius, "alert", BELOW),
        level(heat, card.critical_celsius, "critical", ABOVE),
        lines(points, "celsius", heat),
        lines(points, "limit", power),
        lines(points, "watts", power),
        minutes(),
    );
}

/** A panel's scale: from a round number below all values to one above. */
export function scale(panel, [least, most], values) {
    const known = values.filter(isKnown);
    const low = Math.min(least, ...known);
    const high = Math.max(most, ...known);
    const step = niceStep((high - low) / 4);
    const from = Math.floor(low / step) * step;
    const to = Math.ceil(high / step) * step;
    const ticks = [];
    for (let tick = from; tick <= to; tick += step) {
        ticks.push(tick);
    }
    const height = panel.bottom - panel.top;
    const y = (value) => panel.bottom - ((value - from) / (to - from)) * height;
    return { ...panel, y: (value) => round(y(value)), ticks };
}

function niceStep(rough) {
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

function panel(scaled, title) {
    return h(
        "g",
        { "aria-hidden": "true" },
        h("text", { x: LEFT, y: scaled.top - 7, class: "title" }, title),
        scaled.ticks.map((tick) => [
            h("line", { x1: LEFT, x2: RIGHT, y1: scaled.y(tick), y2: scaled.y(tick), class: "grid" }),
            h("text", { x: LEFT - 6, y: scaled.y(tick) + 4, class: "tick value" }, amount(tick)),
        ]),
    );
}

function level(scaled, celsius, name, offset) {
    if (!isKnown(celsius)) {
        return null;
    }
    const y = scaled.y(celsius);
    return h(
        "g",
        { "aria-hidden": "true" },
        h("line", { x1: LEFT, x2: RIGHT, y1: y, y2: y, class: `level ${name}` }),
        h("text", { x: LEFT + 4, y: y + offset, class: `tick ${name}` }, `${name} ${amount(celsius)}`),
    );
}

function lines(points, name, scaled) {
    // Twice a part's width: parts are thinner than what they are made of.
    return runs(points, name, (2.5 * HOUR_SECONDS) / POINTS).map((run) => {
        const path = run.map((point) => `${x(point.at)},${scaled.y(point[name])}`);
        // A single point is no line: as wide as its part.
        const end = run.length === 1 ? [`${x(run[0].at) + 2},${scaled.y(run[0][name])}`] : [];
        return h("polyline", { points: [...path, ...end].join(" "), class: `line ${name}` });
    });
}

function bands(points) {
    const half = HOUR_SECONDS / POINTS / 2;
    return stretches(points).map(({ state, from, to }) =>
        h("rect", {
            x: x(from - half),
            y: TEMPERATURE.top,
            width: round(x(to + half) - x(from - half)),
            height: POWER.bottom - TEMPERATURE.top,
            class: `band ${state}`,
        }),
    );
}

/** The unbroken times in which the card was in a state that is shaded. */
export function stretches(points) {
    const found = [];
    let last = null;
    for (const { at, state } of points) {
        if (last?.state === state) {
            last.to = at;
        } else {
            last = { state, from: at, to: at };
            found.push(last);
        }
    }
    return found.filter((stretch) => BANDED.has(stretch.state));
}

function minutes() {
    const marks = [60, 45, 30, 15, 0];
    return h(
        "g",
        { "aria-hidden": "true" },
        marks.map((ago) =>
            h(
                "text",
                {
                    x: x(HOUR_SECONDS - ago * 60),
                    y: HEIGHT - 6,
                    class: ago ? "tick minute" : "tick minute last",
                },
                ago ? `${ago} min ago` : "now",
            ),
        ),
    );
}

function x(secondsIn) {
    return round(LEFT + (secondsIn / HOUR_SECONDS) * (RIGHT - LEFT));
}

function round(value) {
    return Math.round(value * 10) / 10;
}

function table(card, rows, nowSeconds) {
    const head = ["Minutes ago", "Hottest, °C", "Power, W", "Lowest limit, W", "State"];
    const body = parts(rows, nowSeconds, TABLE_ROWS).filter(Boolean).reverse();
    return h(
        "table",
        {},
        h("caption", {}, `Card ${card.index}, each five minutes of the last hour, the latest first`),
        h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
        h(
            "tbody",
            {},
            body.map((part) =>
                h(
                    "tr",
                    {},
                    h("th", { scope: "row" }, `${amount(part.minutesAgo)} to ${amount(part.minutesAgo - 5)}`),
                    h("td", { class: "number" }, amount(part.celsius)),
                    h("td", { class: "number" }, amount(part.watts)),
                    h("td", { class: "number" }, amount(part.limit)),
                    h("td", {}, worded(THERMAL, part.state)[1]),
                ),
            ),
        ),
    );
}
