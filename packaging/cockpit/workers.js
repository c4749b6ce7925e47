// The workers, and what can be ordered of them. Pure.

import { h } from "./dom.js";
import { badge, button, section, table } from "./parts.js";
import { HELD, WORKER, amount, since, worded } from "./words.js";

// What each order is called and means; `method` is the bus's.
export const ORDERS = {
    drain: {
        label: "Drain",
        method: "DrainWorker",
        meaning:
            "It gets no new work and finishes what it has. Its model stays loaded; " +
            "Start gives it work again.",
    },
    restart: {
        label: "Restart",
        method: "RestartWorker",
        meaning:
            "It finishes what it has, ends, and is started again. " +
            "Until its model is loaded it answers nothing.",
    },
    stop: {
        label: "Stop",
        method: "StopWorker",
        meaning: "It finishes what it has and ends. It stays down until somebody starts it.",
    },
    start: {
        label: "Start",
        method: "StartWorker",
        meaning: "It is started, or is given work again.",
    },
};

const SERVING = new Set(["ready", "busy"]);
const DOWN = new Set(["stopped", "failed"]);
const HEAD = ["Worker", "State", "Card", "Answered", "Failed", "Restarts", "What can be done"];

/** The table of workers. */
export function workers(state) {
    const { status, now } = state;
    const count = `${status.workers_ready} of ${status.workers_total} can answer`;
    return section(
        "workers",
        "Workers",
        status.workers.length === 0
            ? h("p", {}, "No worker is planned.")
            : table(`Workers: ${count}`, HEAD, status.workers.map((each) => row(each, state, now))),
    );
}

function row(worker, state, now) {
    return h(
        "tr",
        { key: `worker-${worker.number}` },
        h("th", { scope: "row" }, worker.number),
        h("td", {}, condition(worker, now)),
        h("td", {}, worker.gpu),
        h("td", { class: "number" }, amount(worker.requests)),
        h("td", { class: "number" }, amount(worker.failures)),
        h("td", { class: "number" }, amount(worker.restarts)),
        h("td", { class: "orders" }, orders(worker, state)),
    );
}

function condition(worker, now) {
    const [kind, word] = worded(WORKER, worker.state);
    const more = [
        worker.operation && `Being done: ${worker.operation}`,
        HELD[worker.held] && `It ${HELD[worker.held]}`,
        worker.outdated && "Runs by former settings until it is restarted",
        worker.last_error && `Last error: ${worker.last_error}`,
        worker.state === "ready" || worker.state === "busy" ? null : worker.reason,
    ].filter(Boolean);
    return [
        badge(kind, word),
        ` for ${since(worker.since, now)}`,
        more.map((text) => h("p", { class: "quiet" }, text)),
    ];
}

function orders(worker, state) {
    const isPending = state.pending[worker.number] !== undefined;
    const isBlocked = isPending || state.link !== "live";
    return possible(worker).map((verb) =>
        button(
            ORDERS[verb].label,
            isBlocked ? null : { type: "ask", worker: worker.number, verb },
            {
                key: `${verb}-${worker.number}`,
                // Still in the order of focus: whoever pressed it isn't thrown to the page's start.
                "aria-disabled": isBlocked ? "true" : null,
                "aria-label": `${ORDERS[verb].label} worker ${worker.number}`,
            },
        ),
    );
}

/** Which orders make sense for a worker now. */
export function possible(worker) {
    if (DOWN.has(worker.state)) {
        return ["start"];
    }
    return worker.state === "draining" ? ["start", "restart", "stop"] : ["drain", "restart", "stop"];
}

/** What an order would cost, where that isn't plain: nobody would be left to answer. */
export function warning({ worker, verb }, status) {
    const others = status.workers.filter(
        (each) => each.number !== worker && SERVING.has(each.state),
    );
    const target = status.workers.find((each) => each.number === worker);
    if (verb === "start" || others.length > 0 || !target || !SERVING.has(target.state)) {
        return "";
    }
    return "No other worker can answer now: new requests are refused until one can.";
}

/** The question before an order; a modal dialog, so that focus stays in it. */
export function question({ question: asked, status }) {
    if (!asked) {
        return null;
    }
    const order = ORDERS[asked.verb];
    const title = `${order.label} worker ${asked.worker}`;
    const cost = warning(asked, status);
    return h(
        "dialog",
        { key: "question", "aria-labelledby": "question-title", "aria-describedby": "question-text", on: { cancel: { type: "cancel" } } },
        h("h2", { id: "question-title" }, `${title}?`),
        h("div", { id: "question-text" }, h("p", {}, order.meaning), cost && h("p", {}, badge("warn", cost))),
        h(
            "div",
            { class: "choices" },
            button("Cancel", { type: "cancel" }),
            button(title, { type: "confirm" }, { class: "primary" }),
        ),
    );
}
