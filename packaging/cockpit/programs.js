// What comes from programs of the node, run by Cockpit's bridge with the user's own rights.

import * as doctor from "./doctor.js";
import * as events from "./events.js";

const GATHER_MILLISECONDS = 200;
const RETRY_MILLISECONDS = 10_000;

/** Follows the journal; anew where it is followed already. */
export class Journal {
    constructor(cockpit, tell) {
        this.cockpit = cockpit;
        this.tell = tell;
        this.process = null;
        this.timer = null;
    }

    follow() {
        clearTimeout(this.timer);
        const former = this.process;
        this.process = null;
        former?.close();
        const process = this.cockpit.spawn(events.COMMAND, { superuser: "try", err: "message" });
        this.process = process;
        let begun = "";
        let gathered = [];
        const tellAll = () => {
            const came = gathered.map(events.eventOf).filter(Boolean);
            gathered = [];
            this.tell({ type: "events", came });
        };
        process.stream((data) => {
            const split = events.linesOf(begun, data);
            begun = split.begun;
            if (!gathered.length && split.lines.length) {
                setTimeout(tellAll, GATHER_MILLISECONDS);
            }
            gathered.push(...split.lines);
        });
        const ended = (error) => {
            if (this.process === process) {
                this.tell({ type: "events-trouble", problem: words(error) });
                this.timer = setTimeout(() => this.follow(), RETRY_MILLISECONDS);
            }
        };
        process.then(() => ended({ message: "journalctl has ended" }), ended);
    }
}

/** Has doctor look at the node. It ends with 1 where something is wrong, and says what all the same. */
export async function examine(cockpit, tell) {
    let printed = "";
    const process = cockpit.spawn(doctor.COMMAND, { superuser: "try", err: "message" });
    process.stream((data) => {
        printed += data;
    });
    let error = null;
    try {
        await process;
    } catch (failure) {
        error = failure;
    }
    try {
        tell({ type: "doctor", report: JSON.parse(printed) });
    } catch {
        tell({ type: "doctor-trouble", problem: words(error ?? { message: "its answer is no JSON" }) });
    }
}

/** Starts the service. */
export async function startService(cockpit, tell) {
    const command = ["systemctl", "start", "medgemma-guard.service"];
    try {
        await cockpit.spawn(command, { superuser: "require", err: "message" });
    } catch (error) {
        const denied = ["access-denied", "not-authorized", "authentication-failed"];
        const problem = denied.includes(error.problem)
            ? "it takes administrative access (Cockpit's own bar)"
            : words(error);
        tell({ type: "service-refused", problem });
    }
}

/** By how many seconds the node's clock is ahead of the browser's. */
export async function clockAhead(cockpit) {
    const before = Date.now() / 1000;
    const answer = await cockpit.spawn(["date", "+%s.%N"]);
    const ahead = Number(answer) - (before + Date.now() / 1000) / 2;
    return Number.isFinite(ahead) ? ahead : 0;
}

function words(error) {
    if (error.problem === "not-found") {
        return "The program isn't installed.";
    }
    return String(error.message || error.problem || "No reason was given.");
}
