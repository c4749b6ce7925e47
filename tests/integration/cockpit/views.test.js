import { find, textOf } from "../../../packaging/cockpit/dom.js";
import { counted, parted } from "../../../packaging/cockpit/doctor.js";
import { eventOf, kept, linesOf } from "../../../packaging/cockpit/events.js";
import { page } from "../../../packaging/cockpit/page.js";
import { after, beginning } from "../../../packaging/cockpit/store.js";
import { THERMAL, WORKER, clock, duration } from "../../../packaging/cockpit/words.js";
import { possible } from "../../../packaging/cockpit/workers.js";
import { has, lacks, same } from "./check.js";
import { NOW, card, gateway, status, worker } from "./samples.js";

const told = (...messages) => messages.reduce(after, beginning(NOW));
const text = (state) => page(state).filter(Boolean).map(textOf).join(" ");
const live = (changes) => told({ type: "status", data: status(changes) });
const buttons = (state) =>
    page(state)
        .filter(Boolean)
        .flatMap((view) => find(view, (each) => each.tag === "button"))
        .map((each) => each.attributes["aria-label"] ?? textOf(each));
const denied = { name: "org.freedesktop.DBus.Error.AccessDenied", message: "no" };
const journal = (changes) =>
    JSON.stringify({
        __CURSOR: "s=1",
        __REALTIME_TIMESTAMP: String(NOW * 1e6),
        MESSAGE: "GPU 0: normal -> alert",
        GPUWARDEN_EVENT: "thermal-state",
        PRIORITY: "4",
        ...changes,
    });

export const tests = {
    "every state of a card and of a worker has its words"() {
        const cards = ["normal", "alert", "critical", "recovering", "blind", "released", "lost"];
        same(Object.keys(THERMAL), cards);
        const workers = "stopped starting loading ready busy draining stuck ghost failed";
        same(Object.keys(WORKER), workers.split(" "));
    },

    "a hot card says what it means and what to do, not only that it is hot"() {
        const hot = card({
            state: "alert",
            temperature_celsius: 81,
            power_limit_watts: 452,
            batch_limit: 2,
            dispatch_duty: 0.8,
        });
        const shown = text(live({ gpus: [hot] }));
        has(shown, "Running hot for 2 hours. It is slowed down so that it gets no hotter");
        has(shown, "81 °C (hot above 80, too hot above 90)");
        has(shown, "412 of 452 W; lowered, its own limit is 700 W");
        has(shown, "at most 2 requests together, works 80 % of the time");
    },

    "what is unknown is called so"() {
        const nothing = Object.fromEntries(
            Object.entries(card()).map(([key, value]) => [key, typeof value === "number" ? null : value]),
        );
        const blind = { ...nothing, index: 0, state: "blind", name: "", dispatch_duty: 1 };
        const shown = text(live({ gpus: [blind], gateway: null, workers: [] }));
        for (const wrong of ["null", "NaN", "undefined"]) {
            lacks(shown, wrong);
        }
        has(shown, "Temperature can't be read for unknown");
        has(shown, "name unknown");
        has(shown, "The front door isn't running");
    },

    "a state that this page doesn't know is shown as it is called"() {
        has(text(live({ state: "paused", gpus: [card({ state: "melting" })] })), "melting");
    },

    "with the service away the last figures stay, and are said to be old"() {
        const shown = text(after(live(), { type: "away" }));
        has(shown, "The service isn't running");
        has(shown, "Last known at");
        has(shown, "Card 0: NVIDIA H200");
        same(buttons(after(live(), { type: "away" })).includes("Start the service"), true);
    },

    "who may not see it is told which access or group it takes"() {
        const refused = told(
            { type: "login", user: "alice", isAdministrator: false },
            { type: "trouble", error: denied },
        );
        has(text(refused), "administrative access");
        has(text(refused), "adduser alice gpuwarden");
        lacks(text(refused), "Card 0");
    },

    "an error that isn't foreseen is shown in its own words"() {
        has(text(told({ type: "trouble", error: { message: "it is full." } })), "it is full. It is");
        has(text(told({ type: "trouble", error: { problem: "terminated" } })), "terminated");
    },

    "an order is asked about, and what it costs is said"() {
        const asked = after(live(), { type: "ask", worker: 1, verb: "drain" });
        has(text(asked), "Drain worker 1? It gets no new work");
        lacks(text(asked), "No other worker");
        const alone = live({ workers: [worker(), worker({ number: 1, state: "failed" })] });
        const costly = after(alone, { type: "ask", worker: 0, verb: "restart" });
        has(text(costly), "No other worker can answer now: new requests are refused");
        same(after(asked, { type: "cancel" }).question, null);
        same(after(asked, { type: "confirm" }).pending, { 1: "drain" });
    },

    "why an order was refused is said in words"() {
        const order = { type: "refused", worker: 1, verb: "drain" };
        const said = (error) => after(live(), { ...order, error }).said;
        has(said(denied), "you may not. It takes administrative access");
        const busy = { name: "org.gpuwarden1.Error.Busy", message: "worker 1 is restarting" };
        has(said(busy), "not now, something else is being done with it (worker 1 is restarting)");
        has(said({ message: "it is too hot." }), "refused. it is too hot.");
    },

    "only orders that make sense are offered"() {
        same(possible(worker()), ["drain", "restart", "stop"]);
        same(possible(worker({ state: "draining" })), ["start", "restart", "stop"]);
        same(possible(worker({ state: "failed" })), ["start"]);
    },

    "a screen reader hears what changed, once"() {
        const hot = status({ gpus: [card({ state: "alert" }), card({ index: 1 })] });
        same(after(live(), { type: "status", data: hot }).said, "Card 0: Running hot.");
        const busy = status({ workers: [worker({ state: "busy" }), worker({ number: 1 })] });
        same(after(live(), { type: "status", data: busy }).said, "");
        const away = after(live(), { type: "away" });
        same(away.said, "The service isn't running");
        same(after(away, { type: "status", data: status() }).said, "The service answers again");
    },

    "jobs and pauses are told"() {
        const jobs = { queued: 4, running: 1, succeeded: 9, failed: 0, cancelled: 0, stored_bytes: 2 ** 30, limit_bytes: 2 ** 33, problem: "" };
        const shown = text(live({ gateway: gateway({ jobs, paused: true, paused_until: (NOW + 60) * 1e6 }) }));
        has(shown, "New requests are refused until");
        has(shown, "1.0 of 8.0 GiB");
    },

    "single jobs have no more of their id than it takes to call them by it"() {
        const kept = { queued: 30, running: 1, succeeded: 0, failed: 1, cancelled: 0, stored_bytes: 0, limit_bytes: 0, problem: "" };
        const job = (changes) => ({
            id: "0123456789abcdef0123456789abcdef", status: "queued", priority: 0, created_at: NOW - 3600,
            bytes: 2 ** 25, executions: 1, progress: { jobs_ahead: 0, running_seconds: null, is_finished: false },
            ...changes,
        });
        const unfinished = [
            job({ id: "b".repeat(32), status: "running", executions: 2, progress: { jobs_ahead: null, running_seconds: 12 } }),
            job({}),
        ];
        const failed = [job({ id: "c".repeat(32), status: "failed", error: { type: "bad_image", message: "Mrs. Miller" } })];
        const known = told(
            { type: "login", user: "alice", isAdministrator: true },
            { type: "status", data: status({ gateway: gateway({ jobs: kept }) }) },
            { type: "jobs", unfinished, failed },
        );
        const shown = text(known);
        has(shown, "01234567…");
        has(shown, "for 12 seconds; given out 2 times");
        has(shown, "60 minutes ago next 32.0 MiB");
        has(shown, "bad_image");
        has(shown, "And 29 more.");
        lacks(shown, "0123456789");
        lacks(shown, "Miller");
        has(text(after(known, { type: "jobs-trouble", problem: "gone" })), "can't be listed gone.");
        lacks(text(after(known, { type: "login", user: "bob", isAdministrator: false })), "01234567");
    },

    "strangers on a card are listed with what ends them"() {
        const orphan = { pid: 812, gpu: 0, orphan_class: "foreign", command: "python3", vram_bytes: null, since: (NOW - 60) * 1e6 };
        const shown = text(live({ orphans: [orphan, { ...orphan, pid: 9, orphan_class: "mps" }] }));
        has(shown, "gpuwarden reap 812");
        lacks(shown, "gpuwarden reap 9");
    },

    "only events are shown, the latest first, none twice"() {
        same(eventOf(journal({ GPUWARDEN_EVENT: undefined })), null);
        same(eventOf("-- No entries --"), null);
        same(eventOf(journal({ MESSAGE: [72, 195, 182] })).message, "Hö");
        same(eventOf(journal({ MESSAGE: null })).message, "(too long to be shown)");
        const [first, second] = ["a", "b"].map((key) => eventOf(journal({ __CURSOR: key })));
        same(kept(kept([], [first, second]), [first]).map((each) => each.key), ["b", "a"]);
        same(linesOf("ab", "c\nd\ne"), { begun: "e", lines: ["abc", "d"] });
    },

    "a finding's command and the remark behind it are told apart"() {
        same(parted("systemctl start x  # once it is mended"), ["systemctl start x", "once it is mended"]);
        same(parted("# nothing to be done"), ["", "nothing to be done"]);
        same(parted(""), ["", ""]);
        same(counted({ wrong: 1, doubtful: 2, good: 3 }), "1 thing is wrong, 2 doubtful, 3 good.");
    },

    "times are told as people do"() {
        same([0, 1, 59, 60, 119, 120, 3600, 7200, 86400 * 3].map(duration), [
            ...["0 seconds", "1 second", "59 seconds", "1 minute", "1 minute", "2 minutes"],
            ...["60 minutes", "2 hours", "3 days"],
        ]);
        same(clock(NOW, NOW).length, 8);
        same(clock(NOW - 86400 * 2, NOW).length, 19);
    },
};
