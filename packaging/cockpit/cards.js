// The cards: state in words, figures, the last hour. Pure.

import { h } from "./dom.js";
import { chart } from "./chart.js";
import { badge, facts, section } from "./parts.js";
import { THERMAL, UNKNOWN, amount, isKnown, memory, partOf, share, since, worded } from "./words.js";

/** All cards. */
export function cards({ status, history, historyProblems, now }) {
    return section(
        "cards",
        "Cards",
        status.gpus.length === 0 &&
            h("p", {}, "No card is known. ", h("code", {}, "gpuwarden doctor"), " looks into it."),
        h(
            "div",
            { class: "cards" },
            status.gpus.map((card) =>
                oneCard(card, history[card.index], historyProblems[card.index], now),
            ),
        ),
    );
}

function oneCard(card, rows, problem, now) {
    const [kind, word, meaning] = worded(THERMAL, card.state);
    const title = `card-${card.index}-title`;
    return h(
        "article",
        { key: `card-${card.index}`, class: `card ${kind}`, "aria-labelledby": title },
        h("h3", { id: title }, `Card ${card.index}: ${card.name || "name unknown"}`),
        h("p", { class: "state" }, badge(kind, word), ` for ${since(card.since, now)}. ${meaning}`),
        card.reason && h("p", { class: "quiet" }, `The guard's own words: ${card.reason}`),
        card.stop_requested &&
            h("p", {}, badge("bad", "Its workers are stopped until it is cool")),
        recovery(card),
        figures(card),
        problem
            ? h("p", { class: "quiet" }, `Its last hour can't be had: ${problem}.`)
            : chart(card, rows, now),
    );
}

function recovery({ recovery_action: action }) {
    if (["none", "unknown", ""].includes(action)) {
        return null;
    }
    const what = action.includes("reboot") ? "a reboot of this machine" : "a reset";
    return h("p", {}, badge("bad", `It asks for ${what}`), ` (the driver says: ${action})`);
}

function figures(card) {
    const own = card.original_power_limit_watts;
    const isLowered = isKnown(own) && isKnown(card.power_limit_watts) && card.power_limit_watts < own;
    return facts([
        ["Temperature", heat(card)],
        [
            "Memory's temperature",
            isKnown(card.memory_temperature_celsius) && amount(card.memory_temperature_celsius, "°C"),
        ],
        [
            "Power",
            partOf(card.power_watts, card.power_limit_watts, "W") +
                (isLowered ? `; lowered, its own limit is ${amount(own, "W")}` : ""),
        ],
        ["Memory in use", memory(card.vram_used_bytes, card.vram_total_bytes)],
        ["Busy", share(card.utilization)],
        ["Held back", heldBack(card)],
        [
            "Hot since the boot",
            `${times(card.throttles)}, recovered ${times(card.recoveries)}`,
        ],
    ]);
}

function heat(card) {
    const limits = [
        isKnown(card.alert_celsius) && `hot above ${amount(card.alert_celsius)}`,
        isKnown(card.critical_celsius) && `too hot above ${amount(card.critical_celsius)}`,
    ].filter(Boolean);
    const reading = amount(card.temperature_celsius, "°C");
    return limits.length ? `${reading} (${limits.join(", ")})` : reading;
}

function heldBack(card) {
    const held = [
        card.admission === "paused" && "gets no new work",
        isKnown(card.batch_limit) && `at most ${card.batch_limit} requests together`,
        card.dispatch_duty < 1 && `works ${share(card.dispatch_duty)} of the time`,
        isKnown(card.sm_clock_lock_mhz) && `clock at most ${amount(card.sm_clock_lock_mhz, "MHz")}`,
    ].filter(Boolean);
    return held.join(", ") || "nothing";
}

function times(count) {
    if (!isKnown(count)) {
        return UNKNOWN;
    }
    return count === 1 ? "once" : `${count} times`;
}
