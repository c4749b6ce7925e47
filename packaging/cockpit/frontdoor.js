// The front door's list of durable jobs. No member of the bus has it: it is asked as `gpuwarden jobs`
// does, by the socket that root alone can open, so whoever has no administrative access is refused.

import { FAILED_SHOWN, UNFINISHED_SHOWN, isWorthListing } from "./jobs.js";

const SOCKET = "/run/gpuwarden/http.sock";
const LOOK_MILLISECONDS = 5000;
const DENIED = new Set(["access-denied", "not-authorized", "authentication-failed"]);

/** Asks for single jobs, at intervals, while there are any. */
export class FrontDoor {
    constructor(cockpit, tell) {
        this.cockpit = cockpit;
        this.tell = tell;
        this.client = null;
        this.askedAt = -Infinity;
    }

    /** Asks, unless it was asked just now; `status` is the service's. */
    async look(status, isAdministrator) {
        // With no front door a question would start one: systemd listens for it.
        if (!isAdministrator || !isWorthListing(status.gateway?.jobs)) {
            return;
        }
        if (Date.now() - this.askedAt < LOOK_MILLISECONDS) {
            return;
        }
        this.askedAt = Date.now();
        this.client ??= this.cockpit.http(SOCKET, { superuser: "require" });
        try {
            const [unfinished, failed] = await Promise.all([
                this.list("status=running&status=queued", UNFINISHED_SHOWN),
                this.list("status=failed", FAILED_SHOWN),
            ]);
            this.tell({ type: "jobs", unfinished, failed });
        } catch (error) {
            this.tell({ type: "jobs-trouble", problem: words(error) });
        }
    }

    async list(which, limit) {
        const answer = await this.client.get(`/v1/jobs?${which}&limit=${limit}`);
        return JSON.parse(answer).data;
    }
}

function words(error) {
    if (DENIED.has(error.problem)) {
        return "It takes administrative access (Cockpit's own bar)";
    }
    return String(error.message || error.problem || "No reason was given").replace(/[.\s]+$/, "");
}
