// What the page knows, and how it changes by what it hears. Pure.

import { kept } from "./events.js";
import { merged, rowsOf } from "./history.js";
import { ORDERS } from "./workers.js";
import { BACK, THERMAL, TROUBLE, WORKER, worded } from "./words.js";

/** Nothing is known yet; `now` in unix seconds. */
export function beginning(now) {
    return {
        now,
        link: "asking", // live, away (no such name on the bus), denied, failed
        problem: "",
        isAdministrator: false,
        user: "",
        status: null,
        statusAt: 0,
        history: {},
        historyProblems: {},
        events: [],
        eventsProblem: "",
        jobs: { unfinished: [], failed: [], problem: "" },
        doctor: { phase: "busy", report: null, problem: "" },
        pending: {},
        question: null,
        notice: null,
        said: "",
    };
}

const DENIED = "org.freedesktop.DBus.Error.AccessDenied";
const AWAY = new Set([
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.NoReply", // it ended in the midst of an answer
    "org.freedesktop.DBus.Error.Disconnected",
]);
// How the bridge itself says it, where the bus was not asked.
const PROBLEMS = { "access-denied": "denied", "not-authorized": "denied", "not-found": "away" };

const CHANGES = {
    tick: (state, { now }) => ({ now }),
    login: (state, { user, isAdministrator }) => ({ user, isAdministrator }),
    status: (state, { data }) => ({
        status: data,
        statusAt: state.now,
        link: "live",
        problem: "",
        said: changes(state.status, data) || (state.link in TROUBLE ? BACK : state.said),
    }),
    away: () => ({ link: "away", said: TROUBLE.away }),
    trouble: (state, { error }) => {
        const link = linkBy(error);
        return { link, problem: sentence(error), said: TROUBLE[link] };
    },
    history: (state, { card, answered }) => ({
        history: {
            ...state.history,
            [card]: merged(state.history[card] ?? [], rowsOf(answered), state.now),
        },
        historyProblems: { ...state.historyProblems, [card]: "" },
    }),
    "history-trouble": (state, { card, error }) => ({
        historyProblems: { ...state.historyProblems, [card]: sentence(error) },
    }),
    events: (state, { came }) => ({ events: kept(state.events, came), eventsProblem: "" }),
    "events-trouble": (state, { problem }) => ({ eventsProblem: problem }),
    jobs: (state, { unfinished, failed }) => ({ jobs: { unfinished, failed, problem: "" } }),
    "jobs-trouble": (state, { problem }) => ({ jobs: { ...state.jobs, problem } }),
    look: (state) => ({ doctor: { ...state.doctor, phase: "busy", problem: "" } }),
    doctor: (state, { report }) => ({ doctor: { phase: "done", report, problem: "" } }),
    "doctor-trouble": (state, { problem }) => ({
        doctor: { ...state.doctor, phase: "failed", problem },
    }),
    ask: (state, { worker, verb }) => ({ question: { worker, verb }, notice: null }),
    cancel: () => ({ question: null }),
    confirm: ({ question, pending }) => ({
        question: null,
        pending: question ? { ...pending, [question.worker]: question.verb } : pending,
    }),
    ordered: (state, { worker, verb }) => done(state, worker, "good", accepted(worker, verb)),
    refused: (state, { worker, verb, error }) =>
        done(state, worker, "bad", refusal(worker, verb, error)),
    "service-refused": (state, { problem }) => ({
        notice: { kind: "bad", text: `The service can't be started: ${problem}` },
        said: `The service can't be started: ${problem}`,
    }),
    "notice-seen": () => ({ notice: null }),
};

/** What is known after `message`. */
export function after(state, message) {
    const change = CHANGES[message.type];
    return change ? { ...state, ...change(state, message) } : state;
}

function linkBy({ name, problem }) {
    if (name === DENIED) {
        return "denied";
    }
    return AWAY.has(name) ? "away" : (PROBLEMS[problem] ?? "failed");
}

function sentence({ message, problem, name }) {
    return String(message || problem || name || "no reason was given").replace(/[.\s]+$/, "");
}

function done(state, worker, kind, text) {
    const pending = { ...state.pending };
    delete pending[worker];
    return { pending, notice: { kind, text }, said: text };
}

function accepted(worker, verb) {
    return `${ORDERS[verb].label} worker ${worker}: accepted. Its state shows how it goes on.`;
}

function refusal(worker, verb, error) {
    const what = `${ORDERS[verb].label} worker ${worker}`;
    if (error.name === DENIED || error.problem === "access-denied") {
        return (
            `${what}: you may not. It takes administrative access (Cockpit's own bar), ` +
            "or a polkit rule for org.gpuwarden1.manage-workers."
        );
    }
    if (error.name?.endsWith(".Busy")) {
        return `${what}: not now, something else is being done with it (${sentence(error)}).`;
    }
    return `${what}: refused. ${sentence(error)}.`;
}

/** What a screen reader is told between two looks: cards and workers that changed. */
export function changes(before, now) {
    if (!before) {
        return "";
    }
    const said = [
        ...changed(before.gpus, now.gpus, "index", (card) => `Card ${card.index}`, THERMAL),
        ...changed(before.workers, now.workers, "number", (one) => `Worker ${one.number}`, WORKER),
    ];
    return said.join(" ");
}

function changed(before, now, key, name, table) {
    // Ready and busy take turns with each request: no news.
    const word = (each) => (each.state === "busy" ? "ready" : each.state);
    const former = new Map(before.map((each) => [each[key], word(each)]));
    return now
        .filter((each) => former.has(each[key]) && former.get(each[key]) !== word(each))
        .map((each) => `${name(each)}: ${worded(table, each.state)[1]}.`);
}
